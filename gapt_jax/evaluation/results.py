"""From run folders' contents to results: systems by seed, paired comparisons, the verdict. Pure; no files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from gapt_jax.errors import UserError
from gapt_jax.evaluation.statistics import PairedDifference, estimate, paired_difference
from gapt_jax.vocabulary import Vocabulary

ARM = "gapt_lambda="
BASELINE = ARM + "0"
COLLAPSE = 0.8  # Vendi that λ = 0 must lose against the MLE for the comparison to mean anything (method.md §8)
PRIMARY = "vendi_independent"


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder says about itself."""

    path: str
    seed: int
    adversarial_weight: float
    upstream_seed: int  # of pre-training
    config: dict[str, Any]
    record: dict[str, Any]  # run.json
    evaluation: dict[str, Any]
    log: list[dict[str, Any]]  # metrics.jsonl
    samples: dict[str, Any]
    vocabulary: Vocabulary

    @property
    def arm(self) -> str:
        return f"{ARM}{self.adversarial_weight:g}"

    def scores(self) -> Iterator[tuple[str, str, str, float, int]]:
        """(system, dataset, metric, mean, number of songs) of every number; a null mean is NaN."""
        for system, datasets in self.evaluation["systems"].items():
            for dataset, metrics in datasets.items():
                for metric, entry in metrics.items():
                    mean = float("nan") if entry["mean"] is None else float(entry["mean"])
                    yield system, dataset, metric, mean, int(entry["n_songs"])


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one system on one dataset, by seed."""

    by_seed: dict[int, float]
    n_songs: int

    @property
    def values(self) -> list[float]:
        return list(self.by_seed.values())


Systems = dict[str, dict[str, dict[str, Score]]]  # system -> dataset -> metric


@dataclasses.dataclass(frozen=True)
class Comparison:
    """`system` minus the λ = 0 arm over the seeds that both have."""

    system: str
    dataset: str
    metric: str
    paired: PairedDifference


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The answer of one dataset to: is the arm more diverse than λ = 0, where λ = 0 collapsed?"""

    dataset: str
    system: str
    lost: float  # Vendi of the MLE minus that of λ = 0
    verdict: str


def collect(runs: Sequence[Run]) -> Systems:
    """Groups all scores. Data and MLE, which runs share, count seeds of pre-training."""
    found: dict[tuple[str, str, str], dict[int, tuple[float, int]]] = {}
    _check_unique(runs)
    for run in sorted(runs, key=lambda r: r.seed):
        for system, dataset, metric, mean, n_songs in run.scores():
            seed = run.seed if system.startswith(ARM) else run.upstream_seed
            found.setdefault((system, dataset, metric), {}).setdefault(seed, (mean, n_songs))
    systems: Systems = {}
    for system, dataset, metric in sorted(found, key=lambda key: _rank(key[0])):
        entries = found[system, dataset, metric]
        score = Score({s: mean for s, (mean, _) in entries.items()}, min(n for _, n in entries.values()))
        systems.setdefault(system, {}).setdefault(dataset, {})[metric] = score
    return systems


def datasets(systems: Systems) -> list[str]:
    """All datasets in the order of their first appearance."""
    return list(dict.fromkeys(dataset for by_dataset in systems.values() for dataset in by_dataset))


def arms(systems: Systems) -> list[str]:
    """The post-trained systems, λ ascending."""
    return [system for system in systems if system.startswith(ARM)]


def get(systems: Systems, system: str, dataset: str, metric: str) -> Score | None:
    return systems.get(system, {}).get(dataset, {}).get(metric)


def name_of(system: str) -> str:
    """A system as readers know it: ``"gapt_lambda=1" -> "λ = 1"``, with spaces that do not break."""
    if system.startswith(ARM):
        return f"λ\u00a0=\u00a0{system.removeprefix(ARM)}"
    return {"data": "Data", "mle": "MLE"}.get(system, system)


def compare(systems: Systems) -> list[Comparison]:
    """Every arm against λ = 0, on every dataset and metric that share a seed."""
    comparisons = []
    for system in arms(systems):
        for dataset, metrics in systems[system].items():
            for metric, score in metrics.items():
                base = get(systems, BASELINE, dataset, metric)
                seeds = [s for s in score.by_seed if base and s in base.by_seed]
                if system != BASELINE and base and seeds:
                    paired = paired_difference([score.by_seed[s] for s in seeds], [base.by_seed[s] for s in seeds])
                    comparisons.append(Comparison(system, dataset, metric, paired))
    return comparisons


def outcomes(systems: Systems, comparisons: Sequence[Comparison]) -> list[Outcome]:
    """The protocol of method.md §8 for every dataset and arm that has what it takes."""
    found = []
    for comparison in comparisons:
        mle = get(systems, "mle", comparison.dataset, PRIMARY)
        base = get(systems, BASELINE, comparison.dataset, PRIMARY)
        if comparison.metric == PRIMARY and mle and base:
            lost = estimate(mle.values).mean - estimate(base.values).mean
            verdict = _verdict(lost, comparison.paired)
            found.append(Outcome(comparison.dataset, comparison.system, lost, verdict))
    return found


