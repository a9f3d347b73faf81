"""Tempos, metres and strengths of a recorded session, from the steps that its engine was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

from gapt_jax.live.engine import Controls
from gapt_jax.vocabulary import FRAMES_PER_BEAT

_UNIT = 4  # a beat is a quarter note


class _Bars(NamedTuple):
    """Bars of so many beats from a beat on."""

    begin: int
    beats: int


@dataclasses.dataclass
class Timing:
    """`tempos` and `meters` as in `gapt_jax.midi`; `velocities` of the newest key that went down, by frame."""

    tempos: list[tuple[float, float]]  # (beat, seconds a beat from there on)
    meters: list[tuple[float, tuple[int, int]]]  # (beat, (beats, unit) from there on)
    velocities: dict[int, int]
    silent: int  # first frames in which nothing is sounded


def timing_of(first: Controls, entries: Iterable[dict[str, Any]]) -> Timing:
    """The timing of a recording's entries. A tempo holds from the tick on that took it in, a metre from the next bar
    line on, as on the page."""
    found = Timing([(0, 60 / first.bpm)], [(0, (first.beats_per_bar, _UNIT))], {}, first.intro_frames)
    bars, controls, passed = [_Bars(0, first.beats_per_bar)], first, 0
    for entry in entries:
        if entry["type"] == "set":
            controls = Controls(**entry["controls"])
        elif entry["type"] in ("tick", "commit"):
            now = entry["now_frame"]
            found.silent = controls.intro_frames
            if 60 / controls.bpm != found.tempos[-1][1]:
                _put(found.tempos, now / FRAMES_PER_BEAT, 60 / controls.bpm)
            if controls.beats_per_bar != bars[-1].beats:
                bars = _changed(bars, controls.beats_per_bar, now)
            heard = [event for event in entry["events"] if event[0] >= passed]
            found.velocities |= {frame: max(1, velocity) for frame, is_on, _, velocity in heard if is_on}
            passed = now
    found.meters = [(begin, (beats, _UNIT)) for begin, beats in bars]
    return found


def _put(tempos: list[tuple[float, float]], beat: float, seconds: float) -> None:
    if tempos[-1][0] == beat:
        del tempos[-1]
    tempos.append((beat, seconds))


def _changed(bars: list[_Bars], beats: int, now: int) -> list[_Bars]:
    """Bars of so many beats from the first bar line at or after a frame."""
    begun = [some for some in bars if some.begin * FRAMES_PER_BEAT <= now]
    last, bar = begun[-1], begun[-1].beats * FRAMES_PER_BEAT
    begin = last.begin + last.beats * -(-(now - last.begin * FRAMES_PER_BEAT) // bar)
    kept = [some for some in begun if some.begin < begin]
    return [*kept, _Bars(begin, beats)]
