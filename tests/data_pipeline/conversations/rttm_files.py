"""RTTM and UEM files made by hand."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

AMI = Path(__file__).parents[4] / "shared" / "data" / "conversations" / "ami"
Segment = tuple[str, float, float]  # speaker, start, end


def rttm(recording: str, segments: Iterable[Segment]) -> str:
    return "".join(
        f"SPEAKER {recording} 1 {start:.2f} {end - start:.2f} <NA> <NA> {speaker} <NA> <NA>\n"
        for speaker, start, end in segments
    )


def write(folder: Path, **files: str) -> Path:
    """Writes files whose dots are spelt "__"; gzipped where their names say so."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return folder


def talk(recording: str, seconds: int = 20) -> str:
    """A talk of a and b, who take turns every two seconds."""
    return rttm(recording, [("ab"[n % 2], 2.0 * n, 2.0 * n + 1.5) for n in range(seconds // 2)])


def corpus(folder: Path, seconds: int = 20) -> Path:
    """Two talks for training, one for validation, one for testing, of which each lasts `seconds`."""
    names = {"train": ("A1", "A2"), "dev": ("B1",), "test": ("C1",)}
    files = {f"{split}__rttm": "".join(talk(name, seconds) for name in found) for split, found in names.items()}
    lengths = {
        f"{split}__uem": "".join(f"{name} 1 0.0 {seconds}\n" for name in found) for split, found in names.items()
    }
    return write(folder, **files, **lengths)
