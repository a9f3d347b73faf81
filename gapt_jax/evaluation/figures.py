"""The report's figures, with matplotlib (an optional extra: only `report` imports this module). No files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gapt_jax.evaluation import curves, results
from gapt_jax.evaluation.metrics import HEADLINE, describe
from gapt_jax.evaluation.results import ARM, PRIMARY, Run, Systems, name_of
from gapt_jax.evaluation.statistics import estimate

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "axes.titlelocation": "left",
    "axes.edgecolor": "#888888", "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "white",
    "figure.constrained_layout.use": True, "svg.fonttype": "path", "svg.hashsalt": "gapt",
    "text.parse_math": False,
}  # fmt: skip
WIDTH = 10.0  # inches
DATA_COLOR, MLE_COLOR = "#222222", "#8a8a8a"
ARM_COLORS = ("#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
ZERO_COLOR = "#d55e00"
STEP_LABEL = "post-training step"
LINES = "Thin lines are seeds, thick lines their mean; colour is λ. "


class Drawn(NamedTuple):
    """A finished figure."""

    name: str
    title: str
    caption: str
    svg: str  # to be placed inside HTML
    png: bytes


def draw_all(runs: Sequence[Run], systems: Systems) -> Iterator[Drawn]:
    """The figures that these runs have the numbers for, in the order of the page."""
    logged = curves.keys(runs)
    valid, rewards, adversary = (
        [key for key in logged if key.startswith(group)] for group in ("valid/", "reward/", "discriminator/")
    )
    policy = [key for key in logged if key not in {*valid, *rewards, *adversary}]
    adversary = [key for key in adversary if key != "discriminator/is_open"]
    if any(results.get(systems, s, d, PRIMARY) for s in systems for d in results.datasets(systems)):
        caption = "Up and right is better. Dots are seeds, rings their mean; a star is data, a diamond the MLE."
        yield finish("quality_diversity", "Harmony and diversity", caption, lambda: quality_diversity(systems))
    if {"valid/note_in_chord", f"valid/{PRIMARY}"} <= set(valid):
        caption = LINES + "Valid split, from the first evaluation (ring) to the last (dot)."
        title = "Harmony and diversity while learning"
        yield finish("learning_path", title, caption, lambda: learning_path(runs))
    if headline := [f"valid/{metric}" for metric in HEADLINE if f"valid/{metric}" in valid]:
        caption = LINES + "Dashed: MLE (grey) and data (black) on the test split, where a metric allows it."
        title = "Evaluations on the valid split"
        yield finish("validation", title, caption, lambda: panels(runs, headline, systems))
    thinned = LINES + f"At most {curves.MAX_POINTS} points a line, each the mean of neighbouring steps."
    if rewards:
        yield finish("rewards", "Rewards", thinned, lambda: panels(runs, rewards, systems))
    if policy:
        yield finish("policy", "Policy", thinned, lambda: panels(runs, policy, systems))
    if adversary:
        caption = thinned + " Dashed: mean reward above which the gate opens. Ticks: steps at which it was open."
        yield finish("discriminator", "Discriminator", caption, lambda: discriminator(runs, adversary))


def color(system: str, shown: Sequence[str]) -> str:
    """Data black, MLE grey, λ = 0 vermilion; each further arm of `shown` the next colour."""
    if system == results.BASELINE:
        return ZERO_COLOR
    if not system.startswith(ARM):
        return DATA_COLOR if system == "data" else MLE_COLOR
    positive = [s for s in shown if s.startswith(ARM) and s != results.BASELINE]
    return ARM_COLORS[positive.index(system) % len(ARM_COLORS)]


def quality_diversity(systems: Systems) -> Figure:
    """Note-in-chord against independent Vendi, one panel per dataset."""
    shown = [d for d in results.datasets(systems) if any(results.get(systems, s, d, PRIMARY) for s in systems)]
    figure = Figure(figsize=(WIDTH, 3.6 * -(-len(shown) // 2)))
    for i, dataset in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 2), min(len(shown), 2), i + 1)
        counts = set()
        for system in systems:
            x, y = (results.get(systems, system, dataset, m) for m in ("note_in_chord", PRIMARY))
            if x and y:
                _dots(axes, system, x.by_seed, y.by_seed, color(system, list(systems)))
                counts.add(y.n_songs)
        axes.set(title=dataset, xlabel="note-in-chord, share of frames")
        axes.set_ylabel(f"independent Vendi, songs (n = {'/'.join(map(str, sorted(counts)))})")
    figure.legend(handles=_legend(list(systems), "o"), loc="outside upper left", ncols=len(systems))
    return figure


def learning_path(runs: Sequence[Run]) -> Figure:
    """Note-in-chord against independent Vendi over the evaluations on the valid split."""
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.add_subplot()
    by_arm = _by_arm(runs)
    for arm, members in by_arm.items():
        pairs = [[curves.curve(run, f"valid/{m}") for m in ("note_in_chord", PRIMARY)] for run in members]
        shade = color(arm, list(by_arm))
        means = [curves.mean_curve([pair[i] for pair in pairs]) for i in (0, 1)]
        for pair, width in [*((p, 0.7) for p in pairs), (means, 2.2)]:
            x, y = (c.values[np.isin(c.steps, np.intersect1d(pair[0].steps, pair[1].steps))] for c in pair)
            axes.plot(x, y, color=shade, linewidth=width, alpha=1 if width > 1 else 0.45)
            if width > 1 and len(x):
                axes.plot(x[0], y[0], "o", color=shade, markerfacecolor="white")
                axes.plot(x[-1], y[-1], "o", color=shade)
    axes.set(xlabel="note-in-chord, share of frames", ylabel="independent Vendi, songs")
    figure.legend(handles=_legend(list(by_arm), "-"), loc="outside upper left", ncols=len(by_arm))
    return figure


def panels(runs: Sequence[Run], shown: Sequence[str], systems: Systems) -> Figure:
    """One small learning curve per logged key."""
    figure, grid = _grid(len(shown))
    for axes, key in zip(grid, shown, strict=False):
        _curves(axes, runs, key)
        if key.startswith("valid/"):
            _references(axes, key.removeprefix("valid/"), systems)
    figure.legend(handles=_legend(list(_by_arm(runs)), "-"), loc="outside upper left", ncols=6)
    return figure


def discriminator(runs: Sequence[Run], shown: Sequence[str]) -> Figure:
    """The adversary's curves, and below them when its gate was open."""
    figure = Figure(figsize=(WIDTH, 2.3 * -(-len(shown) // 3) + 0.7 + 0.16 * len(runs)))
    rows = -(-len(shown) // 3)
    spec = figure.add_gridspec(rows + 1, 3, height_ratios=[2.3] * rows + [0.5 + 0.16 * len(runs)])
    for i, key in enumerate(shown):
        axes = figure.add_subplot(spec[i // 3, i % 3])
        _curves(axes, runs, key)
        if key == "discriminator/reward_mean":
            threshold = runs[0].config["algorithm"]["discriminator"]["gate_threshold"]
            axes.axhline(threshold, color=MLE_COLOR, linestyle="--", linewidth=1)
    _gates(figure.add_subplot(spec[rows, :]), runs)
    figure.legend(handles=_legend(list(_by_arm(runs)), "-"), loc="outside upper left", ncols=6)
    return figure


def _gates(axes: Axes, runs: Sequence[Run]) -> None:
    by_arm = _by_arm(runs)
    ordered = [run for members in by_arm.values() for run in members]
    opened = [curves.curve(run, "discriminator/is_open") for run in ordered]
    axes.eventplot(
        [c.steps[c.values > 0] for c in opened], lineoffsets=range(len(ordered)), linelengths=0.7,
        linewidths=1, colors=[color(run.arm, list(by_arm)) for run in ordered],
    )  # fmt: skip
    labels = [f"{name_of(run.arm)}, seed {run.seed}" for run in ordered]
    axes.set_yticks(range(len(ordered)), labels, fontsize=7)
    axes.set(title="gate open", xlabel=STEP_LABEL, ylim=(len(ordered) - 0.4, -0.6))
    axes.grid(False, axis="y")


def _curves(axes: Axes, runs: Sequence[Run], key: str) -> None:
    by_arm = _by_arm(runs)
    for arm, members in by_arm.items():
        found = [c for c in (curves.curve(run, key) for run in members) if len(c.steps)]
        shade = color(arm, list(by_arm))
        for one in found if len(found) > 1 else ():
            axes.plot(*curves.thin(one), color=shade, linewidth=0.6, alpha=0.4)
        if found:
            mean = curves.thin(curves.mean_curve(found))
            axes.plot(*mean, color=shade, linewidth=1.8, marker="o" if len(mean.steps) == 1 else None)
    title, unit = _title(key)
    axes.set(title=title, xlabel=STEP_LABEL, ylabel=unit)


def _title(key: str) -> tuple[str, str]:
    group, _, rest = key.rpartition("/")
    if group == "valid":
        return describe(rest).label, describe(rest).unit
    unit = {"kl": "nats", "entropy": "nats", "accuracy": "share"}.get(rest, "reward" if "reward" in key else "")
    return rest.replace("_", " "), unit


def _references(axes: Axes, metric: str, systems: Systems) -> None:
    for system in ("mle", "data"):
        score = results.get(systems, system, results.datasets(systems)[0], metric)
        if score and not describe(metric).depends_on_n:
            axes.axhline(estimate(score.values).mean, color=color(system, ()), linestyle="--", linewidth=1)


def _dots(axes: Axes, system: str, x: dict[int, float], y: dict[int, float], shade: str) -> None:
    seeds = [seed for seed in x if seed in y]
    xs, ys = [x[s] for s in seeds], [y[s] for s in seeds]
    if not system.startswith(ARM):
        marker, size = {"data": ("*", 13), "mle": ("D", 7)}.get(system, ("s", 7))
        axes.plot(np.mean(xs), np.mean(ys), marker, color=shade, markersize=size, zorder=3)
        return
    axes.plot(xs, ys, "o", color=shade, markersize=4, alpha=0.6, markeredgewidth=0)
    axes.plot(np.mean(xs), np.mean(ys), "o", color=shade, markersize=10, markerfacecolor="none", markeredgewidth=2)


def _by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
    ordered = sorted(runs, key=lambda run: (run.adversarial_weight, run.seed))
    return {arm: [run for run in ordered if run.arm == arm] for arm in dict.fromkeys(r.arm for r in ordered)}


def _legend(systems: Sequence[str], style: str) -> list[Line2D]:
    marker = {"data": "*", "mle": "D"}
    return [
        Line2D([], [], color=color(s, systems), label=name_of(s), linewidth=2 if style == "-" else 0,
               marker=None if style == "-" else marker.get(s, "o"))
        for s in systems
    ]  # fmt: skip


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // 3)
    figure = Figure(figsize=(WIDTH, 2.2 * rows + 0.3))
    return figure, [figure.add_subplot(rows, 3, i + 1) for i in range(count)]


def finish(name: str, title: str, caption: str, make: Callable[[], Figure]) -> Drawn:
    with matplotlib.rc_context(STYLE):
        figure = make()
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=150)
    return Drawn(name, title, caption, _inline(svg.getvalue(), name), png.getvalue())


def _inline(svg: str, name: str) -> str:
    """The bare <svg> element, with ids of its own so that several can share a page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1{name}-", svg)
    return svg.replace("<svg ", '<svg role="img" ', 1)
