"""``gapt study analyse``: from a table of participants' ratings to means, paired tests and a figure."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.commands.parsing import add_command, add_group
from gapt_jax.errors import UserError, install
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import strict_json, write_atomic
from gapt_jax.study import NEEDED, OPTIONAL

if TYPE_CHECKING:
    from gapt_jax.evaluation.statistics import PairedDifference
    from gapt_jax.study.statistics import Study

Rows = Sequence[dict[str, Any]]
FILES = ("study.json", "study.csv", "study_pairs.csv", "study.png")


def add_parser(commands: Any) -> None:
    """Adds ``study`` to the parser of ``gapt``."""
    actions = add_group(commands, "study", "analyse a user study")
    parser = add_command(
        actions, "analyse", _analyse, "means, paired tests and a figure of participants' ratings of systems"
    )
    parser.add_argument(
        "ratings", type=Path, metavar="RATINGS.csv", help=f"columns {', '.join(NEEDED)} [, {', '.join(OPTIONAL)}]"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: the folder of the ratings")


def _analyse(args: argparse.Namespace, console: Console) -> None:
    out = args.out or args.ratings.parent
    if args.ratings.resolve() in [(out / name).resolve() for name in FILES]:
        raise UserError(f"{args.ratings} would be overwritten by a result of that name: give another folder as --out")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"the study's figure needs matplotlib: {install('report')}") from error
    from gapt_jax.study import results
    from gapt_jax.study import statistics as study
    from gapt_jax.study.ratings import read_ratings

    ratings, ignored = read_ratings(args.ratings)
    result = study.analyse(ratings)
    summary, means, pairs = results.to_json(result), results.mean_rows(result), results.pair_rows(result)
    contents: tuple[str | bytes, ...] = (
        *(strict_json(summary, indent=1) + "\n", results.to_csv(means), results.to_csv(pairs)),
        results.draw(result),
    )
    for name, content in zip(FILES, contents, strict=True):
        write_atomic(out / name, content)
    console.emit(summary | {"files": [out / name for name in FILES]})
    _tell(result, means, pairs, ignored, console)
    for name in FILES:
        console.say(f"wrote {out / name}")
    console.say(f"next: look at {out / 'study.png'}; docs/study.md says what each number means")


def _tell(study: Study, means: Rows, pairs: Rows, ignored: Sequence[str], console: Console) -> None:
    for title, rows in (
        ("means over participants (95 % CI: Student t)", means),
        ("differences over participants (Holm: over questions and pairs, and over the pairs of all questions)", pairs),
    ):
        if rows:
            console.table(title, list(rows[0]), [[_short(value) for value in row.values()] for row in rows])
    if study.order:
        positions = [[position, mean.n, mean.mean] for position, mean in study.order.by_position.items()]
        console.table("means by position", ["position", "participants", "mean"], positions)
        console.say(f"per position: {_in_words(study.order.slope)}")
    if study.retest:
        retest = study.retest
        console.say(
            f"answers given twice: {retest.answers} of {retest.participants} participants; ICC {retest.icc:.3g}, mean "
            f"absolute difference {retest.mean_absolute_difference:.3g}; second - first: {_in_words(retest.drift)}"
        )
    if ignored:
        console.say(f"columns that are not used: {', '.join(ignored)}")
    for warning in study.warnings:
        console.warn(warning)


def _short(value: Any) -> Any:
    return float(f"{value:.3g}") if isinstance(value, float) and math.isfinite(value) else value


def _in_words(paired: PairedDifference) -> str:
    mean, ci95, n = paired.difference
    interval = f" [{ci95[0]:.3g}, {ci95[1]:.3g}]" if ci95 else ""
    tests = f"paired t p = {paired.p_t:.3g}, Wilcoxon p = {paired.p_wilcoxon:.3g}, n = {n}"
    return f"{round(mean, 9) + 0.0:.3g}{interval}, {tests}"
