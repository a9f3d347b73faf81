"""What the analysis of a study found, as JSON, as tables and as a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from gapt_jax.evaluation.statistics import PairedDifference
from gapt_jax.report.drawing import STYLE, WIDTH
from gapt_jax.study.statistics import OrderEffect, Pair, Retest, Study, SystemMean

ALL = "(all questions)"


def to_json(study: Study) -> dict[str, Any]:
    """The contents of study.json. `question` is null for the means of all questions."""
    return {
        "schema": 1,
        "n_participants": len(study.participants),
        "n_ratings": study.ratings,
        "systems": study.systems,
        "questions": study.questions,
        "means": [_mean_json(mean) for mean in study.means],
        "pairs": [_pair_json(pair) for pair in study.pairs],
        "order": study.order and _order_json(study.order),
        "retest": study.retest and _retest_json(study.retest),
        "warnings": study.warnings,
    }


def _mean_json(mean: SystemMean) -> dict[str, Any]:
    numbers = {"mean": mean.mean.mean, "sd": mean.sd, "ci95": mean.mean.ci95, "n_participants": mean.mean.n}
    return {"question": mean.question, "system": mean.system, **numbers, "by_participant": mean.by_participant}


def _pair_json(pair: Pair) -> dict[str, Any]:
    names = {"question": pair.question, "a": pair.a, "b": pair.b, "n_left_out": pair.left_out}
    return names | _test_json(pair.paired) | {"p_t_holm": pair.p_t_holm, "p_wilcoxon_holm": pair.p_wilcoxon_holm}


def _test_json(paired: PairedDifference) -> dict[str, Any]:
    difference = paired.difference
    return {
        "n_participants": difference.n,
        "difference": difference.mean,
        "ci95": difference.ci95,
        "effect_size": paired.effect_size,
        "improvement": paired.improvement,
        "p_t": paired.p_t,
        "p_wilcoxon": paired.p_wilcoxon,
        "p_sign_flip": paired.p,
        "p_floor": paired.p_floor,
    }


def _order_json(order: OrderEffect) -> dict[str, Any]:
    positions = [
        {"position": position, "mean": mean.mean, "ci95": mean.ci95, "n_participants": mean.n}
        for position, mean in order.by_position.items()
    ]
    return {"positions": positions, "mean_position": order.mean_position, "slope": _test_json(order.slope)}


def _retest_json(retest: Retest) -> dict[str, Any]:
    return retest._asdict() | {"drift": _test_json(retest.drift)}


def mean_rows(study: Study) -> list[dict[str, Any]]:
    """A row per question and system."""
    return [
        {
            "question": mean.question or ALL,
            "system": mean.system,
            "participants": mean.mean.n,
            "mean": mean.mean.mean,
            "SD": mean.sd,
            **_limits(mean.mean.ci95),
        }
        for mean in study.means
    ]


def pair_rows(study: Study) -> list[dict[str, Any]]:
    """A row per question and pair of systems."""
    return [
        {
            "question": pair.question or ALL,
            "a": pair.a,
            "b": pair.b,
            "participants": pair.paired.difference.n,
            "left out": pair.left_out,
            "a - b": pair.paired.difference.mean,
            **_limits(pair.paired.difference.ci95),
            "effect size": pair.paired.effect_size,
            "P(a > b)": pair.paired.improvement,
            "p t": pair.paired.p_t,
            "p t Holm": pair.p_t_holm,
            "p Wilcoxon": pair.paired.p_wilcoxon,
            "p Wilcoxon Holm": pair.p_wilcoxon_holm,
        }
        for pair in study.pairs
    ]


def _limits(ci95: tuple[float, float] | None) -> dict[str, float]:
    low, high = ci95 or (math.nan, math.nan)
    return {"CI low": low, "CI high": high}


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line per row; what is not defined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in row.values()])
    return text.getvalue()


def draw(study: Study) -> bytes:
    """A PNG with a panel per question: participants as thin lines, system means with their 95 % CI."""
    png = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        _figure(study, WIDTH).savefig(png, format="png", dpi=150)
    return png.getvalue()


def _figure(study: Study, width: float) -> Figure:
    questions = list(dict.fromkeys(mean.question for mean in study.means))
    rows = -(-len(questions) // 3)
    figure = Figure(figsize=(width, 2.6 * rows + 0.4))
    for i, question in enumerate(questions):
        axes = figure.add_subplot(rows, min(3, len(questions)), i + 1)
        means = [mean for mean in study.means if mean.question == question]
        for participant in study.participants:
            scores = [mean.by_participant.get(participant, math.nan) for mean in means]
            axes.plot(scores, color="#8a8a8a", linewidth=0.7, marker=".", alpha=0.5)
        for x, mean in enumerate(means):
            low, high = mean.mean.ci95 or (mean.mean.mean, mean.mean.mean)
            axes.vlines(x, low, high, color="#0072b2", linewidth=2.2)
            axes.plot(x, mean.mean.mean, "o", color="#0072b2")
        axes.set_xticks(range(len(means)), [mean.system[:20] for mean in means])
        axes.set(title=(question or ALL)[:60], ylabel="score", xlim=(-0.5, len(means) - 0.5))
    figure.suptitle("Thin: participants. Thick: mean and 95 % CI over participants.", fontsize=8.5)
    return figure
