"""Damaged RTTM and UEM files give conversations or reasons: no other error, whatever they hold."""

from __future__ import annotations

import gzip
import io
import os
import random
import time
from pathlib import Path

import pytest

from gapt_jax.data_pipeline.conversations import rttm as rttm_reader
from gapt_jax.data_pipeline.conversations.folder import read
from gapt_jax.errors import UserError
from gapt_jax.tasks.turn_taking import tokens
from tests.data_pipeline.conversations.rttm_files import rttm

COUNT = int(os.environ.get("FUZZ", "10000"))
RTTM = rttm("r1", [("a", 0, 1), ("b", 1, 3), ("a", 3.5, 4)]).encode() + b";; x\nLEXEME r1 1 0 1 hi lex a 1 <NA>\n"
UEM = b"r1 1 0.0 4.5\n"
WORDS = (
    b"nan",
    b"-1",
    b"0",
    b"1e999",
    b"1e5",
    b"<NA>",
    b"SPEAKER",
    b"r1",
    b"r2",
    b"\xff",
    b"\0",
    b"",
    b"\xd9\xa3",
    b" ",
)


def mutated(rng: random.Random, content: bytes) -> bytes:
    """One to three kinds of damage."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, size = rng.randrange(len(content) + 1), rng.choice((1, 2, 8, 64))
        match rng.randrange(7):
            case 0:
                content = content[:place]
            case 1 if content:
                flipped = bytearray(content)
                flipped[place % len(content)] ^= 1 << rng.randrange(8)
                content = bytes(flipped)
            case 2:
                parts = content.split(b" ")
                parts[rng.randrange(len(parts))] = rng.choice(WORDS)
                content = b" ".join(parts)
            case 3:
                content = content[:place] + content[place + size :]
            case 4:
                content = content[:place] + content[place : place + size] * rng.choice((2, 3, 60)) + content[place:]
            case 5:
                content = content[:place] + rng.randbytes(size) + content[place:]
            case 6:
                content = content.decode("latin-1").encode(rng.choice(("utf-16", "utf-8", "utf-7")))
    return content


def write_files(folder: Path, ending: str, **files: bytes) -> dict[Path, bytes]:
    folder.mkdir()
    found = {folder / f"{name.replace('__', '.')}{ending}": content for name, content in files.items()}
    for path, content in found.items():
        path.write_bytes(gzip.compress(content, 1) if ending else content)
    return {path: path.read_bytes() for path in found}


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    both = RTTM.replace(b"1.00", b"1.20")
    whole = {"x__words__rttm": RTTM, "x__words_and_vocal_sounds__rttm": both, "x__uem": UEM}
    folders = [write_files(tmp_path / "whole", "", **whole), write_files(tmp_path / "zipped", ".gz", **whole)]
    folders += [write_files(tmp_path / f"alone{n}", "", x__rttm=RTTM) for n in range(4)]
    contents = {path: content for files in folders for path, content in files.items()}
    monkeypatch.setattr(rttm_reader, "_open", lambda path: io.BytesIO(contents[path]))  # files take longer to write
    kept = faulty = 0
    started = time.monotonic()
    for _ in range(COUNT):
        files = rng.choice(folders)
        path = rng.choice(list(files))
        contents[path] = mutated(rng, files[path])
        try:
            found = read(path.parent)
            assert all(fault.reason and "\n" not in fault.reason and fault.line > 0 for fault in found.faults.kept)
            faulty += found.faults.total > 0
            for talked in found.conversations:
                context, actions = tokens.encode(*talked.frames(tokens.FRAME_SECONDS))
                assert context.shape == actions.shape and context.shape[1] <= 24 * 3600 * 5
                kept += 1
        except UserError:
            faulty += 1
        contents[path] = files[path]
    print(f"{kept} conversations, {faulty} with faults, {time.monotonic() - started:.1f} s")
    assert kept > COUNT / 4 and faulty > COUNT / 4
