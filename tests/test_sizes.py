"""The sizes that CONTRIBUTING.md promises of the packages: files and functions that a reader can hold in mind."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines
FILES = [
    path for folder in ("gapt_jax", "data_pipeline", "experiments", "launch") for path in (ROOT / folder).rglob("*.py")
]


def functions(text: str) -> list[tuple[str, int]]:
    """(name, lines) of each, docstring included."""
    found = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in found]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    assert [(name, lines) for name, lines in functions(text) if lines > LONGEST_FUNCTION] == []


def test_a_long_function_is_found():
    assert functions("def f():\n" + "    x = 1\n" * 60 + "def f(): ...\n") == [("f", 61), ("f", 1)]
    assert len(FILES) > 200