def warnings(runs: Sequence[Run]) -> list[str]:
    """Reasons not to compare these runs, one sentence each."""
    found = []
    paths = sorted({path for run in runs[1:] for path in _differences(_comparable(runs[0]), _comparable(run))})
    if paths:
        found.append(f"The runs differ in more than λ and seed: {', '.join(paths)}.")
    for key, name in (("data_fingerprint", "data fingerprints"), ("git_revision", "git revisions")):
        values = sorted({str(run.record[key]) for run in runs})
        if len(values) > 1:
            found.append(f"The runs have different {name}: {', '.join(values)}.")
    if len({str(run.evaluation["sampling"]) for run in runs}) > 1:
        found.append("The runs were evaluated with different sampling rules.")
    pairs = {(run.seed, run.upstream_seed) for run in runs}
    if len(pairs) > len({run.seed for run in runs}):
        found.append("Runs of one seed come from different pre-trainings, so that they are no true pairs.")
    for run in runs:
        for key in ("config_hash", "data_fingerprint"):
            if run.record[key] != run.evaluation[key]:
                found.append(f"{run.path} was evaluated under another {key.replace('_', ' ')} than it was trained.")
    return found + _disagreements(runs)


def to_json(runs: Sequence[Run], systems: Systems, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The contents of results.json."""
    return {
        "schema": 1,
        "systems": {
            system: {
                dataset: {metric: _score_json(score) for metric, score in metrics.items()}
                for dataset, metrics in by_dataset.items()
            }
            for system, by_dataset in systems.items()
        },
        "comparisons": [_comparison_json(comparison) for comparison in comparisons],
        "outcomes": [dataclasses.asdict(outcome) for outcome in outcomes(systems, comparisons)],
        "warnings": warnings(runs),
        "runs": [
            {"path": run.path, "seed": run.seed, "lambda": run.adversarial_weight}
            | {"pretrain_seed": run.upstream_seed}
            | {key: run.record[key] for key in ("command", "config_hash", "data_fingerprint", "git_revision")}
            for run in runs
        ],
    }


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as dotted paths; lists are leaves."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _rank(system: str) -> tuple[int, float, str]:
    if system.startswith(ARM):
        return 3, float(system.removeprefix(ARM)), system
    return {"data": 0, "mle": 1}.get(system, 2), 0.0, system


def _check_unique(runs: Sequence[Run]) -> None:
    first: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = first.setdefault((run.arm, run.seed), run)
        if other is not run:
            raise UserError(
                f"{other.path} and {run.path} are both λ = {run.adversarial_weight:g}, seed {run.seed}: "
                "report one of them"
            )


def _verdict(lost: float, paired: PairedDifference) -> str:
    if not lost >= COLLAPSE:
        return "void: no collapse"
    if paired.p_floor >= 0.05:
        return "undecided: too few pairs"
    if not paired.p < 0.05:  # NaN included
        return "no difference shown"
    return "more diverse" if paired.difference.mean > 0 else "less diverse"


def _comparable(run: Run) -> dict[str, Any]:
    leaves = flatten(run.config)
    own = ("name", "seed", "pretrain.seed", "algorithm.adversarial_weight")
    return {path: value for path, value in leaves.items() if path not in own}


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    missing = object()
    return [key for key in a | b if a.get(key, missing) != b.get(key, missing)]


def _disagreements(runs: Sequence[Run]) -> list[str]:
    """Shared systems whose number is not the same in two runs that share a pre-training."""
    seen: dict[tuple[str, str, str, int], float] = {}
    systems = set()
    for run in runs:
        for system, dataset, metric, mean, _ in run.scores():
            if not system.startswith(ARM):
                first = seen.setdefault((system, dataset, metric, run.upstream_seed), mean)
                if first != mean and not (math.isnan(first) and math.isnan(mean)):
                    systems.add(system)
    return [
        f"The numbers of '{s}' differ between runs of one pre-training; the lowest seed's are used."
        for s in sorted(systems)
    ]


def _score_json(score: Score) -> dict[str, Any]:
    mean = estimate(score.values)
    return {
        "mean": mean.mean,
        "ci95": mean.ci95,
        "n_seeds": mean.n,
        "per_seed": score.values,
        "seeds": list(score.by_seed),
        "n_songs": score.n_songs,
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    difference = comparison.paired.difference
    return {
        "dataset": comparison.dataset,
        "metric": comparison.metric,
        "a": comparison.system,
        "b": BASELINE,
        "difference": difference.mean,
        "ci95": difference.ci95,
        "n_pairs": difference.n,
        "p": comparison.paired.p,
        "p_floor": comparison.paired.p_floor,
    }
