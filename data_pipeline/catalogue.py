"""What `gapt data list|prepare|check|stats` are made of: plain rows, printed by the command line."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import grammar
from data_pipeline.builders import (
    BUILT_IN,
    REPORT,
    Progress,
    dataset_files,
    open_splits,
    prepare,
    prepared_path,
)
from data_pipeline.songs import FILE_ENDINGS, SPLITS, Frames, Rejected, mask_intervals, read_songs
from gapt_jax import chords
from gapt_jax.errors import UserError

Row = dict[str, Any]


def list_datasets(source: str | Path, data_dir: Path | None = None) -> list[Row]:
    """Datasets of a songs folder, then the built-in ones: name, source, bytes, whether each is prepared."""
    files: dict[str, Path] = {}
    if str(source) != BUILT_IN:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: name the folder that holds the *.jsonl.gz song files")
        files = dataset_files(folder)
    names = [*files, *(name for name in grammar.DATASETS if name not in files)]
    return [
        {
            "name": name,
            "source": str(files.get(name, BUILT_IN)),
            "bytes": files[name].stat().st_size if name in files else 0,
            "prepared": data_dir is not None and (prepared_path(name, source, data_dir) / REPORT).is_file(),
        }
        for name in names
    ]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Faults (file, line, reason), one row of counts a file, and the groups found in more than one split."""

    faults: list[Row]
    files: list[Row]
    leaks: list[str]


def _files_to_check(path: Path) -> list[Path]:
    if path.is_dir():
        files = list(dataset_files(path).values())
        if not files:
            raise UserError(f"{path} holds no {' or '.join('*' + e for e in FILE_ENDINGS)} file to check")
        return files
    if not path.is_file():
        raise UserError(f"there is no file or folder {path}: name a song file or the folder that holds some")
    return [path]


def check(path: str | Path) -> CheckResult:
    """Reads one song file, or all of a folder, and lists what is wrong with it."""
    faults: list[Row] = []
    rows: list[Row] = []
    splits_of_group: dict[str, set[str]] = collections.defaultdict(set)
    for file in _files_to_check(Path(path).expanduser()):
        counts: collections.Counter[str] = collections.Counter()
        for item in read_songs(file):
            if isinstance(item, Rejected):
                faults.append(dataclasses.asdict(item))
                counts["rejected"] += 1
            else:
                counts[item.split] += 1
                splits_of_group[item.group].add(item.split)
        rows.append({"file": file.name} | {key: counts[key] for key in (*SPLITS, "rejected")})
    leaks = sorted(group for group, splits in splits_of_group.items() if len(splits) > 1)
    return CheckResult(faults, rows, leaks)


def note_in_chord(frames: Frames, shift: int = 0) -> float:
    """Share of the frames with note and chord where the note, moved up by `shift` semitones, is in the chord
    (a foreign bass not counted). NaN where the two never sound together."""
    both = (frames.melody_pitch >= 0) & (frames.chord_root >= 0)
    steps = (frames.melody_pitch[both].astype(np.int64) + shift - frames.chord_root[both]) % 12
    return float(np.mean(frames.chord_intervals[both] >> steps & 1)) if both.any() else float("nan")


def _qualities(events: Iterable[tuple[tuple[int, int], int]]) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for (_, mask), count in events:
        counts[chords.quality_name(mask_intervals(mask)) or "maj"] += count
    return counts


def stats(name: str, source: str | Path, data_dir: Path, on_progress: Progress | None = None) -> tuple[Row, list[Row]]:
    """Figures of a dataset (prepared first where needed): one row for the whole, one for each split.

    `chance` is note-in-chord with the melody moved by 1 to 11 semitones, averaged. Shares are of frames,
    `off_grid_share` of notes.
    """
    prepared = prepare(name, source, data_dir, on_progress)
    report = prepared.report
    rows = []
    for split, part in open_splits(prepared).items():
        frames, qualities = part.frames, _qualities(part.chord_events.items())
        rows.append(
            {
                "split": split,
                "songs": len(part),
                "beats": len(frames) / 4,
                "chords": sum(qualities.values()),
                "qualities": len(qualities),
                "commonest": [quality for quality, _ in qualities.most_common(5)],
                "note_in_chord": note_in_chord(frames),
                "chance": float(np.mean([note_in_chord(frames, shift) for shift in range(1, 12)])),
                "silence": float(np.mean(frames.melody_pitch < 0)),
            }
        )
    kept = (
        "name",
        "source",
        "fingerprint",
        "songs",
        "beats",
        "notes",
        "metres",
        "off_grid_share",
        "rejected_total",
    )
    return {key: report[key] for key in kept} | {"path": str(prepared.path)}, rows
