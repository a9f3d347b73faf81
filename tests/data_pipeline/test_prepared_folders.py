"""Prepared datasets that others have touched, and folders in which several processes prepare."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gapt_jax.data_pipeline import builders, store
from gapt_jax.data_pipeline.builders import open_splits, prepare
from gapt_jax.errors import UserError
from gapt_jax.runtime import locks
from tests.buckets import only_files_are_renamed
from tests.data_pipeline.song_records import numbered_records

Folders = Callable[..., Path]
ROOT = Path(builders.__file__).parents[1]


def _planted(kind: str, text: str) -> str:
    """features.json in which one class is a planted one."""
    found = json.loads(text)
    if kind == "root":
        found["pythonClassName"] = "planted.Feature"
    elif kind == "field":
        found["featuresDict"]["features"]["title"]["pythonClassName"] = "planted.Feature"
    elif kind == "other spelling":
        field = found["featuresDict"]["features"]["title"]
        field["python_class_name"] = field.pop("pythonClassName").replace("Text", "planted")
    elif kind == "one more":
        found["featuresDict"]["features"]["more"] = {"pythonClassName": "planted.Feature", "text": {}}
    elif kind == "old form":
        found = {"type": "planted.Feature", "content": {}}
    elif kind == "another type of ours":
        found["featuresDict"]["features"]["melody_onset"] = found["featuresDict"]["features"]["title"]
    return json.dumps(found)


@pytest.mark.parametrize("kind", ["root", "field", "other spelling", "one more", "old form", "another type of ours"])
def test_a_class_that_a_dataset_names_is_not_imported(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    prepared = prepare("tunes", song_folder(tunes=numbered_records(5)), tmp_path / "data")
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (prepared.path / store.FLAT_COPY).unlink()
    features = next(prepared.path.rglob("features.json"))
    features.write_text(_planted(kind, features.read_text()))
    with pytest.raises(UserError, match=r"features.json names other types .* prepare it again") as error:
        open_splits(prepared)
    assert "\n" not in str(error.value) and not (tmp_path / "ran").exists() and "planted" not in sys.modules


_PREPARE = """
import sys
from pathlib import Path
from gapt_jax.data_pipeline import builders
from gapt_jax.runtime import locks
locks.POLL_SECONDS = 0.05
write = builders._write
def slow(*arguments):
    print("writes", flush=True)
    sys.stdin.readline()
    write(*arguments)
builders._write = slow
say = lambda phase, done, total: print(phase, flush=True)
print(builders.prepare("tunes", Path(sys.argv[1]), Path(sys.argv[2]), say).path, flush=True)
"""


def _start(songs: Path, data: Path) -> subprocess.Popen[str]:
    """A process that prepares; before it writes, it waits for a line."""
    command = [sys.executable, "-c", _PREPARE, str(songs), str(data)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def _read_until(words: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    while words not in process.stdout.readline():
        assert process.poll() is None


def test_a_second_process_waits_and_reuses_what_the_first_prepares(song_folder: Folders, tmp_path: Path) -> None:
    songs, data = song_folder(tunes=numbered_records(5)), tmp_path / "data"
    first = _start(songs, data)
    _read_until("writes", first)
    second = _start(songs, data)
    _read_until(f"waiting for process {first.pid} of host", second)
    path = first.communicate("go\n", timeout=120)[0].split()[-1]
    told, _ = second.communicate(timeout=120)
    assert "writes" not in told
    assert told.split()[-1] == path and sorted(os.listdir(data)) == [Path(path).name]


def test_what_a_killed_preparation_left_is_removed_at_the_next_start(song_folder: Folders, tmp_path: Path) -> None:
    songs, data = song_folder(tunes=numbered_records(5)), tmp_path / "data"
    killed = _start(songs, data)
    _read_until("writes", killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert os.listdir(data) == [".lock"]
    started = time.monotonic()
    prepared = prepare("tunes", songs, data)
    assert time.monotonic() - started < locks.SILENCE_SECONDS / 2  # nobody waits for the dead
    assert os.listdir(data) == [prepared.path.name]


def test_what_a_killed_copy_left_is_made_again_and_no_folder_is_renamed(
    song_folder: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    songs, data = song_folder(tunes=numbered_records(5)), tmp_path / "data"
    folders = only_files_are_renamed(monkeypatch, data)
    prepared = prepare("tunes", songs, data)
    (prepared.path / builders.REPORT).unlink()  # it is written last
    (prepared.path / "rest").write_text("")
    assert prepare("tunes", songs, data) == prepared and not (prepared.path / "rest").exists() and not folders
