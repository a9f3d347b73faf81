"""How near is a set of songs to data in an embedding? n or m songs, D features."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from gapt_jax.evaluation.diversity import vendi

NEIGHBOURS = 5  # k of both k-NN measures, as in Naeem et al. 2020


def frechet_distance(ours: np.ndarray, data: np.ndarray) -> float:
    """Squared Frechet distance of the normal distributions fitted to ours [n, D] and data [m, D] (Heusel et al. 2017):
    |mean - mean'|^2 + tr(S + S' - 2 (S S')^(1/2)), biased upwards for few songs. NaN for fewer than two.

    S S' has the eigenvalues of the symmetric S^(1/2) S' S^(1/2)."""
    if min(len(ours), len(data)) < 2:
        return float("nan")
    ours, data = np.asarray(ours, np.float64), np.asarray(data, np.float64)
    s, s_data = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (ours, data))
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s_data @ root), 0.0)).sum()
    shift = ours.mean(0) - data.mean(0)
    return max(0.0, float(shift @ shift + np.trace(s) + np.trace(s_data) - 2 * cross))


def precision(ours: np.ndarray, data: np.ndarray) -> float:
    """Share of our songs inside the ball of some song of data, which reaches to the k-th nearest other song of data
    (Kynkaanniemi et al. 2019, eq. 1-2). NaN where data has no k others."""
    near = _in_balls(ours, data)
    return float(near.any(0).mean()) if near.size else float("nan")


def coverage(ours: np.ndarray, data: np.ndarray) -> float:
    """Share of the songs of data whose ball holds at least one of our songs (Naeem et al. 2020, eq. 8): unlike recall
    it asks nothing of outliers of ours."""
    near = _in_balls(ours, data)
    return float(near.any(1).mean()) if near.size else float("nan")


def mean_vendi(samples: np.ndarray, sounds: np.ndarray) -> float:
    """Same-context diversity: the Vendi score of what was played k times over each context, 1..k, averaged over these.

    samples [M, k, D]; sounds [M, k] bool, of which the others are skipped, as in `Evaluator.judge`."""
    scores = [vendi(rows[kept]) for rows, kept in zip(samples, sounds, strict=True) if kept.any()]
    return float(np.mean(scores)) if scores else float("nan")


def _in_balls(ours: np.ndarray, data: np.ndarray) -> np.ndarray:
    """[m, n] bool: whether our song lies in the ball of that song of data; [0, 0] where that is undefined."""
    if len(data) <= NEIGHBOURS or not len(ours):
        return np.zeros((0, 0), bool)
    radius = np.partition(cdist(data, data), NEIGHBOURS, axis=1)[:, NEIGHBOURS]  # entry 0 is the song itself
    return cdist(data, ours) <= radius[:, None]
