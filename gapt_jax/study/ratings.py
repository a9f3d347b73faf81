"""Participants' ratings of systems, read from a CSV file; the first bad line is named."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from gapt_jax.errors import UserError
from gapt_jax.study import NEEDED, OPTIONAL
from gapt_jax.study.statistics import Rating

MAX_BYTES = 16 * 2**20
MAX_SYSTEMS, MAX_QUESTIONS = 20, 50  # tests grow with systems² x questions; more names mean swapped columns


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
