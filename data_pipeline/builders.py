"""Preparation: songs of one source become a TFDS dataset of frames in array_record files. No TensorFlow.

A prepared dataset is a folder ``<data_dir>/<name>-<source fingerprint>/`` that appears whole or not at all::

    song_frames/1.0.0/   what TFDS wrote
    frames.npz           the same frames as flat arrays, derived from the records for quick opening (`store`)
    report.json          songs per split, rejected lines, beats, metres, fingerprint of the result
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline import grammar, store
from data_pipeline.songs import (
    FILE_ENDINGS,
    SPLITS,
    Frames,
    Rejected,
    Song,
    count_off_grid,
    read_songs,
    to_frames,
)
from gapt_jax.errors import UserError

FRAMES_VERSION = 1  # raise when `to_frames` or the record changes: prepared datasets are then made anew
BUILT_IN = "grammar"  # the source word for the built-in generator
MAX_REPORTED = 1_000
REPORT = "report.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Progress = Callable[[str, int, int | None], None]  # what is going on, songs done, songs in all (None: not known)


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A dataset on disk: `path` is its folder, `report` the content of its report.json."""

    name: str
    path: Path
    report: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of the frames themselves, 12 hex digits."""
        return self.report["fingerprint"]


class SongFrames(tfds.core.GeneratorBasedBuilder):
    """Frames of songs (`songs.Frames`) with their id, title, group, meter and pickup."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, examples: dict[str, list[dict[str, Any]]], data_dir: Path) -> None:
        self._examples = examples
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        def frames(dtype: Any) -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=(None,), dtype=dtype)

        features = {
            "id": tfds.features.Text(),
            "title": tfds.features.Text(),  # empty where the source has none
            "group": tfds.features.Text(),
            "meter": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "pickup": tfds.features.Scalar(np.float32),
            "melody_pitch": frames(np.int16),
            "melody_onset": frames(np.bool_),
            "chord_root": frames(np.int8),
            "chord_intervals": frames(np.int16),
            "chord_onset": frames(np.bool_),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split, found in self._examples.items() if found}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self._examples[split])


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where the songs of a dataset come from: a song file, or None for the built-in generator."""

    name: str
    file: Path | None

    @property
    def fingerprint(self) -> str:
        """12 hex digits of the source: file bytes or generator parameters, and how frames are made."""
        text = f"frames {FRAMES_VERSION} "
        if self.file is None:
            return hashlib.sha256((text + grammar.fingerprint_text(self.name)).encode()).hexdigest()[:12]
        digest = hashlib.sha256(text.encode())
        try:
            with self.file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"{self.file} cannot be read ({error.strerror}): check the path and its rights") from error
        return digest.hexdigest()[:12]

    def songs(self) -> Iterator[Song | Rejected]:
        return grammar.generate(self.name) if self.file is None else read_songs(self.file)


def dataset_files(folder: Path) -> dict[str, Path]:
    """Song files of a folder by dataset name (the file stem)."""
    found: dict[str, Path] = {}
    for ending in reversed(FILE_ENDINGS):  # a .jsonl.gz goes before a .jsonl of the same name
        found |= {path.name.removesuffix(ending): path for path in sorted(folder.glob(f"*{ending}"))}
    return dict(sorted(found.items()))


def _list_names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def find_source(name: str, source: str | Path) -> _Source:
    """Where dataset `name` comes from; a built-in set is found unless the folder has a file of its name."""
    if str(source) == BUILT_IN:
        if name in grammar.DATASETS:
            return _Source(name, None)
        raise UserError(
            f"dataset '{name}' is not built in (built in: {_list_names(grammar.DATASETS)}): "
            f"add --set data.songs=FOLDER, or run `gapt data prepare {name} --songs FOLDER`, "
            f"with the folder that holds {name}.jsonl.gz"
        )
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder} (looked for {name}.jsonl.gz in it): name the folder that holds "
            f"the song files with --set data.songs=FOLDER or `gapt data prepare {name} --songs FOLDER`"
        )
    files = dataset_files(folder)
    if name in files:
        return _Source(name, files[name])
    if name in grammar.DATASETS:
        return _Source(name, None)
    raise UserError(
        f"there is no {folder / name}.jsonl.gz (datasets in that folder: {_list_names(files)}): choose "
        f"one of them, or name another folder with --set data.songs=FOLDER or "
        f"`gapt data prepare {name} --songs FOLDER`"
    )


def _example(song: Song, frames: Frames) -> dict[str, Any]:
    return {
        "id": song.id,
        "title": song.title or "",
        "group": song.group,
        "meter": np.array(song.meter, np.int32),
        "pickup": song.pickup,
        "melody_pitch": frames.melody_pitch,
        "melody_onset": frames.melody_onset,
        "chord_root": frames.chord_root,
        "chord_intervals": frames.chord_intervals,
        "chord_onset": frames.chord_onset,
    }


@dataclasses.dataclass
class _Collected:
    examples: dict[str, list[dict[str, Any]]]
    rejected: list[Rejected]
    rejected_total: int = 0
    beats: float = 0.0
    notes: int = 0
    off_grid_notes: int = 0


def _collect(source: _Source, on_progress: Progress | None) -> _Collected:
    collected = _Collected({split: [] for split in SPLITS}, [])
    done = 0
    for item in source.songs():
        if isinstance(item, Rejected):
            collected.rejected_total += 1
            if len(collected.rejected) < MAX_REPORTED:
                collected.rejected.append(item)
            continue
        collected.examples[item.split].append(_example(item, to_frames(item)))
        collected.beats += item.beats_total
        collected.notes += len(item.melody)
        collected.off_grid_notes += count_off_grid(item)
        done += 1
        if on_progress is not None and done % 500 == 0:
            on_progress(f"reading {source.name}", done, None)
    return collected


def _check_not_empty(source: _Source, collected: _Collected) -> None:
    if not any(collected.examples.values()):
        where = source.file or "the built-in generator"
        first = collected.rejected[0] if collected.rejected else None
        reason = f"the first reason, on line {first.line}: {first.reason}" if first else "it has no lines"
        raise UserError(f"no song of {where} could be used ({reason}): `gapt data check {where}` lists all faults")


def _report(source: _Source, collected: _Collected, fingerprint: str) -> dict[str, Any]:
    examples = collected.examples
    metres = collections.Counter("{}/{}".format(*e["meter"]) for split in examples.values() for e in split)
    return {
        "name": source.name,
        "source": str(source.file or BUILT_IN),
        "source_fingerprint": source.fingerprint,
        "fingerprint": fingerprint,
        "songs": {split: len(examples[split]) for split in SPLITS},
        "beats": round(collected.beats, 3),
        "notes": collected.notes,
        "off_grid_share": round(collected.off_grid_notes / collected.notes, 6),
        "metres": dict(metres.most_common()),
        "rejected_total": collected.rejected_total,
        "rejected": [dataclasses.asdict(item) for item in collected.rejected],
    }


def _write(source: _Source, collected: _Collected, folder: Path) -> None:
    """Writes the whole dataset into an empty folder, and reads the records back into the flat copy."""
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints; stdout belongs to the command
        tfds.disable_progress_bar()
        try:
            SongFrames(examples=collected.examples, data_dir=folder).download_and_prepare()
        except RuntimeError as error:  # how array_record reports a full disk
            raise OSError(str(error).partition(";")[0]) from error
    shutil.rmtree(folder / "downloads", ignore_errors=True)  # TFDS makes it and leaves it empty
    splits = {split: store.read_records(folder, split) for split in SPLITS}
    store.write_flat(folder, splits)
    report = _report(source, collected, store.fingerprint(splits))
    (folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a prepared dataset."""
    try:
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / REPORT} is damaged: delete the folder {folder} and prepare it again") from error


