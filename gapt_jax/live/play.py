"""``gapt play``: the live engine without browser and sound, a MIDI file in the place of the player."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gapt_jax.live.engine import Controls, Engine, Happened
from gapt_jax.live.model import LiveModel
from gapt_jax.live.notes import Event
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET, NUM_PITCHES, SILENCE


def events_of(tokens: Sequence[int]) -> list[list[Event]]:
    """What a player does in each frame to play these note tokens."""
    frames: list[list[Event]] = []
    sounding: int | None = None
    for frame, token in enumerate(tokens):
        pitch = None if token == SILENCE else (token - NOTE_HOLD) % NUM_PITCHES
        found = []
        if sounding is not None and pitch is None:
            found.append(Event(frame, False, sounding))
        if pitch is not None and (token >= NOTE_ONSET or sounding != pitch):
            found.append(Event(frame, True, pitch))
        frames.append(found)
        sounding = pitch
    return frames


def play(
    model: LiveModel,
    controls: Controls,
    tokens: Sequence[int],
    *,
    realtime: bool,
    report: Callable[[int], None] = lambda frame: None,
) -> tuple[Engine, dict[str, Any]]:
    """Accompanies a melody tick by tick: (the engine at its end, `in_time` of it)."""
    engine = Engine(model, controls)
    return engine, in_time(engine, events_of(tokens), 15 / controls.bpm, realtime=realtime, report=report)


def in_time(
    engine: Engine,
    frames: Sequence[Sequence[Happened]],
    seconds: float,
    *,
    realtime: bool,
    report: Callable[[int], None] = lambda frame: None,
) -> dict[str, Any]:
    """Plays beside a partner who does this in each frame: milliseconds of a tick and ticks over the frame's `seconds`.

    In real time each tick waits for its frame; else they follow at once.
    """
    milliseconds = []
    start = time.monotonic()
    for frame, events in enumerate([*frames, []]):
        if realtime:
            time.sleep(max(0.0, start + frame * seconds - time.monotonic()))
        began = time.perf_counter()
        engine.tick(frame)
        milliseconds.append(1000 * (time.perf_counter() - began))
        engine.catch_up()
        engine.hear(events)
        report(frame)
    return taken(milliseconds, seconds)


def taken(milliseconds: Sequence[float], seconds: float) -> dict[str, Any]:
    """Percentiles of the milliseconds of ticks, and how many took longer than a frame's `seconds`."""
    p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99)).round(2).tolist()
    budget = 1000 * seconds
    late = int(np.count_nonzero(np.array(milliseconds) > budget))
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "budget_ms": round(budget, 2), "over_budget": late}
