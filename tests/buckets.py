"""A folder that behaves as a bucket mounted by Cloud Storage FUSE."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def only_files_are_renamed(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """Below `root` the renaming of a folder copies the first half of its files and fails; gives whose it was tried."""
    tried: list[str] = []

    def on_a_bucket(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, **options: Any) -> None:
            if not os.path.isdir(source) or not Path(target).resolve().is_relative_to(root.resolve()):
                return rename(source, target, **options)
            tried.append(str(source))
            files = sorted(path for path in Path(source).rglob("*") if path.is_file())
            for path in files[: len(files) // 2]:
                copy = Path(target) / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
            raise OSError(errno.EMFILE, "Too many open files", str(source))

        return renamed

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, on_a_bucket(getattr(os, name)))
    return tried
