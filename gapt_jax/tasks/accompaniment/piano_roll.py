"""Piano rolls: one melody, and below it what each system played to it. No files."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapt_jax import chords as chord_names
from gapt_jax.evaluation.results import Study
from gapt_jax.report.drawing import GRID, INK, WIDTH, Drawn, finish
from gapt_jax.report.figures import color
from gapt_jax.report.samples import Sample, samples
from gapt_jax.tasks.accompaniment.events import chord_events
from gapt_jax.tasks.accompaniment.task import accompaniment
from gapt_jax.vocabulary import FRAMES_PER_BEAT, PAD, Vocabulary

MAX_FRAMES = 128
INCHES_PER_LETTER = 0.08
LEFT, RIGHT = 0.07, 0.985  # of the figure's width: where time begins and ends


def draw_all(study: Study) -> Iterator[Drawn]:
    """A figure per song. All songs shown have the first run's vocabulary."""
    for i, song in enumerate(samples(study)):
        yield finish(
            f"piano_roll_{i + 1}",
            f"{song.identity}",
            f"{song.dataset}, lowest seed of each arm. Blocks are chord tones; bars are the melody, red where it is "
            "not in the chord. Heavy grid lines every four beats.",
            functools.partial(piano_roll, song, study),
        )


def vocabulary_of(study: Study) -> Vocabulary:
    """That of the first run."""
    return accompaniment(study.runs[0].task).vocabulary


def piano_roll(song: Sample, study: Study) -> Figure:
    """The melody by pitch, then a pitch-class roll per system; time in beats, from LEFT to RIGHT of the figure."""
    vocabulary = vocabulary_of(study)
    frames = frames_of(song)
    melody = song.context[:frames]
    with matplotlib.rc_context({"figure.constrained_layout.use": False}):  # time begins and ends at known places
        figure = Figure(figsize=(WIDTH, 1.3 + 1.35 * len(song.actions)))
    rows = figure.subplots(1 + len(song.actions), 1, sharex=True)
    figure.subplots_adjust(LEFT, 0.55 / figure.get_figheight(), RIGHT, 1 - 0.15 / figure.get_figheight(), hspace=0.22)
    _melody(np.atleast_1d(rows)[0], melody, vocabulary)
    for axes, (system, chords) in zip(rows[1:], song.actions.items(), strict=True):
        shade = color(system, study)
        _chords(axes, chords[:frames], vocabulary, shade)
        _melody_classes(axes, melody, chords[:frames], vocabulary)
        axes.set_ylabel(study.name(system), color=shade, fontweight="bold")
    for axes in rows:
        _beats(axes, frames)
    rows[-1].set_xlabel("beat")
    return figure


def frames_of(song: Sample) -> int:
    """How much of a song is drawn and played."""
    return min(int((song.context != PAD).sum()), MAX_FRAMES)


def _melody(axes: Axes, melody: np.ndarray, vocabulary: Vocabulary) -> None:
    pitches = vocabulary.tables.event[melody]
    onsets = vocabulary.tables.is_onset[melody]
    sounding = np.unique(pitches[pitches >= 0])
    for pitch in sounding:
        axes.broken_barh(_spans(pitches, onsets, pitch), (pitch - 0.45, 0.9), color=INK, linewidth=0)
    low, high = (int(sounding[0]), int(sounding[-1])) if len(sounding) else (60, 72)
    ticks = [p for p in range(low - 1, high + 2) if p % 12 in (0, 7)]
    axes.set_yticks(ticks, [f"{chord_names.ROOT_NAMES[p % 12]}{p // 12 - 1}" for p in ticks], fontsize=7)
    axes.set(ylim=(low - 1.5, high + 1.5), ylabel="Melody")


def _chords(axes: Axes, chords: np.ndarray, vocabulary: Vocabulary, shade: str) -> None:
    events = chord_events(chords[None], vocabulary.tables)
    for pitch_class, is_in in enumerate(vocabulary.chord_pitch_classes[events.chord].T):
        spans = [_span(*place) for place in zip(events.frame[is_in], events.length[is_in], strict=True)]
        axes.broken_barh(spans, (pitch_class - 0.5, 1), color=shade, alpha=0.28, linewidth=0)
    axes.vlines(events.frame / FRAMES_PER_BEAT, -0.5, 11.5, color=shade, linewidth=0.8, alpha=0.7)
    inches_per_frame = WIDTH * 0.9 / max(len(chords), 1)
    for start, length, chord in zip(events.frame, events.length, events.chord, strict=True):
        name = vocabulary.names[chord]
        if length * inches_per_frame > INCHES_PER_LETTER * (len(name) + 1):
            place = (start / FRAMES_PER_BEAT, 11.9)
            axes.annotate(name, place, fontsize=7, color=INK, annotation_clip=False)
    axes.set_yticks([0, 4, 7], ["C", "E", "G"], fontsize=7)
    axes.set_ylim(-0.7, 11.7)


def _melody_classes(axes: Axes, melody: np.ndarray, chords: np.ndarray, vocabulary: Vocabulary) -> None:
    tables = vocabulary.tables
    hit = (tables.pitch_classes[melody] & tables.pitch_classes[chords]).any(-1)
    miss = tables.is_chord[chords] & ~hit
    state = np.where(tables.is_note[melody], tables.event[melody] % 12 * 2 + miss, -1)
    for value in np.unique(state[state >= 0]):
        shade = "#c00000" if value % 2 else INK
        spans = _spans(state, tables.is_onset[melody], value)
        axes.broken_barh(spans, (value // 2 - 0.25, 0.5), color=shade, linewidth=0)


def _beats(axes: Axes, frames: int) -> None:
    count = -(-frames // FRAMES_PER_BEAT)
    axes.set_xticks(range(0, count + 1, 4))
    axes.set_xticks(range(count + 1), minor=True)
    axes.grid(True, axis="x", which="major", color="#b5b5b5", linewidth=0.9)
    axes.grid(True, axis="x", which="minor", color=GRID, linewidth=0.6)
    axes.grid(False, axis="y")
    axes.set_xlim(0, max(frames // FRAMES_PER_BEAT, 1))
    axes.tick_params(which="minor", length=0)


def _spans(values: np.ndarray, starts: np.ndarray, value: int) -> list[tuple[float, float]]:
    """Places of the stretches of `value` in values [T]; `starts` [T] also begin one."""
    begins = np.flatnonzero(np.append(True, (values[1:] != values[:-1]) | starts[1:]))
    lengths = np.diff(np.append(begins, len(values)))
    return [_span(b, n) for b, n in zip(begins.tolist(), lengths.tolist(), strict=True) if values[b] == value]


def _span(start: int, length: int) -> tuple[float, float]:
    """Place of frames on the beat axis, a hairline short so that repeated notes stay apart."""
    return start / FRAMES_PER_BEAT, (length - 0.15) / FRAMES_PER_BEAT
