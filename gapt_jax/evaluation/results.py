"""From run folders' contents to results: systems by seed, their paired comparisons. Pure; no files."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.evaluation.statistics import PairedDifference, holm, paired_difference
from gapt_jax.task import Domain, Task

ARM = "gapt_lambda="
BASELINE = ARM + "0"
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
    domain: Domain
    task: Task
    alarms: list[dict[str, Any]]  # alarms.jsonl
    songs: dict[str, np.ndarray]  # songs.npz: "<system>|<dataset>|hits" and so on, a row per song
    warnings: list[str] = dataclasses.field(default_factory=list)  # of its supervised stages

    @property
    def rule(self) -> str:
        """How its evaluation drew, for readers."""
        return rule_of(self.evaluation)

    @property
    def arm(self) -> str:
        """The system that this run trained, as its evaluation names it."""
        return str(self.evaluation.get("arm", f"{ARM}{self.adversarial_weight:g}"))

    def scores(self, block: str = "systems") -> Iterator[tuple[str, str, str, float, int]]:
        """(system, dataset, metric, mean, number of songs) of every number of a block; a null mean is NaN."""
        for system, datasets in self.evaluation.get(block, {}).items():
            for dataset, metrics in datasets.items():
                for metric, entry in metrics.items():
                    mean = float("nan") if entry["mean"] is None else float(entry["mean"])
                    yield system, dataset, metric, mean, int(entry["n_songs"])


@dataclasses.dataclass(frozen=True)
class Member:
    """A run that an ablation planned."""

    folder: str
    arm: str
    seed: int
    status: str  # finished, stopped or unfinished
    reason: str


@dataclasses.dataclass(frozen=True)
class Ablation:
    """What ablation.json says: the arms in their order, and which one all others are compared with."""

    folder: str
    command: str
    preset: str
    baseline: str
    labels: dict[str, str]  # arm -> its name for readers
    settings: dict[str, dict[str, Any]]  # arm -> what it sets
    members: list[Member]
    record: dict[str, Any]  # the whole file

    @property
    def missing(self) -> list[Member]:
        """Members that no statistic counts."""
        return [member for member in self.members if member.status != "finished"]


@dataclasses.dataclass(frozen=True)
class Study:
    """The runs and ablations of one report."""

    runs: list[Run]  # ordered by arm, then seed
    ablations: list[Ablation]

    @property
    def domain(self) -> Domain:
        """That of all its runs."""
        return self.runs[0].domain

    @property
    def baseline(self) -> str:
        return self.ablations[0].baseline if self.ablations else BASELINE

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(run.arm for run in self.runs))

    def name(self, system: str) -> str:
        """A system as readers know it: an ablation's label, or ``"gapt_lambda=1" -> "λ = 1"``."""
        labels = {arm: label for ablation in self.ablations for arm, label in ablation.labels.items()}
        return labels.get(system, name_of(system)).replace(" = ", "\u00a0=\u00a0")


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
    """`system` minus the baseline over the seeds that both have."""

    system: str
    dataset: str
    metric: str
    paired: PairedDifference
    p_holm: float  # over the secondary arms of this metric and dataset; the preregistered arm's p as it is
    family: int  # how many tests Holm's correction counts


def order(runs: Sequence[Run], ablations: Sequence[Ablation] = ()) -> list[Run]:
    """Runs by arm (an ablation's order, else λ ascending and then by name), then seed. One seed twice is an error."""
    planned = [arm for ablation in ablations for arm in ablation.labels]
    place = {arm: i for i, arm in enumerate(dict.fromkeys(planned))}
    ordered = sorted(runs, key=lambda r: (place.get(r.arm, len(place)), _rank(r.arm), r.seed))
    for first, second in itertools.pairwise(ordered):
        if (first.arm, first.seed) == (second.arm, second.seed):
            raise UserError(
                f"{first.path} and {second.path} are both {name_of(first.arm)}, seed {first.seed}: report one of them"
            )
    return ordered


