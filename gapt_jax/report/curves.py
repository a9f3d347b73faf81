"""Learning curves out of the log of runs: one line per run, their mean per λ. Pure; no files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gapt_jax.evaluation.results import Run

STAGE = "gapt"
MAX_POINTS = 100  # of a drawn line; longer ones are averaged in bins


class Curve(NamedTuple):
    """One logged quantity: steps [S] and values [S]."""

    steps: np.ndarray
    values: np.ndarray


def keys(runs: Sequence[Run]) -> list[str]:
    """Everything that post-training logged as a number, in order of first appearance."""
    found: dict[str, None] = {}
    for run in runs:
        for row in run.log:
            if row.get("stage") == STAGE:
                found |= dict.fromkeys(k for k, v in row.items() if k != "step" and _is_number(v))
    return list(found)


def curve(run: Run, key: str) -> Curve:
    """The finite values of `key`, by step; of a step that was logged twice (a resumed run) the last."""
    found = {
        int(row["step"]): float(row[key])
        for row in run.log
        if row.get("stage") == STAGE and _is_number(row.get(key)) and np.isfinite(row[key])
    }
    steps = sorted(found)
    return Curve(np.array(steps, np.int64), np.array([found[step] for step in steps], np.float64))


def pointwise(curves: Sequence[Curve], reduce: Callable[..., Any]) -> Curve:
    """`reduce` (np.min, say) over seeds, at the steps that all of them have."""
    steps = functools.reduce(np.intersect1d, [c.steps for c in curves])
    return Curve(steps, reduce([c.values[np.isin(c.steps, steps)] for c in curves], axis=0))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds, at the steps that all of them have."""
    return pointwise(curves, np.mean)


def against(run: Run, first: str, second: str) -> Curve:
    """`second` at the steps that have `first` too."""
    wanted, found = curve(run, first), curve(run, second)
    common = np.isin(found.steps, wanted.steps)
    return Curve(found.steps[common], found.values[common])


def thin(full: Curve) -> Curve:
    """At most MAX_POINTS points: means of equally many neighbouring ones."""
    per_bin = -(-len(full.steps) // MAX_POINTS)
    if per_bin <= 1:
        return full
    starts = np.arange(0, len(full.steps), per_bin)
    counts = np.diff(np.append(starts, len(full.steps)))
    return Curve(np.add.reduceat(full.steps, starts) / counts, np.add.reduceat(full.values, starts) / counts)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
