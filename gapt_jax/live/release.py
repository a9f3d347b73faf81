"""The figures by which a policy is released as a band: how it accompanies tunes that it never heard, played live.

T frames. What counts as on a beat or as a bar is counted from frame 0, as the engine does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gapt_jax.evaluation.statistics import share
from gapt_jax.live.engine import Controls
from gapt_jax.live.model import LiveModel
from gapt_jax.live.play import play
from gapt_jax.tasks.accompaniment import harmony
from gapt_jax.tasks.accompaniment.events import chord_events, ngrams
from gapt_jax.vocabulary import FRAMES_PER_BEAT, SILENCE, TokenTables

SEEDS = (0, 1, 2)
ABOVE_CHANCE, ON_BEAT, LONGEST_BARS, CHORDS = 0.15, 0.6, 4.0, 3  # what a released policy reaches: `criteria`


@dataclasses.dataclass(frozen=True, eq=False)
class Tune:
    """A melody from a bar line on: a pickup stands at the end of its first bar."""

    title: str
    melody: np.ndarray  # [T] int32 note tokens
    bar: int  # frames


@dataclasses.dataclass(frozen=True)
class Figures:
    """How one accompaniment fits its tune; counts, so that those of several add up."""

    hits: int  # frames whose note is in the chord
    frames: int  # frames in which note and chord both sound
    chance: float  # note-in-chord of the tune moved by 1 to 11 semitones, NaN without such frames
    changes: int  # chords that differ from the one before, whether or not there is a rest between them
    on_beat: int  # of which so many begin on a beat
    longest: float  # bars that one chord sounds without a rest at most, struck again or not
    chords: int  # different ones


def from_bar_line(part: np.ndarray, pickup: float, bar: float) -> np.ndarray:
    """[T + rests] int32: tokens of a part [T] whose first bar line comes after `pickup` frames, behind the rests that
    make whole bars of `bar` frames of its pickup."""
    rests = round(-pickup % bar)
    return np.concatenate([np.full(rests, SILENCE, np.int32), part])


def accompanied(model: LiveModel, tune: Tune, seed: int, temperature: float) -> np.ndarray:
    """[T] int32 chord tokens that the live engine plays to a tune, as ``gapt play`` does but for the temperature."""
    most = min(Controls.lookahead_frames, model.most_ahead)
    commit = min(Controls.commit_frames, most)
    controls = Controls(seed=seed, temperature=temperature, intro_frames=0, lookahead_frames=most, commit_frames=commit)
    engine, _ = play(model, controls, tune.melody.tolist(), realtime=False)
    return np.array(engine.decided[: len(tune.melody)], np.int32)


def measure(tune: Tune, chords: np.ndarray, tables: TokenTables) -> Figures:
    """The figures of chords [T] to a tune."""
    melody, played = tune.melody[None], chords[None]
    fit, events = harmony.note_in_chord(melody, played, tables), chord_events(played, tables)
    pairs = ngrams(events, 2)
    changed = pairs[events.chord[pairs[:, 0]] != events.chord[pairs[:, 1]], 1]
    return Figures(
        hits=int(fit.hits.sum()),
        frames=int(fit.frames.sum()),
        chance=harmony.chance_level(melody, played, tables),
        changes=len(changed),
        on_beat=int(np.count_nonzero(events.frame[changed] % FRAMES_PER_BEAT == 0)),
        longest=_longest(chords, tables) / tune.bar,
        chords=len(np.unique(events.chord)),
    )


def _longest(chords: np.ndarray, tables: TokenTables) -> int:
    """Frames of the longest stretch of chords [T] in which one chord sounds without a rest."""
    sounding = np.where(tables.is_chord[chords], tables.event[chords], -1)
    stretches = np.split(sounding, np.flatnonzero(np.diff(sounding)) + 1)
    return max((len(stretch) for stretch in stretches if stretch[0] >= 0), default=0)


def of_policy(model: LiveModel, tunes: Sequence[Tune], seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """What a policy plays to each tune at temperature 1 with each seed, and at temperature 0 once: `summary` of it,
    and under ``tunes`` the figures of each."""
    tables, sampled, likeliest = model.vocabulary.tables, dict[str, list[Figures]](), dict[str, Figures]()
    for tune in tunes:
        played = (accompanied(model, tune, seed, 1.0) for seed in seeds)
        sampled[tune.title] = [measure(tune, chords, tables) for chords in played]
        likeliest[tune.title] = measure(tune, accompanied(model, tune, seeds[0], 0.0), tables)
    each = {
        title: {
            "seeds": [dataclasses.asdict(one) for one in sampled[title]],
            "likeliest": dataclasses.asdict(likeliest[title]),
        }
        for title in sampled
    }
    found = summary([one for several in sampled.values() for one in several], likeliest.values())
    return found | {"criteria": criteria(found), "tunes": each}


def summary(sampled: Iterable[Figures], likeliest: Iterable[Figures]) -> dict[str, Any]:
    """Of all that was played at temperature 1 the pooled shares and the longest chord; at temperature 0 the fewest
    different chords of a tune. A share of nothing is NaN."""
    sampled = list(sampled)
    frames = sum(one.frames for one in sampled)
    by_chance = sum(one.chance * one.frames for one in sampled if one.frames)
    return {
        "note_in_chord": share(sum(one.hits for one in sampled), frames),
        "note_in_chord_chance": share(by_chance, frames),
        "changes_on_beat": share(sum(one.on_beat for one in sampled), sum(one.changes for one in sampled)),
        "longest_chord_bars": max(one.longest for one in sampled),
        "fewest_chords": min(one.chords for one in likeliest),
    }


def criteria(found: Mapping[str, Any]) -> dict[str, bool]:
    """Which of the demands on a released policy its `summary` meets; NaN meets none."""
    return {
        f"note-in-chord at least {ABOVE_CHANCE} above chance": found["note_in_chord"] - found["note_in_chord_chance"]
        >= ABOVE_CHANCE,
        f"at least {ON_BEAT:.0%} of chord changes on a beat": found["changes_on_beat"] >= ON_BEAT,
        f"no chord for more than {LONGEST_BARS:g} bars": found["longest_chord_bars"] <= LONGEST_BARS,
        f"more than {CHORDS} chords a tune at temperature 0": found["fewest_chords"] > CHORDS,
    }
