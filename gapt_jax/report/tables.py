"""The results as results.json, by system, dataset and metric, and results.csv. Pure; no files."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from typing import Any

from gapt_jax.evaluation import agreement, results, songs, verdict
from gapt_jax.evaluation.metrics import describe
from gapt_jax.evaluation.results import Comparison, Score, Study, Systems
from gapt_jax.evaluation.statistics import estimate, iqm
from gapt_jax.report import curves, rewards


@dataclasses.dataclass(frozen=True)
class Results:
    """What the page, the figures and both files are made of, so that they cannot differ."""

    study: Study
    systems: Systems
    comparisons: list[Comparison]

    @functools.cached_property
    def unseen(self) -> Systems:
        """The systems on the songs that training does not hear, where runs have measured that."""
        return results.collect(self.study, "unseen")

    @functools.cached_property
    def outcomes(self) -> list[verdict.Outcome]:
        return verdict.outcomes(self.study, self.systems, self.comparisons)

    @functools.cached_property
    def verdict(self) -> verdict.Outcome:
        return verdict.primary(self.study, self.systems, self.outcomes)

    @functools.cached_property
    def song_intervals(self) -> dict[tuple[str, str, str], tuple[float, float]]:
        return songs.intervals(self.study, self.systems)

    @functools.cached_property
    def one_seed_intervals(self) -> dict[tuple[str, str, str], tuple[float, float]]:
        return songs.intervals_of_one_seed(self.study, self.systems)

    @functools.cached_property
    def one_pair_intervals(self) -> dict[tuple[str, str, str], tuple[float, float]]:
        return songs.intervals_of_one_pair(self.study, self.systems)

    @functools.cached_property
    def warnings(self) -> list[str]:
        return agreement.warnings(self.study)

    @functools.cached_property
    def constants(self) -> dict[str, float]:
        return curves.constants(self.study)


def to_json(found: Results) -> dict[str, Any]:
    """The contents of results.json."""
    return {
        "schema": 1,
        "verdict": dataclasses.asdict(found.verdict),
        "names": {system: found.study.name(system) for system in found.systems},
        "systems": _systems(found.systems),
        "unseen": _systems(found.unseen),
        "reward_models": rewards.collected(found.study),
        "comparisons": [_comparison(comparison, found) for comparison in found.comparisons],
        "outcomes": [dataclasses.asdict(outcome) for outcome in found.outcomes],
        "learning": curves.evaluations(found.study),
        "warnings": found.warnings,
        "missing": [dataclasses.asdict(m) for ablation in found.study.ablations for m in ablation.missing],
        "runs": [
            {"path": run.path, "arm": run.arm, "seed": run.seed, "lambda": run.adversarial_weight}
            | {"pretrain_seed": run.upstream_seed}
            | {key: run.record[key] for key in ("command", "config_hash", "data_fingerprint", "git_revision")}
            for run in found.study.runs
        ],
    }


def to_csv(found: Results) -> str:
    """One line per system, dataset and metric; `seeds` and `per_seed` are separated by semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        "system,dataset,metric,unit,mean,ci95_low,ci95_high,iqm,n_seeds,n_songs,seeds,per_seed,"
        "difference,difference_ci95_low,difference_ci95_high,p,p_holm"
    )
    writer.writerow(head.split(","))
    pairs = {(c.system, c.dataset, c.metric): c for c in found.comparisons}
    for system, datasets in found.systems.items():
        for dataset, metrics in datasets.items():
            for metric, score in metrics.items():
                mean, pair = estimate(score.values), pairs.get((system, dataset, metric))
                seeds, values = (";".join(map(str, part)) for part in (score.by_seed, score.values))
                unit = describe(found.study.domain.metrics, metric).unit
                row: list[Any] = [system, dataset, metric, unit, mean.mean, *(mean.ci95 or ("", ""))]
                row += [iqm(score.values), mean.n, score.n_songs, seeds, values]
                if pair:
                    difference = pair.paired.difference
                    row += [difference.mean, *(difference.ci95 or ("", "")), pair.paired.p, pair.p_holm]
                writer.writerow([*row, *[""] * (len(head.split(",")) - len(row))])
    return text.getvalue()


def _systems(systems: Systems) -> dict[str, Any]:
    return {
        system: {
            dataset: {metric: _score(score) for metric, score in metrics.items()}
            for dataset, metrics in by_dataset.items()
        }
        for system, by_dataset in systems.items()
    }


def _score(score: Score) -> dict[str, Any]:
    mean = estimate(score.values)
    return {
        "mean": mean.mean,
        "ci95": mean.ci95,
        "iqm": iqm(score.values),
        "n_seeds": mean.n,
        "per_seed": score.values,
        "seeds": list(score.by_seed),
        "n_songs": score.n_songs,
    }


def _comparison(comparison: Comparison, found: Results) -> dict[str, Any]:
    """Everything that the paired comparison measured, under its own names; `ci95_songs` is of fresh songs too."""
    values = comparison.paired._asdict()
    key = comparison.system, comparison.dataset, comparison.metric
    difference = values.pop("difference")
    return {
        "dataset": comparison.dataset,
        "metric": comparison.metric,
        "a": comparison.system,
        "b": found.study.baseline,
        "difference": difference.mean,
        "ci95": difference.ci95,
        "ci95_songs": found.song_intervals.get(key),
        "n_pairs": difference.n,
        **values,
        "p_holm": comparison.p_holm,
        "family": comparison.family,
    }
