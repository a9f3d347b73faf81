"""How good reward models are on held-out pairs of data, by their kind (docs/method.md §12.10). Pure."""

from __future__ import annotations

import numpy as np

RANKS = (1, 5, 10)
LAST = 10  # rank that counts for `map_at_10`
_EQUAL = 1e-6  # cosines that differ by rounding alone


def retrieval(similarity: np.ndarray) -> dict[str, float]:
    """Recall at `RANKS` and mean average precision at 10, where row n of similarity [N, N] looks for column n.

    Each row has one right answer, so that average precision is 1 / rank. Equal columns share their ranks: the mean over
    their orders counts, so that an encoder that tells nothing apart is at chance.
    """
    similarity = np.asarray(similarity, np.float64)
    own = np.diagonal(similarity)[:, None]
    better = np.sum(similarity > own + _EQUAL, axis=1)
    equal = np.sum(np.abs(similarity - own) <= _EQUAL, axis=1)  # itself among them
    found = {f"recall_at_{k}": float(np.mean(np.clip((k - better) / equal, 0, 1))) for k in RANKS}
    sums = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, LAST + 1))])  # of 1 / rank up to each rank
    upto = sums[np.minimum(better + equal, LAST)] - sums[np.minimum(better, LAST)]
    return found | {f"map_at_{LAST}": float(np.mean(upto / equal))}


def judgement(genuine: np.ndarray, false: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1 of the answer "genuine" where a logit is above 0 (a probability above 0.5), for logits
    [N] of genuine and of false pairs. Precision is NaN where no pair is called genuine."""
    right, wrong = int(np.sum(genuine > 0)), int(np.sum(false > 0))
    return {
        "precision": right / (right + wrong) if right + wrong else float("nan"),
        "recall": right / len(genuine),
        "f1": 2 * right / (right + wrong + len(genuine)),
    }
