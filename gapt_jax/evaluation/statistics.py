"""Statistics over a few seeds (docs/method.md §12.8). Songs are never counted as seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
from scipy import special, stats

ENOUGH_PAIRS = 6  # the fewest with which an exact paired test can reach p < 0.05
_ENUMERATED = 16  # pairs up to which all 2^n signs are tried
_RANDOM_FLIPS = 99_999  # beyond
Interval = tuple[float, float]
Statistic = Callable[..., float]


class Estimate(NamedTuple):
    """A mean over seeds."""

    mean: float
    ci95: Interval | None  # Student t; None for fewer than two seeds
    n: int


class PairedDifference(NamedTuple):
    """a - b over pairs of the same seed."""

    difference: Estimate
    p: float  # two-sided sign-flip test
    p_floor: float  # the smallest p that so many pairs can reach
    p_t: float  # paired t; NaN where all differences are equal
    p_wilcoxon: float  # signed-rank
    effect_size: float  # Hedges' g_z; NaN for fewer than three pairs or where all differences are equal
    improvement: float  # share of the pairs in which a is the greater, ties counted half


class Reachable(NamedTuple):
    """The p that so many pairs cannot go below, and a sentence where that is above 0.05."""

    sign_flip: float
    wilcoxon: float
    sentence: str | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of values [n] over seeds with its 95 % confidence interval."""
    n = len(values)
    mean = float(np.mean(values)) if n else float("nan")
    if n < 2:
        return Estimate(mean, None, n)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, (mean - half, mean + half), n)


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean, as rliable defines it: scipy's trim_mean of 25 %. It drops floor(n/4) values at each end:
    of six seeds the lowest and the highest."""
    return float(stats.trim_mean(values, 0.25)) if len(values) and not np.isnan(values).any() else float("nan")


def share(part: SupportsFloat, whole: SupportsFloat) -> float:
    """part / whole; NaN where there is nothing to share."""
    return float(part) / float(whole) if whole else float("nan")


def paired_difference(a: Sequence[float], b: Sequence[float]) -> PairedDifference:
    """Difference of a [n] and b [n], where a[i] and b[i] share a seed.

    `improvement` is within pairs: other than rliable's it does not compare a[i] with b[j]."""
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    exact = _without_rounding(differences)
    varies = len(exact) > 1 and bool(np.ptp(exact) != 0)
    return PairedDifference(
        estimate(differences.tolist()),
        sign_flip_p(exact),
        sign_flip_floor(len(exact)),
        float(stats.ttest_1samp(exact, 0.0).pvalue) if varies else float("nan"),
        wilcoxon_p(exact),
        _hedges_g(exact) if varies else float("nan"),
        float(np.mean(np.where(np.isnan(exact), np.nan, (np.sign(exact) + 1) / 2))) if len(exact) else float("nan"),
    )


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of differences [n], each of which may as well have the other sign; NaN with a NaN.

    Exact up to 16 pairs; beyond, 99,999 random sign changes of a fixed seed."""
    if np.isnan(differences).any():
        return float("nan")
    if len(differences) < 2:
        return 1.0
    resamples = np.inf if len(differences) <= _ENUMERATED else _RANDOM_FLIPS
    result = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=resamples, vectorized=True, batch=10_000,
        rng=0,
    )  # fmt: skip
    return float(result.pvalue)


def sign_flip_floor(n: int) -> float:
    """2 / 2^n: the p of n differences of one sign. With five pairs 0.0625, with six 0.03125."""
    return min(1.0, 2.0 ** (1 - n))


def wilcoxon_p(differences: np.ndarray) -> float:
    """Two-sided Wilcoxon signed-rank p of differences [n]; zeros are left out, NaN with a NaN.

    Exact without ties up to 50 pairs and with ties up to 13, otherwise scipy's normal approximation."""
    if np.isnan(differences).any():
        return float("nan")
    differences = differences[differences != 0]
    return float(stats.wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p (Holm 1979). NaN stays NaN and is not counted as a test."""
    p = np.asarray(p_values, np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    adjusted = p.copy()
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted.tolist()


def reachable(n: int) -> Reachable:
    """What exact tests of n pairs cannot reach. Wilcoxon's floor is that of pairs without a zero difference: it
    too gives every one of the 2^n signs the same probability."""
    floor = sign_flip_floor(n)
    sentence = f"with {n} pair{'s' * (n != 1)} an exact paired test cannot go below p = {floor:g}"
    return Reachable(floor, floor, sentence if n < ENOUGH_PAIRS else None)


def hierarchical_bootstrap(
    by_seed: Sequence[tuple[np.ndarray, ...]], statistic: Statistic, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """95 % interval of the mean over seeds of `statistic`, for fresh seeds and fresh songs (docs/method.md §12.8).

    by_seed: one tuple per seed of arrays [N, ...]; the same N songs in the same order everywhere.
    statistic(*arrays) -> float: of one seed's songs, resampled with replacement, jointly for all seeds and arrays.
    None for fewer than two seeds or songs.

    The interval is mean ± t · sqrt(S²/n + C). S² is the variance of the n seeds' statistics, in which each seed's own
    song noise is contained. C, the variance due to the songs that all seeds share, is the mean covariance of two
    seeds' statistics over resamples of the songs, at least 0. t has Satterthwaite's degrees of freedom. Seeds are not
    resampled, because a percentile interval over six seeds is too short; and as the interval has the true statistic
    in its middle, the repeated songs of a resample, which lower Vendi, do not move it.

    Measured with 2000 simulations of 6 seeds and 50 songs, standard deviations of (seed, song shared by all seeds,
    song within a seed): coverage 94.8 % (1, 0, 1), 95.2 % (1, 0, 7), 95.0 % (0, 0, 1), 94.6 % (1, 7, 1), 94.1 %
    (1, 3, 7). Percentiles of resampled seeds and songs: 86.9, 97.9, 99.6, 93.0, 97.2 %; t over seeds alone, which
    speaks of these songs only: 94.8, 95.0, 94.6, 63.4, 90.2 %.
    """
    songs = {len(array) for arrays in by_seed for array in arrays}
    if len(songs) > 1:
        raise ValueError(f"seeds have different numbers of songs: {sorted(songs)}")
    n_songs = min(songs, default=0)
    if len(by_seed) < 2 or n_songs < 2:
        return None
    rng = np.random.default_rng(seed)
    resampled = np.empty((resamples, len(by_seed)))
    for row in resampled:
        chosen = rng.integers(n_songs, size=n_songs)
        row[:] = [statistic(*(array[chosen] for array in arrays)) for arrays in by_seed]
    low, high = two_way_interval(np.array([statistic(*arrays) for arrays in by_seed]), resampled, n_songs)
    return float(low), float(high)


def song_interval(
    arrays: Sequence[np.ndarray], statistic: Statistic, resamples: int = 2000, seed: int = 0
) -> Interval | None:
    """95 % interval of `statistic(*arrays)`, arrays [N, ...] of one seed's N songs, for fresh songs.

    The statistic ± t · its standard deviation over resamples of the songs, with N - 1 degrees of freedom, as in
    `hierarchical_bootstrap`. None for fewer than two songs or where a resample has no value.
    """
    n = min((len(array) for array in arrays), default=0)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(n, size=n) for _ in range(resamples)]
    spread = np.std([statistic(*(array[chosen] for array in arrays)) for chosen in drawn], ddof=1)
    value, half = statistic(*arrays), float(stats.t.ppf(0.975, n - 1) * spread * np.sqrt(n / (n - 1)))
    return (value - half, value + half) if np.isfinite([value, half]).all() else None


def paired_bootstrap(
    a: Sequence[tuple[np.ndarray, ...]],
    b: Sequence[tuple[np.ndarray, ...]],
    statistic: Statistic,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """The same of a minus b: two arms with the same seeds in the same order and the same songs."""
    pairs = [(*ours, *theirs) for ours, theirs in zip(a, b, strict=True)]
    width = len(a[0]) if a else 0
    return hierarchical_bootstrap(pairs, lambda *x: statistic(*x[:width]) - statistic(*x[width:]), resamples, seed)


def two_way_interval(values: np.ndarray, resampled: np.ndarray, n_songs: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval of `hierarchical_bootstrap`: low and high [...].

    values [..., n]: the seeds' statistics; resampled [..., R, n]: those of R resamples of the n_songs songs."""
    n = values.shape[-1]
    of_seeds = values.var(-1, ddof=1) / n
    centred = resampled - resampled.mean(-2, keepdims=True)
    all_pairs, same = (centred.sum(-1) ** 2).sum(-1), (centred**2).sum((-1, -2))
    covariance = (all_pairs - same) / ((resampled.shape[-2] - 1) * n * (n - 1))
    of_songs = np.maximum(covariance, 0.0) * n_songs / (n_songs - 1)
    variance = of_seeds + of_songs
    spread = of_seeds**2 / (n - 1) + of_songs**2 / (n_songs - 1)
    freedom = np.divide(variance**2, spread, out=np.full_like(variance, n - 1), where=spread != 0)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    return values.mean(-1) - half, values.mean(-1) + half


def pareto_front(points: np.ndarray) -> np.ndarray:
    """Which of points [n, 2], higher is better in both, no other point beats: at least as good in both and better
    in one. bool [n]; equal points are on the front together, a point with a NaN never is."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    better = (points[:, None] >= points).all(-1) & (points[:, None] > points).any(-1)
    return np.logical_not(better.any(0) | np.isnan(points).any(-1))


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
    """Area that points [n, 2], higher is better in both, dominate above `reference` (x, y)."""
    above = np.asarray(points, np.float64).reshape(-1, 2) - np.asarray(reference)
    front = above[pareto_front(above) & (above > 0).all(-1)]
    x, y = np.unique(front, axis=0).T if len(front) else np.zeros((2, 0))
    return float(np.sum(np.diff(x, prepend=0.0) * y))  # x ascends, so that y descends


def matched(curve: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Diversity at matched harmony [k]: the greatest diversity among those evaluations that are at least as
    good as each of levels [k]; NaN where none is. curve [S, 2]: (quality, Vendi), in any order.

    This upper envelope needs no monotone curve. As a maximum it favours the arm with more evaluations: compare
    arms with equally many."""
    harmony, diversity = np.asarray(curve, np.float64).reshape(-1, 2).T
    reached = harmony >= np.asarray(levels, np.float64)[:, None]
    return np.where(reached.any(-1), np.where(reached, diversity, -np.inf).max(-1, initial=-np.inf), np.nan)


def matched_means(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean diversity of two learning curves [S, 2] over the levels of harmony that both reach, from the greater of
    their minima to the lesser of their maxima (docs/method.md §12.8); NaN where these do not meet.

    The envelopes are steps, so that the means are exact. Over paired seeds, give them to `paired_difference`."""
    a, b = (curve[~np.isnan(curve).any(-1)] for curve in (np.asarray(a, np.float64), np.asarray(b, np.float64)))
    if not len(a) or not len(b):
        return float("nan"), float("nan")
    low, high = max(a[:, 0].min(), b[:, 0].min()), min(a[:, 0].max(), b[:, 0].max())
    if low > high:
        return float("nan"), float("nan")
    harmony = np.concatenate([a[:, 0], b[:, 0]])
    levels = np.unique(harmony[(harmony >= low) & (harmony <= high)])  # an envelope is constant up to each of them
    widths = np.diff(levels) if len(levels) > 1 else np.ones(1)
    upper = levels[-len(widths) :]
    means = [float(np.average(matched(curve, upper), weights=widths)) for curve in (a, b)]
    return means[0], means[1]


def _without_rounding(differences: np.ndarray) -> np.ndarray:
    """Differences [n] in which those that are equal but for the last bits are equal, and 0 is 0: tests see ties."""
    scale = np.max(np.abs(differences), initial=0.0)
    return np.round(differences / scale, 10) * scale if scale > 0 and np.isfinite(scale) else differences


def _hedges_g(differences: np.ndarray) -> float:
    """Cohen's d_z of differences [n] times Hedges' exact correction for n - 1 degrees of freedom (Hedges 1981)."""
    freedom = len(differences) - 1
    if freedom < 2:
        return float("nan")
    log_correction = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2) - np.log(freedom / 2) / 2
    return float(np.mean(differences) / np.std(differences, ddof=1) * np.exp(log_correction))
