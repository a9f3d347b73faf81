"""The files of a bundle, each checked against its hash before it is used; refusals are one sentence.

Only plain files of limited size are opened. Nothing is unpickled, and no path of a bundle leads outside it.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "gapt-serving/2"
MANIFEST, SUMS, WEIGHTS, GOLDEN, START = (
    *("manifest.json", "SHA256SUMS", "params.safetensors", "golden.safetensors"),
    "onnx/start.safetensors",
)
MAX_BYTES = {".json": 4 << 20, ".jaxexport": 64 << 20, ".onnx": 2 << 30, ".safetensors": 4 << 30}
_MAX_TEXT = 1 << 20  # bytes of any other file
_MAX_ENTRIES = 64  # files and folders
_MAX_RANK, _MAX_DIMENSION = 8, 1 << 40  # of a tensor; its bytes must be in the file
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")  # of a path
_DTYPES = {"F32": np.float32, "I32": np.int32, "I8": np.int8, "BF16": None}


class Refused(Exception):
    """Why a bundle cannot be used, in one sentence."""


def first_line(error: Exception) -> str:
    """The kind of an error and the beginning of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:120]}"


def check_files(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle whose files are exactly those it names, each with its size and hash."""
    if not folder.is_dir():
        raise Refused(f"{folder} is no folder: give the folder that gapt export wrote")
    if not os.path.lexists(folder / SUMS):
        raise Refused(f"{folder} has no {SUMS}: it is no bundle, or a part of one")
    present, sums = _plain_files(folder), _read_sums(folder)
    for path in sorted(present - {SUMS}):
        if path not in sums:
            raise Refused(f"{folder / path} is in no list of the bundle: remove it")
    digests = {path: _digest(folder / path) for path in sorted(sums)}
    for path, digest in digests.items():
        if digest != sums[path]:
            owner = next((other for other, expected in sums.items() if expected == digest), None)
            if owner:
                raise Refused(f"{folder / path} holds what belongs into {owner}: copy the bundle again")
            raise Refused(f"{folder / path} was changed after it was written (its SHA-256 differs): copy it again")
    manifest = _read_manifest(folder)
    for path, facts in manifest["files"].items():
        if sums.get(path) != facts.get("sha256") or facts.get("bytes") != (folder / path).lstat().st_size:
            raise Refused(f"{folder / MANIFEST} and {SUMS} disagree about {path}: copy the bundle again")
    if set(manifest["files"]) != set(sums) - {MANIFEST}:
        raise Refused(f"{folder / MANIFEST} does not name the files that {SUMS} names: copy the bundle again")
    return manifest


def _plain_files(folder: Path) -> set[str]:
    """Paths of all files of a bundle. Refuses links, pipes, sockets and devices before anything is opened."""
    found: set[str] = set()
    waiting, entries = [folder], 0
    while waiting:
        path, entries = waiting.pop(), entries + 1
        kind = path.lstat().st_mode
        if entries > _MAX_ENTRIES:
            raise Refused(f"{folder} holds more than {_MAX_ENTRIES} files and folders: it is no bundle")
        if path == folder or stat.S_ISDIR(kind):
            waiting += path.iterdir()
        elif stat.S_ISLNK(kind):
            raise Refused(f"{path} is a link: a bundle holds plain files")
        elif stat.S_ISREG(kind):
            found.add(path.relative_to(folder).as_posix())
        else:
            raise Refused(f"{path} is a pipe, a socket or a device: a bundle holds plain files")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.BufferedReader]:
    """A plain file of no more than its kind may have, opened without following a link or waiting for a pipe."""
    most = MAX_BYTES.get(path.suffix, _MAX_TEXT)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise Refused(f"{path} is no plain file: copy the bundle again")
            if facts.st_size > most:
                raise Refused(f"{path} has {facts.st_size:,} bytes, more than the {most:,} that are read")
            yield stream
    except FileNotFoundError:
        raise Refused(f"{path} is missing: copy the bundle again") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(f"{path} is a link: a bundle holds plain files") from None
        raise Refused(f"{path} cannot be read ({error.strerror}): check its rights") from None


def read(path: Path) -> bytes:
    """The content of a file of a bundle."""
    with _opened(path) as stream:
        return stream.read()


def read_json(path: Path) -> Any:
    """The content of a JSON file without NaN, infinities and names that stand twice."""

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is no number")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name stands twice")
        return dict(pairs)

    try:
        return json.loads(read(path).decode(), parse_constant=constant, object_pairs_hook=table)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path} cannot be read ({first_line(error)}): copy the bundle again") from None


def _inside(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= 4 and all(_PART.fullmatch(part) for part in parts)


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = read(folder / SUMS).decode("ascii").removesuffix("\n").split("\n")
    except ValueError as error:
        raise Refused(f"{folder / SUMS} cannot be read ({first_line(error)}): copy the bundle again") from None
    sums: dict[str, str] = {}
    for line in lines:
        digest, gap, path = line[:64], line[64:66], line[66:]
        if gap != "  " or not re.fullmatch("[0-9a-f]{64}", digest):
            raise Refused(f"{folder / SUMS} has a line that is no hash and path: copy the bundle again")
        if not _inside(path):
            raise Refused(f"{folder / SUMS} names {path[:100]!r}, which is outside the bundle")
        if path in sums:
            raise Refused(f"{folder / SUMS} names {path} twice: copy the bundle again")
        sums[path] = digest
    if MANIFEST not in sums:
        raise Refused(f"{folder / SUMS} does not name {MANIFEST}: copy the bundle again")
    return sums


def _digest(path: Path) -> str:
    with _opened(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = read_json(path)
    try:
        schema, files = manifest["schema"], manifest["files"]
        named = [*files, *(function["file"] for function in manifest["functions"])]
        whole = all(isinstance(name, str) for name in named) and all(isinstance(f, dict) for f in files.values())
    except (KeyError, TypeError, AttributeError):
        raise Refused(f"{path} is no manifest of a bundle") from None
    if schema != SCHEMA:
        raise Refused(f"{path} has the schema {str(schema)[:100]!r}; this reads {SCHEMA!r}")
    for name in named:
        if not whole or not _inside(name):
            raise Refused(f"{path} names {str(name)[:100]!r}, which is outside the bundle")
    missing = [name for name in named if name not in files]
    if missing:
        raise Refused(f"{path} names {missing[0]!r}, of which it has no hash")
    return manifest


def check_expiry(folder: Path, manifest: dict[str, Any]) -> None:
    """Compiled functions are readable for a limited time; the weights for ever."""
    try:
        expires = datetime.date.fromisoformat(manifest["expires"])
    except (KeyError, TypeError, ValueError):
        raise Refused(f"{folder / MANIFEST} does not say until when the bundle is readable: copy it again") from None
    if datetime.date.today() > expires:
        raise Refused(
            f"the compiled functions of {folder} expired on {expires}: rebuild them with 'gapt export refresh {folder}'"
        )


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, which must fill it from end to end; refuses everything else."""
    content = read(path)
    size = int.from_bytes(content[:8], "little")
    try:
        if len(content) < 8 or size > min(MAX_BYTES[".json"], len(content) - 8):
            raise ValueError("its header is cut off")
        header = json.loads(content[8 : 8 + size])
        data, entries = memoryview(content)[8 + size :], dict(header)
        entries.pop("__metadata__", None)
        arrays, places = {}, []
        for name, entry in entries.items():
            arrays[name] = _array(data, entry)
            places.append(tuple(entry["data_offsets"]))
        ends = [0, *(end for _, end in sorted(places))]
        if [start for start, _ in sorted(places)] != ends[:-1] or ends[-1] != len(data):
            raise ValueError("its tensors overlap or leave gaps")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if content[:1] == b"\x80" or content[:2] == b"PK":
            raise Refused(f"{path} is a pickle, not safetensors: it could run code, and is not opened") from None
        raise Refused(f"{path} is no safetensors file ({first_line(error)}): copy it again") from None
    return arrays


def _array(data: memoryview, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"a tensor of {str(entry['dtype'])[:20]!r}")
    dtype = _DTYPES[entry["dtype"]] or _bfloat16()
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > _MAX_RANK:
        raise ValueError(f"a tensor of more than {_MAX_RANK} dimensions")
    if not all(type(n) is int and 0 <= n <= _MAX_DIMENSION for n in (*shape, start, end)):
        raise ValueError("a tensor that lies outside the file")
    if not start <= end <= len(data):
        raise ValueError("a tensor that lies outside the file")
    if math.prod(shape) * np.dtype(dtype).itemsize != end - start:
        raise ValueError("a tensor whose shape is not that of its bytes")
    return np.frombuffer(data[start:end], dtype).reshape(shape)


def _bfloat16() -> Any:
    import ml_dtypes

    return ml_dtypes.bfloat16
