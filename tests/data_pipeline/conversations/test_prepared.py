"""Prepared conversations: what they hold, and folders that others have touched."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.data_pipeline import preparing
from gapt_jax.data_pipeline.conversations import builders
from gapt_jax.data_pipeline.conversations.builders import open_splits, prepare
from gapt_jax.data_pipeline.conversations.folder import read
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from tests.data_pipeline.conversations.rttm_files import corpus, rttm, talk, write


def test_records_hold_what_the_files_say(tmp_path: Path) -> None:
    """Times far from 0 too, that floats of 32 bits would move to another frame."""
    late = rttm("B1", [("b", 0, 1), ("a", 4000.2, 4000.4), ("b", 80000.6, 80000.8)])
    folder = write(corpus(tmp_path / "talks"), dev__rttm=late, dev__uem="B1 1 0 86399.999999\n")
    prepared = prepare("all", folder, tmp_path / "data")
    splits = open_splits(prepared)
    expected = read(folder).conversations
    found = [talked for split in splits.values() for talked in split]
    assert [talked.id for talked in found] == ["A1", "A2", "B1", "C1"] == sorted(talked.id for talked in expected)
    by_id = {talked.id: talked for talked in found}
    for talked in expected:
        got = by_id[talked.id]
        assert (got.split, got.group, got.speakers) == (talked.split, talked.group, talked.speakers)
        assert got.seconds == pytest.approx(talked.seconds, abs=1e-9)
        for mine, theirs in zip(got.frames(0.2), talked.frames(0.2), strict=True):
            assert np.array_equal(mine, theirs)
    assert np.flatnonzero(by_id["B1"].frames(0.2)[0][0]).tolist() == [20_001]
    report = prepared.report
    assert report["conversations"] == {"train": 2, "valid": 1, "test": 1} and report["segments"] == 33
    assert report["participants"] == 8 and report["groups"] == 4 and report["faults_total"] == 0


def test_reading_ends_with_how_many_were_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Console().phases() as on_progress:
        prepare("all", corpus(tmp_path / "talks"), tmp_path / "data", on_progress)
    count = len(read(tmp_path / "talks").conversations)
    said = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()]
    whole = f"{count}/{count}"
    assert said == [["reading all", str(count)], ["writing all", whole], ["prepared all", whole]]


def test_preparing_again_does_nothing_and_other_files_get_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = corpus(tmp_path / "talks"), tmp_path / "data"
    first = prepare("all", folder, data)
    with monkeypatch.context() as patch:
        patch.setattr(builders, "_prepare_new", lambda *_: pytest.fail("prepared twice"))
        assert prepare("all", folder, data) == first
    (folder / "notes.txt").write_text("not read")
    assert prepare("all", folder, data).path == first.path
    write(folder, test__rttm=talk("C1", 18))
    second = prepare("all", folder, data)
    assert second.fingerprint != first.fingerprint and sorted(os.listdir(data)) == sorted(
        [first.path.name, second.path.name]
    )


@pytest.mark.parametrize("place", ["root", "field"])
def test_a_class_that_a_dataset_names_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    prepared = prepare("all", corpus(tmp_path / "talks"), tmp_path / "data")
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    features = next(prepared.path.rglob("features.json"))
    planted = json.loads(features.read_text())
    found = planted if place == "root" else planted["featuresDict"]["features"]["speakers"]
    found["pythonClassName"] = "planted.Feature"
    features.write_text(json.dumps(planted))
    with pytest.raises(UserError, match=r"features.json names other types .* prepare it again"):
        open_splits(prepared)
    assert not (tmp_path / "ran").exists() and "planted" not in sys.modules


def test_records_that_are_not_those_of_the_report_say_what_to_delete(tmp_path: Path) -> None:
    first = prepare("all", corpus(tmp_path / "a"), tmp_path / "data")
    second = prepare("all", corpus(tmp_path / "b", seconds=30), tmp_path / "data")
    place = next(first.path.rglob("*train.array_record*"))
    next(second.path.rglob("*train.array_record*")).replace(place)
    with pytest.raises(UserError, match="is damaged: delete that folder"):
        open_splits(first)
    place.unlink()
    with pytest.raises(UserError, match="is damaged: delete that folder"):
        open_splits(first)


@pytest.mark.parametrize(
    "planted", [{"who": np.array([0, 2])}, {"who": np.array([-1, 0])}, {"length": 10**12}, {"ends": np.array([1])}]
)
def test_a_record_that_no_file_could_have_made_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: dict[str, object]
) -> None:
    """Whoever writes records can write the fingerprint too."""
    prepared = prepare(
        "all", write(tmp_path / "talks", r__rttm=rttm("r", [("a", 0, 1), ("b", 1, 2)])), tmp_path / "data"
    )
    monkeypatch.setattr(builders, "fingerprint", lambda _: prepared.fingerprint)
    read_records = preparing.read_records
    monkeypatch.setattr(preparing, "read_records", lambda *where: [record | planted for record in read_records(*where)])
    with pytest.raises(UserError, match="is damaged: delete that folder"):
        open_splits(prepared)


def test_what_cannot_be_prepared_is_one_sentence(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "talks")
    write(tmp_path / "alone", r__rttm=rttm("r", [("a", 0, 1)]))
    cases = {
        ("../all", folder): "is no dataset name",
        ("al", folder): r"has no conversations 'al' \(it has all\): did you mean 'all'\? choose",
        ("alone", tmp_path): "no conversation of .* could be used .*'r' has one speaker.*`gapt data check",
        ("all", tmp_path / "nowhere"): "there is no file or folder",
        ("all", tmp_path / "alone" / "r.txt"): "there is no file or folder",
    }
    for (name, place), words in cases.items():
        with pytest.raises(UserError, match=words):
            prepare(name, place, tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be prepared in"):
        prepare("all", folder, tmp_path / "file")
    assert not list((tmp_path / "data").glob("*"))
