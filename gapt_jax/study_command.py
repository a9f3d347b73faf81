"""``gapt study analyse``: from a table of participants' ratings to means, paired tests and a figure."""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import strict_json, write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gapt_jax.evaluation.statistics import PairedDifference
    from gapt_jax.evaluation.study import OrderEffect, Pair, Rating, Retest, Study, SystemMean

NEEDED = ("participant", "system", "question", "score")
OPTIONAL = ("order", "repeat")
FILES = ("study.json", "study.csv", "study_pairs.csv", "study.png")
MAX_BYTES = 16 * 2**20
MAX_SYSTEMS, MAX_QUESTIONS = 20, 50  # tests grow with systems² x questions; more names mean swapped columns
ALL = "(all questions)"


def add_parser(commands: Any, add: Any) -> None:
    """Adds ``study`` to the parser of ``gapt``."""
    study = commands.add_parser("study", help="analyse a user study", allow_abbrev=False)
    actions = study.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = add(actions, "analyse", _analyse, "means, paired tests and a figure of participants' ratings of systems")
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
        raise UserError("the study's figure needs matplotlib: pip install '.[report]'") from error
    from gapt_jax.evaluation import study

    ratings, ignored = read_ratings(args.ratings)
    result = study.analyse(ratings)
    summary = to_json(result)
    tables = _csv(_mean_rows(result)), _csv(_pair_rows(result))
    contents: tuple[str | bytes, ...] = (strict_json(summary, indent=1) + "\n", *tables, draw(result))
    for name, content in zip(FILES, contents, strict=True):
        write_atomic(out / name, content)
    console.emit(summary | {"files": [out / name for name in FILES]})
    _tell(result, ignored, console)
    for name in FILES:
        console.say(f"wrote {out / name}")
    console.say(f"next: look at {out / 'study.png'}; docs/study.md says what each number means")


def read_ratings(path: Path) -> tuple[list[Rating], list[str]]:
    """The ratings of a CSV file, and its columns that are not used. Raises UserError that names the first bad line."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has more than {MAX_BYTES >> 20} MiB: a study's ratings are far smaller")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a CSV file of ratings") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as CSV (UTF-8)") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not CSV ({error}); correct that line") from None
    if not rows:
        raise UserError(f"{path} is empty: its first line must name the columns {', '.join(NEEDED)}")
    columns = [name.strip() for name in rows[0][1]]
    _check_columns(path, columns)
    ratings = list(_ratings(path, columns, rows[1:]))
    for index, name, most in ((1, "systems", MAX_SYSTEMS), (2, "questions", MAX_QUESTIONS)):
        if (found := len({rating[index] for rating in ratings})) > most:
            raise UserError(f"{path} has {found} different {name}, at most {most} are compared: check the columns")
    if not ratings:
        raise UserError(f"{path} has no ratings below its first line: add one line per answer")
    return ratings, [name for name in columns if name not in NEEDED + OPTIONAL]


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        hint = "; separate columns with commas" if len(columns) == 1 and {*columns[0]} & {*";\t"} else ""
        raise UserError(
            f"{path} has no column '{missing[0]}': its first line must name {', '.join(NEEDED)}, "
            f"and names {', '.join(columns)}{hint}"
        )
    twice = [name for name in NEEDED + OPTIONAL if columns.count(name) > 1]
    if twice:
        raise UserError(f"{path} has two columns '{twice[0]}': keep one of them")


def _ratings(path: Path, columns: list[str], rows: Sequence[tuple[int, list[str]]]) -> Iterator[Rating]:
    from gapt_jax.evaluation.study import Rating

    first: dict[tuple[str, str, str, int], int] = {}
    for line, row in rows:
        where = f"{path} line {line}"
        if len(row) != len(columns):
            raise UserError(f"{where}: {len(row)} values for {len(columns)} columns; quote values that hold a comma")
        cells = {name: cell.strip() for name, cell in zip(columns, row, strict=True)}
        for name in NEEDED:
            if not cells[name]:
                raise UserError(f"{where}: '{name}' is empty; fill it in, or remove the line")
        order = _whole(where, "order", cells["order"]) if "order" in cells else None
        repeat = _whole(where, "repeat", cells["repeat"]) if "repeat" in cells else 1
        names = cells["participant"], cells["system"], cells["question"]
        if (earlier := first.setdefault((*names, repeat), line)) != line:
            raise UserError(
                f"{where}: the same participant, system and question as line {earlier}; remove one, or number answers "
                "that were asked twice in a column 'repeat'"
            )
        yield Rating(*names, _score(where, cells["score"]), order, repeat)


def _score(where: str, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not abs(score) <= 1e12:  # NaN and infinity too
        raise UserError(f"{where}: score '{text[:40]}' is not a number; correct it, or remove the line")
    return score


def _whole(where: str, name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 6 and int(text) > 0):
        raise UserError(f"{where}: {name} '{text[:40]}' is not a whole number from 1; fill it in on every line")
    return int(text)


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


def _mean_rows(study: Study) -> list[dict[str, Any]]:
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


def _pair_rows(study: Study) -> list[dict[str, Any]]:
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


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line per row; what is not defined is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in row.values()])
    return text.getvalue()


def _tell(study: Study, ignored: Sequence[str], console: Console) -> None:
    for title, rows in (
        ("means over participants (95 % CI: Student t)", _mean_rows(study)),
        ("differences over participants (Holm: over questions and pairs, and over the pairs of all questions)",
         _pair_rows(study)),
    ):  # fmt: skip
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


def draw(study: Study) -> bytes:
    """A PNG with a panel per question: participants as thin lines, system means with their 95 % CI."""
    import matplotlib

    from gapt_jax.evaluation.figures import STYLE, WIDTH

    png = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        _figure(study, WIDTH).savefig(png, format="png", dpi=150)
    return png.getvalue()


def _figure(study: Study, width: float) -> Figure:
    from matplotlib.figure import Figure

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
