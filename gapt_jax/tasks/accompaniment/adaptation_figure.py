"""The figure of adaptation to a change of key."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gapt_jax.evaluation import results
from gapt_jax.evaluation.results import Study
from gapt_jax.evaluation.statistics import estimate
from gapt_jax.report.drawing import INK, WIDTH
from gapt_jax.report.figures import MLE_COLOR, color, legend


def is_measured(study: Study) -> bool:
    curves = [c for run in study.runs for sets in run.evaluation.get("adaptation", {}).values() for c in sets.values()]
    return any(value is not None and np.isfinite(value) for curve in curves for value in curve["perturbed"])


def adaptation(study: Study) -> Figure:
    """Harmony by beat before and after the melody changes key, mean over the runs that measured it."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in study.runs:
        for system, sets in run.evaluation.get("adaptation", {}).items():
            for dataset, curve in sets.items():
                found.setdefault(dataset, {}).setdefault(system, []).append(curve)
    figure, systems = Figure(figsize=(WIDTH, 2.7 * len(found))), results.collect(study)
    shown = dict.fromkeys(system for by_system in found.values() for system in by_system)
    for i, (dataset, by_system) in enumerate(found.items()):
        axes = figure.add_subplot(len(found), 1, i + 1)
        for system, members in by_system.items():
            for key, line in (("perturbed", "-"), ("unperturbed", "--")):
                rows = np.array([m[key] for m in members if len(m[key]) == len(members[0]["beats"])], float)
                if len(rows):
                    axes.plot(members[0]["beats"], rows.mean(0), line, color=color(system, study), linewidth=1.4)
        by_chance = [results.get(systems, system, dataset, "note_in_chord_chance") for system in by_system]
        if levels := [estimate(score.values).mean for score in by_chance if score]:
            axes.axhline(float(np.mean(levels)), color=MLE_COLOR, linestyle=":", linewidth=1.2)
        first = next(iter(by_system.values()))[0]
        axes.axvline(first["shift_beat"], color=INK, linewidth=0.8)
        axes.set(title=f"{dataset}, {first['semitones']:+g} semitones", xlabel="beat", ylabel="note-in-chord ↑, share")
    figure.legend(handles=legend(list(shown), "-", study), loc="outside upper left", ncols=6)
    return figure
