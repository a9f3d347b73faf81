"""How fast the public PyTorch code was: frames/s by the row that does the same work here.

Measured on 2 quiet CPU cores, float32, whose matrix products reach 161 to 203 GFLOP/s and whose memory 32 to 49 GB/s:
its sampler at published size and with 2 layers of 128, 256 frames; its iteration of 32 songs of 64 frames with eight
reward models, which took 4.7 s. Your machine's ceilings are others: read both beside each other.
"""

from __future__ import annotations

from typing import Any

FRAMES_PER_S = {
    "rollout/published/batch=1": 18.0,
    "rollout/published/batch=8": 55.0,
    "rollout/published/batch=32": 76.0,
    "rollout/yardstick/batch=1": 110.0,
    "rollout/yardstick/batch=8": 709.0,
    "rollout/yardstick/batch=32": 1_250.0,
    "iteration/yardstick/all": 32 * 64 / 4.7,
}


def times_public(row: dict[str, Any]) -> float | None:
    """How many times as many frames/s as the public code made; None for rows that it has no figure of."""
    public = FRAMES_PER_S.get(row["name"])
    return row["frames_per_s"] / public if public else None
