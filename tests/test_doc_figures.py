"""Figures of docs/ come from committed JSON, and docs/figures.py says which ones there are."""

import io
import runpy
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script() -> types.SimpleNamespace:
    return types.SimpleNamespace(**runpy.run_path(str(DOCS / "figures.py")))


def test_every_figure_is_on_a_page_and_in_its_place(script):
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")))
    for name in script.FIGURES:
        assert name in text and (DOCS / name).is_file()


def test_a_figure_is_drawn_anew(script, monkeypatch):
    name = "ablation/paths.png"
    before = (DOCS / name).read_bytes()
    written = {}
    monkeypatch.setitem(script.main.__globals__, "write_atomic", lambda path, content: written.update({path: content}))
    assert script.main([name]) == 0
    ((path, after),) = written.items()
    assert path == DOCS / name
    shapes = [np.asarray(Image.open(io.BytesIO(content))).shape for content in (before, after)]
    assert shapes[0] == shapes[1]


def test_arms_are_those_of_the_json(script):
    study = script.paths()
    assert study.arms == ["gapt_lambda=0", "gapt_lambda=1", "λ=1, D(a|c)", "λ=2, D(a|c), gate goes on opening"]
    assert [len([run for run in study.runs if run.arm == arm]) for arm in study.arms] == [3, 3, 4, 2]
    first = study.runs[0].log[0]
    assert first["step"] == 0 and first["valid/note_in_chord"] == pytest.approx(0.318, abs=5e-4)


def test_an_unknown_figure_is_named(script, capsys):
    assert script.main(["ablation/path.png"]) == 2
    assert capsys.readouterr().err.startswith("there is no figure 'ablation/path.png' (there are ablation/quality")
