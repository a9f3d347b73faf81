"""Song records and files that the tests are made of."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REAL_SONGS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "songs"


def make_record(song_id: str = "set/1", split: str = "train", beats: int = 8, **changes: Any) -> dict[str, Any]:
    """A valid record: quarter notes from middle C upwards over a chord a bar."""
    return {
        "id": song_id,
        "dataset": "set",
        "title": "A song",
        "split": split,
        "group": song_id,
        "meter": [4, 4],
        "pickup": 0,
        "beats_total": beats,
        "melody": [[beat, beat + 1, 60 + beat % 12] for beat in range(beats)],
        "chords": [[beat, min(beat + 4, beats), beat % 12, [0, 4, 7], beat % 12, "?"] for beat in range(0, beats, 4)],
    } | changes


def write_songs(path: Path, records: Iterable[Any]) -> Path:
    """Writes records (or raw lines) as a gzipped JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return path


def numbered_records(count: int, name: str = "set", first_beats: int = 8) -> list[dict[str, Any]]:
    """Records in all three splits, of 8, 9, 10 ... beats."""
    splits = ("train", "train", "train", "valid", "test")
    return [make_record(f"{name}/{n:03d}", splits[n % 5], first_beats + n % 40, dataset=name) for n in range(count)]
