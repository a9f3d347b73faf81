"""What the templates of the page are given, and how its numbers are written. Templates escape all text."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gapt_jax.evaluation.statistics import Estimate, Interval

TEMPLATES = Path(__file__).parent / "templates"


class Cell(NamedTuple):
    """A text of a table with a smaller one behind it or, where `kind` says so, below it."""

    text: str
    small: str = ""
    kind: Literal["", "below", "code", "path"] = ""


Text = str | Cell


class Table(NamedTuple):
    """A table in a box of its own that scrolls. With `is_numeric`, all columns but the first are aligned right."""

    caption: str
    head: Sequence[Text]
    rows: Sequence[Sequence[Text]]
    is_numeric: bool = True


def render(template: str, folder: Path = TEMPLATES, **values: Any) -> str:
    """HTML of a template in `folder`, which may import those of the report."""
    from markupsafe import Markup  # of jinja2, an optional extra

    return Markup(_environment(folder).get_template(template).render(**values))


@functools.cache
def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def table(caption: str, head: Sequence[Text], rows: Sequence[Sequence[Text]], is_numeric: bool = True) -> Table:
    """A table without the columns that are empty in every row."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] not in ("", "–") for row in rows)]
    return Table(caption, [head[i] for i in kept], [[row[i] for i in kept] for row in rows], is_numeric)


def mean(value: Estimate, digits: int, ci95: Interval | None = None) -> Cell:
    """A mean with half of its interval, or of the one that is given."""
    low_high = ci95 or value.ci95
    half = f"±\u2009{number((low_high[1] - low_high[0]) / 2, digits)}" if low_high else ""
    return Cell(number(value.mean, digits), half)


def difference(value: Estimate, digits: int, ci95: Interval | None = None) -> str:
    """A difference with its interval, or with the one that is given."""
    low_high = ci95 or value.ci95
    interval = f" [{number(low_high[0], digits)}, {number(low_high[1], digits)}]" if low_high else ""
    return f"{'+' if value.mean > 0 else ''}{number(value.mean, digits)}{interval}"


def digits_of(values: Sequence[float]) -> int:
    largest = max((abs(v) for v in values if v == v), default=0.0)
    return 3 if largest < 2 else 2 if largest < 100 else 0


def number(value: float, digits: int) -> str:
    """Fixed digits, a true minus sign; a dash for what is not defined."""
    return "–" if value != value else f"{value:.{digits}f}".replace("-", "\u2212")


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: float) -> str:
    total = round(seconds)
    return f"{total // 3600} h {total % 3600 // 60} min" if total >= 3600 else f"{total // 60} min {total % 60} s"
