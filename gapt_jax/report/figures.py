"""The report's figures, with matplotlib (an optional extra: imported where figures are drawn). No files."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gapt_jax.evaluation import results
from gapt_jax.evaluation.metrics import describe, titled
from gapt_jax.evaluation.results import ARM, PRIMARY, Run, Study, Systems
from gapt_jax.evaluation.statistics import estimate
from gapt_jax.report import curves, pareto
from gapt_jax.report.drawing import INK, PAPER, WIDTH, Drawn, finish
from gapt_jax.report.tables import Results

IN_A_LINE = 5  # small panels
DATA_COLOR, MLE_COLOR = INK, "#8a8a8a"
ARM_COLORS = ("#0a84c6", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7a7a00")
ZERO_COLOR = "#d55e00"
STEP_LABEL = "post-training step"
DISTANCE = "valid/sqrt_kl"  # to the supervised policy
BY_CHANCE = "Dotted: by chance, where that was measured. "
LINES = "Lines are means over seeds, bands go from the lowest to the highest seed. "


def draw_all(found: Results) -> Iterator[Drawn]:
    """The figures that these runs have the numbers for, in the order of the page."""
    study, systems, domain = found.study, found.systems, found.study.domain
    quality = pareto.label_of(study)
    logged, varying = curves.keys(study.runs), [key for key in curves.shown(study) if key not in found.constants]
    valid, rewards, adversary = (
        [key for key in varying if key.startswith(group)] for group in ("valid/", "reward", "discriminator/")
    )
    policy = [key for key in varying if key not in {*valid, *rewards, *adversary}]
    n, n_valid = sampled(study), sampled(study, lambda run: str(run.evaluation["sampling"]))
    chance = "Dotted: by chance. " if curves.chance_key(study, domain.quality) else ""
    if any(
        results.get(systems, a, d, m) for a in study.arms for d in results.datasets(systems) for m in domain.compared
    ):
        means, by_chance = "dark dashes their means", "Grey dashes: by chance, where that was measured. "
        if is_over_weights(study):
            means, by_chance = "the line joins their means", BY_CHANCE
        caption = f"Dots are seeds, {means}. Dashed lines: data (dark), MLE (grey). {by_chance}{n}"
        if any(system in study.arms for system, _, _ in found.one_seed_intervals):
            caption += f"Of a single seed, the bar is the 95 % interval for fresh {domain.examples}. "
        yield finish("arms", "What the arms change", caption, lambda: arms(found))
    if any(results.get(systems, s, d, PRIMARY) for s in systems for d in results.datasets(systems)):
        caption = "Up and right is better. Dots are seeds, rings their mean; a star is data, a diamond the MLE. "
        caption += f"Dotted: Pareto front of the arms' means. Grey band: {quality} by chance. {n}"
        yield finish("quality_diversity", "Quality and diversity", caption, lambda: quality_diversity(found))
    if {f"valid/{domain.quality}", f"valid/{PRIMARY}"} <= set(logged):
        caption = "Thin lines are seeds, thick lines their mean; from the first evaluation (ring) to the last (dot). "
        caption += f"Read it upright: at equal {quality}, which arm is the more diverse? Valid split. {chance}{n_valid}"
        title = "Quality and diversity while learning"
        yield finish("learning_path", title, caption, lambda: learning_path(study))
    if {DISTANCE, f"valid/{domain.quality}", f"valid/{PRIMARY}"} <= set(logged):
        caption = "The same evaluations over the distance to the supervised policy. Read it upright: at equal "
        caption += f"distance, which arm is better? Who moved less can look better at equal steps. {n_valid}"
        yield finish("over_distance", "Quality and diversity at equal distance", caption, lambda: over_distance(study))
    if {"kl", "valid/held_out_coherence"} <= set(logged):
        caption = "The reward that training sees (dashed) and a reward model it never saw (solid), over the distance "
        caption += f"from the anchor. Where they part, the reward is being hacked. Means over seeds. {n_valid}"
        yield finish("proxy_and_gold", "Proxy against gold reward", caption, lambda: proxy_and_gold(study))
    if valid:
        caption = LINES + "Dashed: MLE (grey) and data (dark) on the test split, where a metric allows it. "
        caption += f"{chance}{n_valid}"
        yield finish("validation", "Evaluations on the valid split", caption, lambda: panels(study, valid, systems))
    thinned = (
        LINES + f"At most {curves.MAX_POINTS} points a line, each the mean of neighbouring steps. {_seeds(study)}."
    )
    for name, title, keys in (("rewards", "Rewards, term by term", rewards), ("policy", "Policy", policy)):
        if keys:
            spread = f" Spread: standard deviation over {domain.examples}." if name == "rewards" else ""
            yield finish(name, title, thinned + spread, lambda keys=keys: panels(study, keys, systems))  # type: ignore[misc]
    if adversary:
        caption = thinned + " Dashed: mean reward above which the gate opens. Ticks: steps at which it was open."
        yield finish("discriminator", "Discriminator", caption, lambda: discriminator(study, adversary))
    yield from domain.pages().figures(study)


def _seeds(study: Study) -> str:
    counts = [f"{study.name(arm)}: {sum(run.arm == arm for run in study.runs)}" for arm in study.arms]
    return "Seeds at " + ", ".join(counts)


def sampled(study: Study, rule: Callable[[Run], str] = lambda run: run.rule) -> str:
    """For captions: how many seeds, and how they were sampled, of runs by `rule`."""
    sampling = "/".join(sorted({rule(run) for run in study.runs}))
    return f"{_seeds(study)}; {sampling} sampling, T = 1. "


def arms(found: Results) -> Figure:
    """The metrics of each dataset: every arm's seeds over λ, or side by side where arms differ in something else."""
    study, systems = found.study, found.systems
    sets = results.datasets(systems)
    shown = [m for m in study.domain.compared if any(results.get(systems, a, d, m) for a in study.arms for d in sets)]
    places, is_weights = _places(study), is_over_weights(study)
    lines = max(math.ceil(len(shown) / IN_A_LINE), 1)
    columns = math.ceil(len(shown) / lines)
    figure = Figure(figsize=(WIDTH if columns > 2 else WIDTH / 2, 2.2 * len(sets) * lines + 0.3))
    title = textwrap.TextWrapper(20 if columns == IN_A_LINE else 25, break_on_hyphens=False)
    ticks = [arm.removeprefix(ARM) if is_weights else study.name(arm) for arm in study.arms]
    slant: dict[str, Any] = {} if is_weights else {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    for (row, dataset), (i, metric) in itertools.product(enumerate(sets), enumerate(shown)):
        axes = figure.add_subplot(len(sets) * lines, columns, row * lines * columns + i + 1)
        scores = {arm: score for arm in study.arms if (score := results.get(systems, arm, dataset, metric))}
        if not scores:
            axes.set_axis_off()
            continue
        for arm, score in scores.items():
            shade = color(arm, study)
            axes.plot([places[arm]] * len(score.values), score.values, "o", color=shade, markersize=4, alpha=0.7)
            if interval := found.one_seed_intervals.get((arm, dataset, metric)):
                axes.vlines(places[arm], *interval, color=shade, linewidth=1.4)
        means = [estimate(score.values).mean for score in scores.values()]
        axes.plot([places[arm] for arm in scores], means, "-" if is_weights else "_", color=INK, linewidth=1)
        for system in ("mle", "data"):
            if score := results.get(systems, system, dataset, metric):
                axes.axhline(estimate(score.values).mean, color=color(system, study), linestyle="--", linewidth=1)
        by_chance = chance(found, dataset, metric)
        dotted = ":" if is_weights else "none"
        axes.plot([places[arm] for arm in by_chance], [*by_chance.values()], ls=dotted, color=MLE_COLOR, marker="_")
        axes.set_xticks([*places.values()], ticks, **slant)
        label, unit = titled(study.domain.metrics, metric), describe(study.domain.metrics, metric).unit
        axes.set(title=title.fill(f"{dataset}: {label}"), ylabel=unit, xlabel="λ" if is_weights else "")
        axes.margins(x=0.12)
    return figure


def is_over_weights(study: Study) -> bool:
    """Whether the arms differ in λ alone."""
    return all(arm.startswith(ARM) for arm in study.arms)


def chance(found: Results, dataset: str, metric: str) -> dict[str, float]:
    """What each arm gets of a metric by chance, mean over seeds; empty where that was not measured."""
    name = describe(found.study.domain.metrics, metric).chance
    scores = {arm: results.get(found.systems, arm, dataset, name) for arm in found.study.arms}
    return {arm: estimate(score.values).mean for arm, score in scores.items() if score}


def _places(study: Study) -> dict[str, float]:
    if is_over_weights(study):
        return {arm: results.weight_of(arm) for arm in study.arms}
    return {arm: place for place, arm in enumerate(study.arms)}


def proxy_and_gold(study: Study) -> Figure:
    """Trained-on and held-out coherence over √KL, at the evaluations on the valid split."""
    figure = Figure(figsize=(WIDTH * 0.7, 3.4))
    axes = figure.add_subplot()
    logged, in_training = curves.keys(study.runs), f"reward/{next(iter(study.runs[0].task.reward_models))}"
    proxy = "valid/proxy_coherence" if "valid/proxy_coherence" in logged else in_training
    for arm, members in _by_arm(study).items():
        for key, line in (("valid/held_out_coherence", "-"), (proxy, "--")):
            measured = [curves.against(run, "valid/held_out_coherence", key) for run in members]
            measured = [found for found in measured if len(found.steps)]
            if measured:
                y, kl = curves.mean_curve(measured), curves.mean_curve([curves.curve(run, "kl") for run in members])
                _, (y_at, kl_at) = curves.aligned((y, kl))
                axes.plot(np.sqrt(np.maximum(kl_at, 0)), y_at, line, color=color(arm, study), marker=".")
    axes.set(xlabel="√KL from the anchor, √nats", ylabel="coherence")
    figure.legend(handles=legend(study.arms, "-", study), loc="outside upper left", ncols=6)
    return figure


def color(system: str, study: Study) -> str:
    """Data in ink, MLE grey, the baseline vermilion; each further arm the next colour."""
    if system not in study.arms:
        return DATA_COLOR if system == "data" else MLE_COLOR
    if system == study.baseline:
        return ZERO_COLOR
    return ARM_COLORS[[arm for arm in study.arms if arm != study.baseline].index(system) % len(ARM_COLORS)]


def quality_diversity(found: Results) -> Figure:
    """The quality of a task against independent Vendi, one panel per dataset."""
    study, systems = found.study, found.systems
    quality = study.domain.quality
    shown = [d for d in results.datasets(systems) if any(results.get(systems, s, d, PRIMARY) for s in systems)]
    figure = Figure(figsize=(WIDTH, 3.6 * -(-len(shown) // 2)))
    for i, dataset in enumerate(shown):
        axes = figure.add_subplot(-(-len(shown) // 2), min(len(shown), 2), i + 1)
        counts = set()
        for system in systems:
            x, y = (results.get(systems, system, dataset, m) for m in (quality, PRIMARY))
            if x and y:
                _dots(axes, system, x.by_seed, y.by_seed, study)
                counts.add(y.n_songs)
        front = sorted(pareto.front(found, dataset).values())
        axes.plot([x for x, _ in front], [y for _, y in front], ":", color=INK, linewidth=1)
        if by_chance := chance(found, dataset, quality):
            low, high = min(by_chance.values()), max(by_chance.values())
            axes.axvspan(low, high, color=MLE_COLOR, alpha=0.35, linewidth=1.5, zorder=0)
            axes.annotate("chance", (high, 0.01), xycoords=("data", "axes fraction"), fontsize=7, color=MLE_COLOR,
                          xytext=(3, 0), textcoords="offset points")  # fmt: skip
        axes.set(title=dataset, xlabel=pareto.axis_of(study))
        axes.set_ylabel(f"independent Vendi ↑, {study.domain.examples} (n = {'/'.join(map(str, sorted(counts)))})")
    figure.legend(handles=legend(list(systems), "o", study), loc="outside upper left", ncols=6)
    return figure


def learning_path(study: Study) -> Figure:
    """The quality of a task against independent Vendi over the evaluations on the valid split."""
    figure = Figure(figsize=(WIDTH, 3.8))
    axes = figure.add_subplot()
    _paths(axes, study, f"valid/{study.domain.quality}", f"valid/{PRIMARY}")
    if by_chance := curves.chance_key(study, study.domain.quality):
        logged = [curves.curve(run, by_chance).values for run in study.runs]
        axes.axvline(float(np.nanmean(np.concatenate(logged))), color=MLE_COLOR, linestyle=":", linewidth=1.4)
    axes.set(xlabel=pareto.axis_of(study), ylabel=f"independent Vendi ↑, {study.domain.examples}")
    figure.legend(handles=legend(study.arms, "-", study), loc="outside upper left", ncols=6)
    return figure


def over_distance(study: Study) -> Figure:
    """The quality of a task and independent Vendi over √KL to the supervised policy, on the valid split."""
    figure = Figure(figsize=(WIDTH, 3.4))
    labels = (pareto.axis_of(study), f"independent Vendi ↑, {study.domain.examples}")
    for axes, name, label in zip(figure.subplots(1, 2), (study.domain.quality, PRIMARY), labels, strict=True):
        _paths(axes, study, DISTANCE, f"valid/{name}")
        axes.set(xlabel="√KL to the MLE, √nats a frame", ylabel=label)
    figure.legend(handles=legend(study.arms, "-", study), loc="outside upper left", ncols=6)
    return figure


def _paths(axes: Axes, study: Study, x_key: str, y_key: str) -> None:
    """One logged quantity over another, at the steps that have both: each run thin, the mean of an arm thick."""
    for arm, members in _by_arm(study).items():
        pairs = [[curves.curve(run, key) for key in (x_key, y_key)] for run in members]
        shade = color(arm, study)
        means = [curves.mean_curve([pair[i] for pair in pairs]) for i in (0, 1)]
        for pair, width in [*((p, 0.7) for p in pairs), (means, 2.2)]:
            _, (x, y) = curves.aligned(pair)
            axes.plot(x, y, color=shade, linewidth=width, alpha=1 if width > 1 else 0.45)
            if width > 1 and len(x):
                axes.plot(x[0], y[0], "o", color=shade, markerfacecolor=PAPER)
                axes.plot(x[-1], y[-1], "o", color=shade)


def panels(study: Study, shown: Sequence[str], systems: Systems) -> Figure:
    """One small learning curve per logged key."""
    figure, grid = _grid(len(shown))
    for axes, key in zip(grid, shown, strict=False):
        _curves(axes, study, key)
        if key.startswith("valid/"):
            _references(axes, key.removeprefix("valid/"), systems, study)
    figure.legend(handles=legend(study.arms, "-", study), loc="outside upper left", ncols=6)
    return figure


def discriminator(study: Study, shown: Sequence[str]) -> Figure:
    """The adversary's curves, and below them when its gate was open."""
    figure = Figure(figsize=(WIDTH, 2.3 * -(-len(shown) // 3) + 0.7 + 0.16 * len(study.runs)))
    rows = -(-len(shown) // 3)
    spec = figure.add_gridspec(rows + 1, 3, height_ratios=[2.3] * rows + [0.5 + 0.16 * len(study.runs)])
    for i, key in enumerate(shown):
        axes = figure.add_subplot(spec[i // 3, i % 3])
        _curves(axes, study, key)
        if key == "discriminator/fooled":
            threshold = study.runs[0].config["algorithm"]["discriminator"]["gate_threshold"]
            axes.axhline(threshold, color=MLE_COLOR, linestyle="--", linewidth=1)
    _gates(figure.add_subplot(spec[rows, :]), study)
    figure.legend(handles=legend(study.arms, "-", study), loc="outside upper left", ncols=6)
    return figure


def _gates(axes: Axes, study: Study) -> None:
    by_arm = _by_arm(study)
    ordered = [run for members in by_arm.values() for run in members]
    opened = [curves.curve(run, "discriminator/is_open") for run in ordered]
    axes.eventplot(
        [c.steps[c.values > 0] for c in opened], lineoffsets=range(len(ordered)), linelengths=0.7,
        linewidths=1, colors=[color(run.arm, study) for run in ordered],
    )  # fmt: skip
    labels = [f"{study.name(run.arm)}, seed {run.seed}" for run in ordered]
    axes.set_yticks(range(len(ordered)), labels, fontsize=7)
    axes.set(title="gate open", xlabel=STEP_LABEL, ylim=(len(ordered) - 0.4, -0.6))
    axes.grid(False, axis="y")


def _curves(axes: Axes, study: Study, key: str) -> None:
    by_arm, by_chance = _by_arm(study), curves.chance_key(study, key.removeprefix("valid/"))
    for arm, members in by_arm.items():
        found = [c for c in (curves.curve(run, key) for run in members) if len(c.steps)]
        shade = color(arm, study)
        if len(found) > 1:
            low, high = (curves.thin(curves.pointwise(found, reduce)) for reduce in (np.min, np.max))
            axes.fill_between(low.steps, low.values, high.values, color=shade, alpha=0.16, linewidth=0)
        if found:
            mean = curves.thin(curves.mean_curve(found))
            marker = "o" if len(mean.steps) == 1 else None
            axes.plot(*mean, color=shade, linewidth=1.8, marker=marker, label=study.name(arm))
        if found and by_chance:
            chances = [curves.curve(run, by_chance) for run in members]
            label = f"{study.name(arm)}, by chance"
            axes.plot(*curves.mean_curve(chances), ":", color=shade, linewidth=1.2, label=label)
    title, unit = curves.title(key, study.domain)
    axes.set(title=title, xlabel=STEP_LABEL, ylabel=unit)


def _references(axes: Axes, metric: str, systems: Systems, study: Study) -> None:
    for system in ("mle", "data"):
        score = results.get(systems, system, results.datasets(systems)[0], metric)
        if score and not describe(study.domain.metrics, metric).depends_on_n:
            axes.axhline(estimate(score.values).mean, color=color(system, study), linestyle="--", linewidth=1)


def _dots(axes: Axes, system: str, x: dict[int, float], y: dict[int, float], study: Study) -> None:
    seeds, shade = [seed for seed in x if seed in y], color(system, study)
    xs, ys = [x[s] for s in seeds], [y[s] for s in seeds]
    if system not in study.arms:
        marker, size = {"data": ("*", 13), "mle": ("D", 7)}.get(system, ("s", 7))
        axes.plot(np.mean(xs), np.mean(ys), marker, color=shade, markersize=size, zorder=3)
        return
    axes.plot(xs, ys, "o", color=shade, markersize=4, alpha=0.6, markeredgewidth=0)
    axes.plot(np.mean(xs), np.mean(ys), "o", color=shade, markersize=10, markerfacecolor="none", markeredgewidth=2)


def _by_arm(study: Study) -> dict[str, list[Run]]:
    return {arm: [run for run in study.runs if run.arm == arm] for arm in study.arms}


def legend(systems: Sequence[str], style: str, study: Study) -> list[Line2D]:
    marker = {"data": "*", "mle": "D"}
    return [
        Line2D([], [], color=color(s, study), label=study.name(s), linewidth=2 if style == "-" else 0,
               marker=None if style == "-" else marker.get(s, "o"))
        for s in systems
    ]  # fmt: skip


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // 3)
    figure = Figure(figsize=(WIDTH, 2.2 * rows + 0.3))
    return figure, [figure.add_subplot(rows, 3, i + 1) for i in range(count)]
