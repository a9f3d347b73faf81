"""What live play is measured by: a player at a socket, at several tempos, whose round trips are timed.

Rows are plays of so many ticks in real time; policies take turns at each tempo, so that a noisy minute hits all.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax import models
from gapt_jax.benchmark.cases import Size
from gapt_jax.benchmark.measure import COUNTED
from gapt_jax.export.functions import flatten
from gapt_jax.live.client import measure, served
from gapt_jax.live.model import LiveModel, of_network
from gapt_jax.tasks.accompaniment.task import Accompaniment

TEMPOS = (80, 120, 160, 200)  # beats a minute
LOOKAHEADS = (8, 16)  # frames
TICKS = 100  # at least: for their 99th percentile


def random_model(size: Size) -> LiveModel:
    """The policy of a size with random weights: its plans are as long in the making as any."""
    config = size.experiment.models
    network = models.build(dataclasses.replace(config, compute_dtype="float32"), size.vocabulary.size).policy
    weights = {name: jnp.asarray(array) for name, array in flatten(network.init(jax.random.key(0))).items()}
    return of_network(
        network, weights, Accompaniment(size.vocabulary), config.policy.depth, size.frames, name=size.name
    )


def live_rows(policies: Sequence[LiveModel], repeats: int, done: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """A row for each policy, look-ahead and tempo; `done` is told how many there are of how many."""
    ticks = max(repeats, TICKS)
    for policy in policies:
        policy.warm_up()
    rows: list[dict[str, Any]] = []
    plays = [(ahead, bpm, policy) for ahead in LOOKAHEADS for bpm in TEMPOS for policy in policies]
    with served(policies) as url:
        for place, (ahead, bpm, policy) in enumerate(plays, start=1):
            if ahead <= policy.most_ahead:
                found = asyncio.run(measure(url, bpm=bpm, lookahead=ahead, ticks=ticks, model=policy.name))
                rows.append(_row(policy, ahead, bpm, found))
            done(place, len(plays))
    return rows


def _row(policy: LiveModel, ahead: int, bpm: int, found: dict[str, Any]) -> dict[str, Any]:
    empty = dict.fromkeys(("quartiles_ms", "min_ms", "frames_per_s", "tokens_per_s", *COUNTED, "grown_from"))
    return empty | {
        "name": f"live/{policy.name}/ahead={ahead}/bpm={bpm}",
        "note": f"{policy.system}; a tick's round trip, {min(ahead, policy.affordable(15 / bpm))} frames planned in it",
        "median_ms": found["p50_ms"],
        "repeats": found["ticks"],
        "budget_ms": 15_000 / bpm,
        **{key: found[key] for key in ("p50_ms", "p95_ms", "p99_ms", "late", "underruns", "coalesced")},
    }
