"""Whether others could have changed what a folder holds: code is loaded only from where they could not."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def private_folder(path: Path) -> Path:
    """Makes a folder of our own, in which only we read and write; folders above it, where they lack, too.

    Raises OSError where that cannot be.
    """
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    if not fault_of(path):
        path.chmod(0o700)
    return path


def fault_of(path: Path) -> str:
    """Why what lies at `path` may be the work of another user, in words that follow its name; "" where it cannot.

    The file or folder and all above it must belong to us or to root, and nobody else may write them. Folders above may
    be written by all where each may remove only what is his own, as in /tmp.
    """
    if not hasattr(os, "getuid"):
        return ""
    real = path.resolve()
    for number, place in enumerate((real, *real.parents, path, *path.absolute().parents)):
        found = place.lstat()
        if found.st_uid not in (os.getuid(), 0):
            return f"is not safe: {place} belongs to another user"
        is_above = number > 0 and bool(found.st_mode & stat.S_ISVTX)
        if found.st_mode & _OTHERS and not is_above and not stat.S_ISLNK(found.st_mode):
            return f"is not safe: other users can write {place}"
    return ""
