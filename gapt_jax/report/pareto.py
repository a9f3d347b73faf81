"""Quality against diversity: which arms no other arm beats in both. Pure; no files."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from gapt_jax.evaluation import results
from gapt_jax.evaluation.metrics import describe
from gapt_jax.evaluation.results import PRIMARY, Run, Study
from gapt_jax.evaluation.statistics import (
    PairedDifference,
    estimate,
    hypervolume,
    matched_means,
    paired_difference,
    pareto_front,
)
from gapt_jax.report import curves
from gapt_jax.report.tables import Results

REFERENCE = (0.0, 1.0)  # no quality, one song: the worst that a share and Vendi can be


def label_of(study: Study) -> str:
    """The quality of a task as it stands inside a sentence."""
    label = describe(study.domain.metrics, study.domain.quality).label
    return label[:1].lower() + label[1:]


def axis_of(study: Study) -> str:
    return f"{label_of(study)} ↑, {describe(study.domain.metrics, study.domain.quality).unit}"


def points(found: Results, dataset: str) -> dict[str, tuple[float, float]]:
    """(quality, independent Vendi) of each arm, means over seeds; arms without both are left out."""
    pairs = {}
    for arm in found.study.arms:
        scores = [results.get(found.systems, arm, dataset, metric) for metric in (found.study.domain.quality, PRIMARY)]
        means = [estimate(score.values).mean for score in scores if score]
        if len(means) == 2 and all(map(math.isfinite, means)):
            pairs[arm] = (means[0], means[1])
    return pairs


def front(found: Results, dataset: str) -> dict[str, tuple[float, float]]:
    """The arms on the Pareto front, with their points."""
    placed = points(found, dataset)
    return {
        arm: placed[arm]
        for arm, is_on in zip(placed, pareto_front(np.array(list(placed.values()))), strict=True)
        if is_on
    }


def area(found: Results, dataset: str, arms: Iterable[str]) -> float:
    """Hypervolume, above REFERENCE, of the mean points of these arms together."""
    placed = points(found, dataset)
    return hypervolume(np.array([placed[arm] for arm in arms if arm in placed]), REFERENCE)


def at_matched_quality(study: Study) -> dict[str, PairedDifference]:
    """Per arm: independent Vendi at equal quality along the learning curves, minus the baseline's, by seed."""
    found = {}
    base = {run.seed: _path(run) for run in study.runs if run.arm == study.baseline}
    for arm in study.arms:
        runs = [run for run in study.runs if run.arm == arm != study.baseline and run.seed in base]
        means = np.array([matched_means(_path(run), base[run.seed]) for run in runs]).reshape(-1, 2)
        means = means[np.isfinite(means).all(-1)]
        if len(means):
            found[arm] = paired_difference(*means.T.tolist())
    return found


def _path(run: Run) -> np.ndarray:
    """[S, 2] (quality, independent Vendi) of the evaluations on the valid split."""
    x, y = curves.against(run, f"valid/{PRIMARY}", f"valid/{run.domain.quality}"), curves.curve(run, f"valid/{PRIMARY}")
    return np.stack([x.values, y.values[np.isin(y.steps, x.steps)]], axis=1)
