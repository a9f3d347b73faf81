import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.errors import UserError
from gapt_jax.runtime import files


def test_write_atomic_replaces_text_and_bytes_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file.json"
    files.write_atomic(path, "old")
    files.write_atomic(path, "λ".encode())
    assert path.read_text(encoding="utf-8") == "λ"
    assert os.listdir(path.parent) == ["file.json"]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    files.write_atomic(path, "old")

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("content", [None, "", "{", '{"a": nul}', b"\xff\xfe", "[" * 100_000])
def test_read_json_names_the_file_and_its_command(tmp_path, content):
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        files.read_json(path, "gapt evaluate runs/x")
    message = str(error.value)
    assert str(path) in message and "'gapt evaluate runs/x'" in message and "\n" not in message


def test_read_json_reads_what_strict_json_wrote(tmp_path):
    value = {
        "a": [1, 2.5, float("nan")],
        "b": (math.inf, None, True),
        "c": np.array([1.0, np.nan]),
        3: np.int32(4),
    }
    files.write_atomic(tmp_path / "x", files.strict_json(value | {"path": Path("a/b")}))
    assert files.read_json(tmp_path / "x", "-") == {
        "a": [1, 2.5, None],
        "b": [None, None, True],
        "c": [1.0, None],
        "3": 4,
        "path": "a/b",
    }


def _git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_git_revision_says_whether_the_checkout_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_SOURCE", tmp_path)
    assert files.git_revision() == "unknown"
    _git(tmp_path, "init")
    assert files.git_revision() == "unknown"  # no commit yet
    (tmp_path / "a").write_text("1")
    _git(tmp_path, "add", "a")
    _git(tmp_path, "commit", "-m", "a")
    clean = files.git_revision()
    assert len(clean) == 40
    (tmp_path / "a").write_text("2")
    assert files.git_revision() == clean + "+dirty"


def test_git_revision_without_git(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_SOURCE", tmp_path)
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert files.git_revision() == "unknown"
