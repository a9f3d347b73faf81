"""Preparation: once per state of the source, whole or not at all, every failure one clear sentence."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from gapt_jax.data_pipeline import builders, store
from gapt_jax.data_pipeline.builders import open_splits, prepare
from gapt_jax.data_pipeline.songs import Song, read_songs, to_frames
from gapt_jax.data_pipeline.sources import find_source
from gapt_jax.errors import UserError
from tests.data_pipeline.song_records import make_record, numbered_records, write_songs

Folders = Callable[..., Path]


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def test_records_hold_the_frames_of_the_file_in_its_order(song_folder: Folders, tmp_path: Path) -> None:
    folder = song_folder(tunes=numbered_records(12, "tunes"))
    prepared = prepare("tunes", folder, tmp_path / "data")
    splits = open_splits(prepared)
    songs = [song for song in read_songs(folder / "tunes.jsonl.gz") if isinstance(song, Song)]
    for split, part in splits.items():
        expected = [song for song in songs if song.split == split]
        assert part.ids.tolist() == [song.id for song in expected]
        for n, song in enumerate(expected):
            for field, array in vars(to_frames(song)).items():
                got = getattr(part.song(n), field)
                assert got.dtype == array.dtype and (got == array).all(), field
    record = tfds.builder_from_directory(prepared.path / "songs/1.0.0").as_data_source("train")[1]
    assert record["title"] == b"A song" and record["group"] == b"tunes/001" and record["pickup"] == 0.0
    assert record["meter"].tolist() == [4, 4]


def test_preparing_again_does_nothing_and_a_changed_source_gets_a_new_folder(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data_dir = song_folder(tunes=numbered_records(5)), tmp_path / "data"
    first = prepare("tunes", folder, data_dir)
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    with monkeypatch.context() as patch:
        patch.setattr(builders, "_prepare_new", lambda *_: pytest.fail("prepared twice"))
        assert prepare("tunes", folder, data_dir) == first
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == before
    song_folder(tunes=numbered_records(6))
    second = prepare("tunes", folder, data_dir)
    assert second.fingerprint != first.fingerprint
    assert _visible(data_dir) == sorted([first.path.name, second.path.name])
    assert len(first.path.name) == len("tunes-") + 12


def test_the_report_counts_songs_and_lists_what_was_rejected(song_folder: Folders, tmp_path: Path) -> None:
    records = [
        *numbered_records(5),
        "{broken",
        make_record("z", beats_total=0),
        make_record("w", meter=[6, 8]),
    ]
    report = prepare("tunes", song_folder(tunes=records), tmp_path / "data").report
    assert report["songs"] == {"train": 4, "valid": 1, "test": 1}
    assert report["metres"] == {"4/4": 5, "6/8": 1} and report["beats"] == 8 + 9 + 10 + 11 + 12 + 8
    assert report["rejected_total"] == 2 and [r["line"] for r in report["rejected"]] == [6, 7]
    assert report["rejected"][0]["file"] == "tunes.jsonl.gz" and report["off_grid_share"] == 0.0


def test_the_list_of_rejected_lines_is_capped_but_not_their_number(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builders, "MAX_REPORTED", 3)
    report = prepare("tunes", song_folder(tunes=[*["{}"] * 7, make_record()]), tmp_path / "data").report
    assert report["rejected_total"] == 7 and len(report["rejected"]) == 3


@pytest.mark.parametrize("where", ["download_and_prepare", "write_flat"])
def test_an_interrupted_preparation_leaves_nothing_behind(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    folder, data_dir = song_folder(tunes=numbered_records(5)), tmp_path / "data"

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(builders.Songs if where == "download_and_prepare" else store, where, interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare("tunes", folder, data_dir)
    assert _visible(data_dir) == []
    assert prepare("tunes", folder, data_dir).report["songs"]["train"] == 3


def test_a_quicker_process_wins_and_its_result_is_used(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data_dir = song_folder(tunes=numbered_records(5)), tmp_path / "data"
    write = builders._write

    def write_after_another(source, collected, temporary) -> None:  # type: ignore[no-untyped-def]
        monkeypatch.setattr(builders, "_write", write)
        prepare("tunes", folder, data_dir)
        write(source, collected, temporary)

    monkeypatch.setattr(builders, "_write", write_after_another)
    prepared = prepare("tunes", folder, data_dir)
    assert _visible(data_dir) == [prepared.path.name] and len(open_splits(prepared)["train"]) == 3


@pytest.mark.parametrize("damage", ["gone", "garbage", "other", "earlier version", "bars of other songs"])
def test_a_damaged_flat_copy_is_replaced_by_the_records(song_folder: Folders, tmp_path: Path, damage: str) -> None:
    prepared = prepare("tunes", song_folder(tunes=numbered_records(7)), tmp_path / "data")
    expected = open_splits(prepared)
    copy = prepared.path / store.FLAT_COPY
    if damage == "gone":
        copy.unlink()
    elif damage == "garbage":
        copy.write_bytes(copy.read_bytes()[:-200])
    elif damage == "earlier version":
        with np.load(copy) as arrays:
            kept = {name: arrays[name] for name in arrays if not name.endswith(".bars")}
        assert len(kept) == 3 * 7
        np.savez_compressed(copy, **kept)
    elif damage == "bars of other songs":
        wrong = {split: dataclasses.replace(part, bars=part.bars[:-1]) for split, part in expected.items()}
        store.write_flat(prepared.path, wrong)
    else:
        expected["train"].frames.melody_pitch[0] = 99
        store.write_flat(prepared.path, expected)
        expected["train"].frames.melody_pitch[0] = 60
    for split, part in open_splits(prepared).items():
        assert (part.frames.melody_pitch == expected[split].frames.melody_pitch).all()
        assert part.bars.tolist() == [[0, 16]] * len(part)


def test_a_dataset_damaged_beyond_that_says_what_to_delete(song_folder: Folders, tmp_path: Path) -> None:
    prepared = prepare("tunes", song_folder(tunes=numbered_records(5)), tmp_path / "data")
    (prepared.path / store.FLAT_COPY).unlink()
    next(prepared.path.rglob("*train.array_record*")).unlink()
    with pytest.raises(UserError, match="damaged: delete that folder"):
        open_splits(prepared)
    (prepared.path / "report.json").write_text("{")
    with pytest.raises(UserError, match="damaged: delete the folder"):
        prepare("tunes", tmp_path / "songs", tmp_path / "data")


def test_missing_songs_name_the_file_the_datasets_there_and_the_command(song_folder: Folders, tmp_path: Path) -> None:
    folder = song_folder(blues=[make_record()], airs=[make_record()])
    with pytest.raises(UserError) as error:
        prepare("tunes", folder, tmp_path / "data")
    for words in ("tunes.jsonl.gz", "airs, blues", "gapt data prepare tunes --songs", "--set data.songs="):
        assert words in str(error.value)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere.*tunes\.jsonl\.gz"):
        prepare("tunes", tmp_path / "nowhere", tmp_path / "data")
    with pytest.raises(UserError, match=r"not built in \(built in: grammar, grammar_c, grammar_modal\)"):
        prepare("tunes", "grammar", tmp_path / "data")
    with pytest.raises(UserError, match="no dataset name"):
        prepare("../tunes", folder, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_built_in_set_is_found_beside_any_folder_unless_it_has_that_file(song_folder: Folders) -> None:
    folder = song_folder(airs=[make_record()])
    assert find_source("grammar_modal", folder).path is None
    song_folder(grammar_modal=[make_record()])
    assert find_source("grammar_modal", folder).path == folder / "grammar_modal.jsonl.gz"


def test_a_file_without_a_usable_song_is_an_error_with_the_first_reason(song_folder: Folders, tmp_path: Path) -> None:
    folder = song_folder(tunes=["{}", "[]"], nothing=[""])
    with pytest.raises(UserError, match=r"no song of .*line 1: field .*gapt data check"):
        prepare("tunes", folder, tmp_path / "data")
    with pytest.raises(UserError, match="it has no lines"):
        prepare("nothing", folder, tmp_path / "data")
    assert _visible(tmp_path / "data") == []


def test_no_place_to_write_is_one_sentence(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = song_folder(tunes=numbered_records(5))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be prepared in"):
        prepare("tunes", folder, tmp_path / "file")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(UserError, match="No space left on device") as error:
        prepare("tunes", folder, tmp_path / "data")
    assert "\n" not in str(error.value) and _visible(tmp_path / "data") == []


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from gapt_jax.data_pipeline.builders import prepare
from gapt_jax.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
try:
    prepare("tunes", Path(sys.argv[1]), Path(sys.argv[2]))
except UserError as error:
    print(error)
"""


def test_records_that_cannot_be_written_leave_nothing(song_folder: Folders, tmp_path: Path) -> None:
    """The real writer against a real limit: array_record raises a RuntimeError, not an OSError."""
    folder, root = song_folder(tunes=numbered_records(40)), Path(builders.__file__).parents[1]
    command = [sys.executable, "-c", _FULL_DISK, str(folder), str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert "cannot be prepared in" in done.stdout and "File too large" in done.stdout
    assert done.stdout.count("\n") == 1 and _visible(tmp_path / "data") == []


def test_preparation_prints_nothing_and_reports_progress(
    song_folder: Folders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    prepare("tunes", song_folder(tunes=numbered_records(5)), tmp_path / "data", lambda *step: seen.append(step))
    assert capfd.readouterr().out == ""
    assert seen[-1] == ("prepared tunes", 5, 5)


def test_the_report_is_json_beside_the_records(song_folder: Folders, tmp_path: Path) -> None:
    folder = write_songs(tmp_path / "s" / "a.jsonl.gz", numbered_records(5)).parent
    prepared = prepare("a", folder, tmp_path / "data")
    assert json.loads((prepared.path / "report.json").read_text()) == prepared.report
    assert _visible(prepared.path) == ["frames.npz", "report.json", "songs"]
