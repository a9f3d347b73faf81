"""What a few seeds can and cannot say (method.md §6). Songs are never counted as seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float
    ci95: tuple[float, float] | None  # Student t; None for fewer than two seeds
    n: int


class PairedDifference(NamedTuple):
    """a - b over pairs of the same seed."""

    difference: Estimate
    p: float  # two-sided exact sign-flip test
    p_floor: float  # the smallest p that so many pairs can reach


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of values [n] over seeds with its 95 % confidence interval."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    if n < 2:
        return Estimate(mean, None, n)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, (mean - half, mean + half), n)


def paired_difference(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    """Difference of a [n] and b [n], where a[i] and b[i] share a seed."""
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return PairedDifference(estimate(differences.tolist()), sign_flip_p(differences), sign_flip_floor(len(differences)))


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided exact p of differences [n], each of which may as well have the other sign; NaN with a NaN."""
    if np.isnan(differences).any():
        return float("nan")
    if len(differences) < 2:
        return 1.0
    result = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    return float(result.pvalue)


def sign_flip_floor(n: int) -> float:
    """2 / 2^n: the p of n differences of one sign. With five pairs 0.0625, with six 0.03125."""
    return min(1.0, 2.0 ** (1 - n))
