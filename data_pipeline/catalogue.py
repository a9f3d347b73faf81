"""What `gapt data list|prepare|check|stats` are made of: plain rows, printed by the command line."""

from __future__ import annotations

import collections
import dataclasses
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax import chords
from gapt_jax.data_pipeline import grammar, hygiene
from gapt_jax.data_pipeline.builders import open_splits, prepare, prepared_path
from gapt_jax.data_pipeline.examples import SPLITS, Rejected
from gapt_jax.data_pipeline.importers import abc_writer, midi_song
from gapt_jax.data_pipeline.importers import folder as native
from gapt_jax.data_pipeline.preparing import REPORT, Progress
from gapt_jax.data_pipeline.songs import (
    FILE_ENDINGS,
    Frames,
    Song,
    mask_intervals,
    read_songs,
    to_record,
)
from gapt_jax.data_pipeline.sources import BUILT_IN, datasets_of
from gapt_jax.data_pipeline.upstream import UPSTREAM
from gapt_jax.errors import UserError

Row = dict[str, Any]
WRITTEN_ENDINGS = (*FILE_ENDINGS, ".abc")


def list_datasets(source: str | Path, data_dir: Path | None = None) -> list[Row]:
    """Datasets of a songs folder, then the public and the built-in ones: name, source, licence, bytes, whether each
    is prepared."""
    found: dict[str, Path] = {}
    if str(source) != BUILT_IN:
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: name the folder that holds the *.jsonl.gz song files")
        found = datasets_of(folder)
    public = () if str(source) == BUILT_IN else UPSTREAM
    names = dict.fromkeys([*found, *public, *grammar.DATASETS])
    return [
        {
            "name": name,
            "source": str(found.get(name) or (UPSTREAM[name].url if name in public else BUILT_IN)),
            "licence": UPSTREAM[name].licence if name in UPSTREAM else "",
            "bytes": sum(file.stat().st_size for file in _files(found[name])) if name in found else 0,
            "prepared": data_dir is not None and (prepared_path(name, source, data_dir) / REPORT).is_file(),
        }
        for name in names
    ]