def collect(study: Study, block: str = "systems") -> Systems:
    """Groups all scores of a block of the evaluations: data, MLE and other references first, then the arms in their
    order.

    Systems that no run trained, which runs share, count seeds of pre-training."""
    found: dict[str, dict[tuple[str, str], dict[int, tuple[float, int]]]] = {}
    for run in sorted(study.runs, key=lambda r: r.seed):
        for system, dataset, metric, mean, n_songs in run.scores(block):
            seed = run.seed if system in study.arms else run.upstream_seed
            found.setdefault(system, {}).setdefault((dataset, metric), {}).setdefault(seed, (mean, n_songs))
    references = sorted((s for s in found if s not in study.arms), key=_rank)
    systems: Systems = {}
    for system in [*references, *(arm for arm in study.arms if arm in found)]:
        for (dataset, metric), entries in found[system].items():
            score = Score({s: mean for s, (mean, _) in entries.items()}, min(n for _, n in entries.values()))
            systems.setdefault(system, {}).setdefault(dataset, {})[metric] = score
    return systems


def datasets(systems: Systems) -> list[str]:
    """All datasets in the order of their first appearance."""
    return list(dict.fromkeys(dataset for by_dataset in systems.values() for dataset in by_dataset))


def primary_dataset(study: Study, systems: Systems) -> str:
    """The first in-domain test set (docs/verdict.md); the first of all where every one is out of domain."""
    foreign = set(study.runs[0].config.get("data", {}).get("out_of_domain") or ())
    found = datasets(systems)
    return next((name for name in found if name.rpartition("/")[0] not in foreign), found[0])


def primary_arm(study: Study) -> str | None:
    """The preregistered arm: λ = 1, else the largest λ; None where no λ above 0 was trained."""
    weights = {arm: weight_of(arm) for arm in study.arms if arm.startswith(ARM) and weight_of(arm) > 0}
    return f"{ARM}1" if f"{ARM}1" in weights else max(weights, key=lambda arm: weights[arm], default=None)


def get(systems: Systems, system: str, dataset: str, metric: str) -> Score | None:
    return systems.get(system, {}).get(dataset, {}).get(metric)


def weight_of(arm: str) -> float:
    """λ of an arm ``gapt_lambda=...``."""
    return float(arm.removeprefix(ARM))


def name_of(system: str) -> str:
    """A system without a label of its own, with spaces that do not break: ``"gapt_lambda=1" -> "λ = 1"``."""
    if system.startswith(ARM):
        return f"λ\u00a0=\u00a0{system.removeprefix(ARM)}"
    return {"data": "Data", "mle": "MLE"}.get(system, system.replace("=", "\u00a0=\u00a0"))


def compare(study: Study, systems: Systems) -> list[Comparison]:
    """Every arm against the baseline, on every dataset and metric that share a seed."""
    base, primary = systems.get(study.baseline, {}), primary_arm(study)
    comparisons = []
    for dataset, metrics in base.items():
        for metric, score in metrics.items():
            pairs: dict[str, PairedDifference] = {}
            for arm in study.arms:
                other = get(systems, arm, dataset, metric)
                seeds = [seed for seed in score.by_seed if other and seed in other.by_seed]
                if arm != study.baseline and other and seeds:
                    pairs[arm] = paired_difference([other.by_seed[s] for s in seeds], [score.by_seed[s] for s in seeds])
            secondary = [arm for arm in pairs if arm != primary]
            corrected = dict(zip(secondary, holm([pairs[arm].p for arm in secondary]), strict=True))
            comparisons += [
                Comparison(arm, dataset, metric, pair, float(corrected.get(arm, pair.p)),
                           len(secondary) if arm in corrected else 1)
                for arm, pair in pairs.items()
            ]  # fmt: skip
    return comparisons


def rule_of(evaluation: Mapping[str, Any]) -> str:
    """The sampling rule of a file of results at T = 1: "unfiltered", "masked, top-k 0.1 (283 tokens)"."""
    truncated = evaluation.get("truncation") or {"top_k": 1, "top_p": 1}
    parts = [str(evaluation["sampling"])]
    if truncated["top_k"] < 1:
        parts.append(f"top-k {truncated['top_k']:g} ({truncated['tokens']:d} tokens)")
    if truncated["top_p"] < 1:
        parts.append(f"top-p {truncated['top_p']:g}")
    return ", ".join(parts)


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
        return 3, weight_of(system), system
    return {"data": 0, "mle": 1}.get(system, 2), 0.0, system
