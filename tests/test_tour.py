"""The notebook of docs/ runs from its first cell to its last, with a toy in the place of `smoke`."""

import json
import re
import shlex
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
from tests.toy import TOY, gapt

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_ends_with_curves_of_both_arms(toy_root, monkeypatch, capsys):
    monkeypatch.chdir(toy_root)
    monkeypatch.setenv("MPLBACKEND", "agg")
    toy_root.joinpath("runs").mkdir()
    for made in ("data", "stages"):
        toy_root.joinpath("runs", made).symlink_to(toy_root / made)
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and source.startswith("!"):
            command, *arguments = shlex.split(source[1:])
            assert command == "gapt" and gapt(*arguments, *(f"--set={setting}" for setting in TOY)) == 0
        elif cell["cell_type"] == "code":
            exec(compile(source, str(NOTEBOOK), "exec"), names)
    assert {run.arm for run in names["study"].runs} == {"gapt_lambda=0", "gapt_lambda=1"}
    assert Path("runs/tour/curves.png").stat().st_size > 10_000
    assert all(panel.lines for panel in names["panels"])
    shown = capsys.readouterr().out
    assert "MLE" in shown and "reward" in shown and "λ" in shown
    assert not any(cell.get("outputs") for cell in cells)  # no figure of another machine is in it


def test_links_of_the_tour_lead_somewhere():
    text = NOTEBOOK.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    assert links and all((NOTEBOOK.parent / link).exists() for link in links)
