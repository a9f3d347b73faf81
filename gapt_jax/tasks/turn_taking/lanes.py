"""Conversations as lanes over time, and how the floor passes. No files."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gapt_jax.evaluation.results import Study
from gapt_jax.report.drawing import INK, WIDTH, Drawn, finish
from gapt_jax.report.figures import color, legend, sampled
from gapt_jax.report.samples import Sample, samples
from gapt_jax.task import PAD
from gapt_jax.tasks.turn_taking.stretches import Stretches, heard, spans, stretches
from gapt_jax.tasks.turn_taking.timing import MOST_OFFSET
from gapt_jax.tasks.turn_taking.tokens import BACKCHANNEL, FRAME_SECONDS, KINDS, MANY, TURN, VOCAL

HEIGHTS = {TURN: 0.8, BACKCHANNEL: 0.45, VOCAL: 0.2}  # of a lane, by kind
DATA = "data"


def draw_all(study: Study) -> Iterator[Drawn]:
    """A figure per conversation."""
    for i, sample in enumerate(samples(study)):
        yield finish(
            f"conversation_{i + 1}",
            sample.identity,
            f"{sample.dataset}, lowest seed of each arm. Above the agent, once as each system played it: high bars are "
            f"{KINDS[TURN]}s, middle ones {KINDS[BACKCHANNEL]}s, low ones {KINDS[VOCAL]}s. Below the others, whom all "
            "of them heard alike: a lane is filled while at least so many of them speak.",
            functools.partial(conversation, sample, study),
        )


def conversation(sample: Sample, study: Study) -> Figure:
    """A lane per system, then the others; time in seconds."""
    frames = int((sample.context != PAD).sum())
    others = heard(sample.context[None, :frames], sample.context[None, :frames]).others[0]
    voices = max(1, int(others.max(initial=0)))
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * (len(sample.actions) + voices)))
    axes = figure.add_subplot()
    names = []
    for place, (system, actions) in enumerate(sample.actions.items()):
        shade = color(system, study)
        found = stretches(actions[None, :frames])
        for kind, height in HEIGHTS.items():
            _bars(axes, found.of(kind), -place, height, shade)
        names.append(study.name(system))
    for voice in range(voices):
        _bars(axes, spans(others[None] > voice), -len(names), HEIGHTS[TURN], INK)
        is_last = voice == MANY - 1
        names.append(f"{voice + 1}{' or more' * is_last} other{'s' * (voice > 0)}")
    axes.axhline(0.5 - len(sample.actions), color=INK, linewidth=0.8)
    axes.set_yticks([-place for place in range(len(names))], names)
    axes.grid(False, axis="y")
    axes.set(xlim=(0, frames * FRAME_SECONDS), ylim=(0.5 - len(names), 0.5), xlabel="seconds")
    return figure


def _bars(axes: Axes, found: Stretches, middle: float, height: float, shade: str) -> None:
    """Stretches as bars, a hairline short so that neighbours stay apart."""
    places = [
        (start * FRAME_SECONDS, (end - start) * FRAME_SECONDS - 0.03)
        for start, end in zip(found.start.tolist(), found.end.tolist(), strict=True)
    ]
    axes.broken_barh(places, (middle - height / 2, height), color=shade, linewidth=0)


def draw_transfers(study: Study) -> Iterator[Drawn]:
    """How the floor passes to the agent, where that was measured."""
    if transfers(study):
        yield finish(
            "floor_transfers",
            "How the floor passes",
            "Turns by which the agent takes the floor, by the time from the end of the others to its beginning; left "
            "of the upright line it begins before they end. Black: the data. " + sampled(study),
            functools.partial(floor_transfers, study),
        )


def transfers(study: Study) -> dict[str, dict[str, np.ndarray]]:
    """Counts [offsets] by dataset and system, added over runs; those of the data are the first run's."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for run in study.runs:
        for system, sets in run.evaluation.get("floor_transfers", {}).items():
            for dataset, counts in sets.items():
                systems = found.setdefault(dataset, {DATA: np.array(counts["data"])})
                systems[system] = systems.get(system, 0) + np.array(counts["played"])
    return found


def floor_transfers(study: Study) -> Figure:
    """The share of the floor transfers at each offset, a panel per dataset."""
    found = transfers(study)
    figure = Figure(figsize=(WIDTH, 2.7 * len(found)))
    seconds = np.arange(-MOST_OFFSET, MOST_OFFSET + 1) * FRAME_SECONDS
    for i, (dataset, systems) in enumerate(found.items()):
        axes = figure.add_subplot(len(found), 1, i + 1)
        for system, counts in systems.items():
            width = 2.0 if system == DATA else 1.2
            axes.plot(seconds, counts / max(1, counts.sum()), color=color(system, study), linewidth=width)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set(title=dataset, xlabel="seconds, the ends count those beyond", ylabel="share of transfers")
    shown = list(dict.fromkeys(system for systems in found.values() for system in systems))
    figure.legend(handles=legend(shown, "-", study), loc="outside upper left", ncols=6)
    return figure
