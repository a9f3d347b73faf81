"""How varied is a set of songs in an embedding? n songs, D features."""

from __future__ import annotations

import numpy as np
from scipy.special import entr

from gapt_jax.evaluation.statistics import share


def vendi(embeddings: np.ndarray) -> float:
    """Effective number of different songs, 1..min(n, D): exp of the entropy of the eigenvalues of K/n
    (docs/method.md §12.3), with K the cosine kernel of embeddings [n, D]. It grows with n.

    The D x D matrix X'X/n has the same non-zero eigenvalues as the n x n matrix XX'/n."""
    rows = _unit_rows(embeddings)
    if not len(rows):
        return float("nan")
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    return float(np.exp(entropy(np.maximum(eigenvalues, 0.0))))


def self_similarity(embeddings: np.ndarray) -> float:
    """Mean cosine over all pairs of different rows of embeddings [n, D].

    The squared length of the sum of unit rows holds every pair twice, and n ones."""
    rows = _unit_rows(embeddings)
    total = rows.sum(0)
    return share(total @ total - len(rows), len(rows) * (len(rows) - 1))


def _unit_rows(embeddings: np.ndarray) -> np.ndarray:
    rows = np.asarray(embeddings, np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms) & (norms > 0)):
        raise ValueError("an embedding is zero or not finite, so it has no direction")
    return rows / norms


def entropy(weights: np.ndarray) -> float:
    """Entropy in nats, of weights that need not add up to one."""
    return float(entr(weights / weights.sum()).sum())
