"""Tables of plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gapt_jax.runtime.console import Console


def show_rows(console: Console, title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """A table with a line for each row; all rows have the same keys."""
    columns = list(rows[0]) if rows else []
    console.table(title, columns, [[_cell(row[name]) for name in columns] for row in rows])


def show_facts(console: Console, title: str, facts: Mapping[str, object]) -> None:
    """A table with a line for each fact."""
    console.table(title, ["", "value"], [[key, _cell(value)] for key, value in facts.items()])


def _cell(value: object) -> object:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value