def _files(path: Path) -> list[Path]:
    return native.source_files(path) if path.is_dir() else [path]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Faults (file, line, reason), one row of counts a dataset, the groups found in more than one split, the melodies
    found in more than one song, those across splits first, and hints of what may be wrong but is no fault."""

    faults: list[Row]
    files: list[Row]
    leaks: list[str]
    duplicates: list[hygiene.Duplicate]
    hints: list[str]


def _to_check(path: Path) -> dict[str, Path]:
    """Datasets to read, by name: a file, those of a folder, or a folder of native files as one."""
    if not path.exists():
        raise UserError(f"there is no file or folder {path}: name a song file or the folder that holds some")
    found = datasets_of(path) if path.is_dir() else {}
    if not found and (path.name.endswith(FILE_ENDINGS) or native.native_files(path)):
        found = {path.name: path}
    if not found:
        endings = ", ".join((*FILE_ENDINGS, *native.ENDINGS))
        raise UserError(f"{path} holds no file to check (read are {endings}; of conversations .rttm)")
    return found


def check(path: str | Path) -> CheckResult:
    """Reads one file of any supported format, or all of a folder, and lists what is wrong with it."""
    faults: list[Row] = []
    rows: list[Row] = []
    splits_of_group: dict[str, set[str]] = collections.defaultdict(set)
    melodies = hygiene.Melodies()
    hints: list[str] = []
    for name, file in _to_check(Path(path).expanduser()).items():
        counts: collections.Counter[str] = collections.Counter()
        off_bars = 0
        for item in _read(name, file):
            if isinstance(item, Rejected):
                faults.append(dataclasses.asdict(item))
                counts["rejected"] += 1
            else:
                counts[item.split] += 1
                splits_of_group[item.group].add(item.split)
                melodies.add(name, item)
                off_bars += hygiene.is_off_bars(item)
        if not counts:
            reason = "it has no song" if file.is_dir() or file.stat().st_size else "it is empty"
            faults.append(dataclasses.asdict(Rejected(file.name, 1, reason)))
            counts["rejected"] += 1
        if off_bars:
            songs = sum(counts[split] for split in SPLITS)
            hints.append(hygiene.off_bars_hint(file.name, off_bars, songs))
        rows.append({"file": file.name} | {key: counts[key] for key in (*SPLITS, "rejected")})
    leaks = sorted(group for group, splits in splits_of_group.items() if len(splits) > 1)
    return CheckResult(faults, rows, leaks, melodies.duplicates(), hints)


def read(path: Path, remark: native.Remark | None = None) -> Iterator[Song | Rejected]:
    """Songs of a file or of all files of a folder, and what of them cannot be used (`native.read_native`)."""
    for name, file in _to_check(path.expanduser()).items():
        yield from _read(name, file, remark)


def _read(name: str, path: Path, remark: native.Remark | None = None) -> Iterator[Song | Rejected]:
    """Songs of a file or folder of any supported format."""
    if path.name.endswith(FILE_ENDINGS):
        return read_songs(path)
    return native.read_native(path, name.partition(".")[0], remark)


def convert(path: Path, out: Path, remark: native.Remark | None = None) -> tuple[int, list[Rejected]]:
    """Writes the songs of a file or a folder as records (``.jsonl``, ``.jsonl.gz``) or as an ABC tune book (``.abc``),
    else as a MIDI file each in the new folder `out`. ABC and MIDI hold what the models hear: frames, roots in the bass.

    Returns how many were written, and what was left out. Raises UserError where `out` is there already, or ends in
    another way.
    """
    if out.exists():
        raise UserError(f"{out} is there already: choose another --out")
    if out.suffix and not out.name.endswith(WRITTEN_ENDINGS):
        raise UserError(
            f"{out} ends in none of {', '.join(WRITTEN_ENDINGS)}: choose one of them, or a name without an ending for "
            "a folder of MIDI files"
        )
    items = list(read(path, remark))
    songs = [item for item in items if isinstance(item, Song)]
    if not songs and len(items) == 1 and isinstance(items[0], Rejected):
        raise UserError(f"{path} cannot be used: {items[0].reason}")
    if not songs:
        first = next((item.reason for item in items if isinstance(item, Rejected)), "it is empty")
        raise UserError(f"{path} has no song that can be used ({first}): `gapt data check {path}` lists all faults")
    try:
        if out.name.endswith(FILE_ENDINGS):
            text = "".join(json.dumps(to_record(song), ensure_ascii=False) + "\n" for song in songs).encode()
            out.write_bytes(gzip.compress(text, mtime=0) if out.suffix == ".gz" else text)
        elif out.suffix == ".abc":
            out.write_text(abc_writer.write(songs), encoding="utf-8")
        else:
            out.mkdir()
            for song in songs:
                (out / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', song.id)}.mid").write_bytes(midi_song.write(song))
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}): choose another --out") from error
    return len(songs), [item for item in items if isinstance(item, Rejected)]


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


COVERED = (0.9, 0.99, 1.0)


def _covering(counts: collections.Counter[str]) -> dict[str, int]:
    """How many qualities, the commonest first, name each share of the chords."""
    cumulated = np.cumsum([count for _, count in counts.most_common()])
    return {
        f"{share:.0%}": int(np.searchsorted(cumulated, share * cumulated[-1]) + 1) if len(cumulated) else 0
        for share in COVERED
    }


def stats(name: str, source: str | Path, data_dir: Path, on_progress: Progress | None = None) -> tuple[Row, list[Row]]:
    """Figures of a dataset (prepared first where needed): one row for the whole, one for each split.

    `chance` is note-in-chord with the melody moved by 1 to 11 semitones, averaged. `qualities_for` says how many chord
    qualities a vocabulary needs to cover a share of the chords. Shares are of frames, `off_grid_share` of notes. `seen`
    counts the songs with a window of `hygiene.STEPS` melody steps that a song of the train split has too.
    """
    prepared = prepare(name, source, data_dir, on_progress)
    report = prepared.report
    rows, splits = [], open_splits(prepared)
    trained = hygiene.windows_of_all([splits["train"]])
    for split, part in splits.items():
        frames, qualities = part.frames, _qualities(part.chord_events.items())
        rows.append(
            {
                "split": split,
                "songs": len(part),
                "beats": len(frames) / 4,
                "chords": sum(qualities.values()),
                "qualities_for": _covering(qualities),
                "commonest": [quality for quality, _ in qualities.most_common(5)],
                "note_in_chord": note_in_chord(frames),
                "chance": float(np.mean([note_in_chord(frames, shift) for shift in range(1, 12)])),
                "silence": float(np.mean(frames.melody_pitch < 0)),
                "seen": None if split == "train" else int(hygiene.has_window_of(part, trained).sum()),
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
        "off_bars",
        "duplicates",
        "licence",
        "citation",
        "rejected_total",
    )
    return {key: report[key] for key in kept} | {"path": str(prepared.path)}, rows
