"""A run away from where it was made, and a run folder that is in use."""

import json
import shutil

import pytest

from gapt_jax.runtime.locks import Lock
from tests.toy import TOY, gapt

pytestmark = pytest.mark.slow
RUN = ["run", "smoke", *(f"--set={setting}" for setting in TOY)]


@pytest.fixture(scope="module")
def whole(toy_root):
    workdir = toy_root / "whole"
    assert gapt(*RUN, "--workdir", str(workdir)) == 0
    return workdir


@pytest.fixture
def moved(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "elsewhere" / "moved")


def test_its_stages_are_links_in_the_run(whole):
    stages = whole.parent / "stages"
    kept = sorted(path.name for path in (whole / "upstream").iterdir())
    assert kept == sorted(path.name for path in stages.iterdir())
    for file in (whole / "upstream").rglob("params/**/d/*"):
        assert file.stat().st_ino == (stages / file.relative_to(whole / "upstream")).stat().st_ino


def test_a_moved_run_plays_and_is_measured(whole, moved, tmp_path):
    assert gapt("sample", str(whole), "--out", str(tmp_path / "midi"), "--songs", "1") == 0
    (melody,) = (tmp_path / "midi").glob("*.mid")
    assert gapt("sample", str(moved), "--melody", str(melody), "--out", str(tmp_path / "m"), "--songs", "1") == 0
    assert [path.name for path in moved.parent.iterdir()] == ["moved"]  # neither songs nor stages were needed
    before = json.loads((moved / "evaluation.json").read_text())["systems"]
    (moved / "evaluation.json").unlink()
    assert gapt("evaluate", str(moved)) == 0
    assert json.loads((moved / "evaluation.json").read_text())["systems"] == before
    assert not (moved.parent / "stages").exists()


def test_a_run_without_its_stages_says_which_and_where(moved, capsys):
    shutil.rmtree(moved / "upstream")
    assert gapt("evaluate", str(moved)) == 2
    error = capsys.readouterr().err.strip()
    assert "lacks its trained stage policy-" in error and str(moved.parent / "stages") in error
    assert "has not finished" not in error and error.count("\n") == 0


def test_a_run_in_use_is_refused(whole, capsys):
    before = sorted(path.name for path in whole.iterdir())
    lock = Lock(whole)
    assert lock.attempt() is None
    try:
        assert gapt(*RUN, "--workdir", str(whole)) == 2
    finally:
        lock.release()
    error = capsys.readouterr().err.strip()
    assert f"{whole} is in use by process" in error and error.count("\n") == 0
    assert sorted(path.name for path in whole.iterdir()) == before
