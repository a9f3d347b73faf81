"""Where the conversations of a dataset are: an RTTM file, or a folder of RTTM and UEM files."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from gapt_jax.data_pipeline.conversations.folder import SPEECH_ENDINGS, has_conversations, source_files
from gapt_jax.errors import UserError

VERSION = 1  # raise when reading or the record changes: prepared datasets are then made anew
ALL = "all"  # the dataset of the files that lie directly in a folder, or of one file


def datasets_of(path: Path) -> dict[str, Path]:
    """Datasets by name: the file or the RTTM files in a folder (`ALL`), and its folders that hold RTTM files."""
    if path.is_file():
        return {ALL: path} if path.name.endswith(SPEECH_ENDINGS) else {}
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    found = {folder.name: folder for folder in sorted(folders) if has_conversations(folder)}
    return {ALL: path} | found if has_conversations(path) else found


def opened(source: str | Path) -> tuple[Path, dict[str, Path]]:
    """(path, its datasets). Raises UserError where there are none."""
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"there is no file or folder {path}: name an RTTM file or the folder that holds some")
    try:
        found = datasets_of(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check its rights") from error
    if not found:
        raise UserError(f"{path} holds no conversations: it needs files that end in {' or '.join(SPEECH_ENDINGS)}")
    return path, found


def find(name: str, source: str | Path) -> Path:
    """The file or folder of a dataset."""
    path, found = opened(source)
    if name not in found:
        near = "".join(f"did you mean '{other}'? " for other in difflib.get_close_matches(name, found, 1, 0.75))
        raise UserError(f"{path} has no conversations '{name}' (it has {', '.join(found)}): {near}choose one of them")
    return found[name]


def fingerprint_of(path: Path) -> str:
    """12 hex digits of the files of a dataset, and of how they are read."""
    digest = hashlib.sha256(f"conversations {VERSION}".encode())
    for file in source_files(path):
        try:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}): check the path and its rights") from error
        digest.update(f"\n{file.name} {content}".encode())
    return digest.hexdigest()[:12]