def open_splits(prepared: PreparedDataset) -> dict[str, store.SplitFrames]:
    """All songs of a prepared dataset by split."""
    try:
        return store.load(prepared.path, prepared.fingerprint)
    except Exception as error:  # the record readers raise errors of many kinds, RuntimeError among them
        raise UserError(
            f"the prepared dataset {prepared.path} is damaged: delete that folder and run "
            f"`gapt data prepare {prepared.name}` with the same songs again"
        ) from error


def prepared_path(name: str, source: str | Path, data_dir: Path) -> Path:
    """Folder of the prepared dataset for the present state of its source (it may not exist yet)."""
    return data_dir / f"{name}-{find_source(name, source).fingerprint}"


def _publish(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
    except OSError:
        if not (final / REPORT).is_file():  # otherwise another process was quicker and made the same
            raise


def prepare(name: str, source: str | Path, data_dir: Path, on_progress: Progress | None = None) -> PreparedDataset:
    """Prepares one dataset unless that was done already for the same source; nothing is ever overwritten.

    `source` is a folder of song files or the word "grammar".
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' is no dataset name: use letters, digits, '_', '-' and '.'")
    found = find_source(name, source)
    try:
        final = data_dir / f"{name}-{found.fingerprint}"
        if not (final / REPORT).is_file():
            _prepare_new(found, final, on_progress)
        return PreparedDataset(name, final, read_report(final))
    except OSError as error:
        raise UserError(
            f"dataset '{name}' cannot be prepared in {data_dir} ({error.strerror or error}): "
            f"free some space there or choose a folder that you may write to"
        ) from error


def _prepare_new(source: _Source, final: Path, on_progress: Progress | None) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    collected = _collect(source, on_progress)
    _check_not_empty(source, collected)
    total = sum(map(len, collected.examples.values()))
    if on_progress is not None:
        on_progress(f"writing {source.name}", 0, total)
    temporary = Path(tempfile.mkdtemp(prefix=f".preparing-{source.name}-", dir=final.parent))
    try:
        _write(source, collected, temporary)
        temporary.chmod(0o755)  # mkdtemp makes a private folder
        _publish(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if on_progress is not None:
        on_progress(f"prepared {source.name}", total, total)
