"""Preparation: songs of one source become a TFDS dataset of frames in array_record files. No TensorFlow.

Beside what `preparing` says, a prepared dataset of songs has ``frames.npz``: the frames as flat arrays, derived from
the records for quick opening (`store`).
"""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gapt_jax.data_pipeline import grammar, hygiene, store, upstream
from gapt_jax.data_pipeline.examples import SPLITS, Rejected
from gapt_jax.data_pipeline.importers.folder import ENDINGS
from gapt_jax.data_pipeline.preparing import (
    MAX_REPORTED,
    REPORT,
    PreparedDataset,
    Progress,
    check_name,
    damage_named,
    prepare_once,
    publish,
    write_records,
    write_report,
)
from gapt_jax.data_pipeline.songs import FILE_ENDINGS, Frames, Song, count_off_grid, to_frames
from gapt_jax.data_pipeline.sources import BUILT_IN, Source, find_source, is_without_songs, missing_from, names_in
from gapt_jax.errors import UserError


class SongDataset(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Frames of songs (`songs.Frames`) with their id, title, group, meter and pickup.

    Without `collected` songs the builder finds its own: in the folder of its name in TFDS's `manual_dir`, else in the
    public archive, else in the generator.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, collected: Collected | None = None, data_dir: str | Path | None = None):
        self._collected = collected
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        known = upstream.UPSTREAM.get(self.name)
        about = (
            {
                "description": known.title,
                "homepage": known.homepage,
                "citation": known.citation,
                "license": known.licence,
            }
            if known
            else {"description": "Melodies and chords on a sixteenth-note frame grid"}
        )
        return tfds.core.DatasetInfo(builder=self, features=store.features(), disable_shuffling=True, **about)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        collected = self._collected or self._found(dl_manager)
        return {split: self._generate_examples(found) for split, found in collected.examples.items() if found}

    def _found(self, dl_manager: Any) -> Collected:
        manual = Path(dl_manager._manual_dir)  # the public property raises where there is no such folder
        if manual.is_dir():
            source = find_source(self.name, manual)
        elif self.name in upstream.UPSTREAM:
            source = Source(self.name, None, manual / self.name)
        else:
            source = find_source(self.name, BUILT_IN)
        return collect(_fetched(source, dl_manager) if source.place else source)

    def _generate_examples(self, examples: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(examples)


class Nottingham(SongDataset):
    """Folk tunes in ABC."""


class Pop909(SongDataset):
    """Chinese pop songs in MIDI with chord labels."""


class Openewld(SongDataset):
    """Lead sheets in MusicXML, in the public domain."""


class Hooktheory(SongDataset):
    """Clips of pop songs, analysed by their listeners."""


class Grammar(SongDataset):
    """The built-in generator."""


class Songs(SongDataset):
    """Any other song file or folder of native files."""


_BUILDERS = {builder.name: builder for builder in (Nottingham, Pop909, Openewld, Hooktheory)}


def _builder(name: str) -> type[SongDataset]:
    return _BUILDERS.get(name) or (Grammar if name in grammar.DATASETS else Songs)


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
class Collected:
    """Songs of a source, by split, and what was noticed on the way."""

    source: Source
    examples: dict[str, list[dict[str, Any]]]
    rejected: list[Rejected]
    duplicates: list[hygiene.Duplicate] = dataclasses.field(default_factory=list)
    rejected_total: int = 0
    beats: float = 0.0
    notes: int = 0
    off_grid_notes: int = 0
    off_bars: int = 0  # songs whose chords seldom begin on a bar line


def collect(source: Source, on_progress: Progress | None = None) -> Collected:
    """Reads all songs of a source. Raises UserError where none can be used."""
    collected = Collected(source, {split: [] for split in SPLITS}, [])
    melodies = hygiene.Melodies()
    done = 0
    for item in source.songs():
        if isinstance(item, Rejected):
            collected.rejected_total += 1
            if len(collected.rejected) < MAX_REPORTED:
                collected.rejected.append(item)
            continue
        collected.examples[item.split].append(_example(item, to_frames(item)))
        melodies.add(source.name, item)
        collected.beats += item.beats_total
        collected.notes += len(item.melody)
        collected.off_grid_notes += count_off_grid(item)
        collected.off_bars += hygiene.is_off_bars(item)
        done += 1
        if on_progress is not None and done % 500 == 0:
            on_progress(f"reading {source.name}", done, None)
    if on_progress is not None and done >= 500:
        on_progress(f"reading {source.name}", done, None)
    collected.duplicates = melodies.duplicates()
    _check_not_empty(collected)
    return collected


def _check_not_empty(collected: Collected) -> None:
    if not any(collected.examples.values()):
        where = collected.source
        first = collected.rejected[0] if collected.rejected else None
        reason = f"the first reason, on line {first.line}: {first.reason}" if first else "it has no lines"
        raise UserError(f"no song of {where} could be used ({reason}): `gapt data check {where}` lists all faults")


def _report(source: Source, collected: Collected, fingerprint: str) -> dict[str, Any]:
    examples = collected.examples
    known = upstream.UPSTREAM.get(source.name)
    metres = collections.Counter("{}/{}".format(*e["meter"]) for split in examples.values() for e in split)
    return {
        "name": source.name,
        "source": str(source),
        "source_fingerprint": source.fingerprint,
        "fingerprint": fingerprint,
        "songs": {split: len(examples[split]) for split in SPLITS},
        "beats": round(collected.beats, 3),
        "notes": collected.notes,
        "off_grid_share": round(collected.off_grid_notes / collected.notes, 6),
        "metres": dict(metres.most_common()),
        "off_bars": collected.off_bars,
        "duplicates": len(collected.duplicates),
        "leaks": [hygiene.names(found) for found in collected.duplicates if found.is_leak][:MAX_REPORTED],
        "licence": known.licence if known else None,
        "citation": known.citation if known else None,
        "rejected_total": collected.rejected_total,
        "rejected": [dataclasses.asdict(item) for item in collected.rejected],
    }


def _write(source: Source, collected: Collected, folder: Path) -> None:
    """Writes the whole dataset into an empty folder, and reads the records back into the flat copy."""
    write_records(_builder(source.name), collected, folder)
    splits = {split: store.read_records(folder, split) for split in SPLITS}
    store.write_flat(folder, splits)
    write_report(folder, _report(source, collected, store.fingerprint(splits)))


def open_splits(prepared: PreparedDataset) -> dict[str, store.SplitFrames]:
    """All songs of a prepared dataset by split."""
    with damage_named(prepared):
        return store.load(prepared.path, prepared.fingerprint)


def prepared_path(name: str, source: str | Path, data_dir: Path) -> Path:
    """Folder of the prepared dataset for the present state of its source (it may not exist yet)."""
    return data_dir / f"{name}-{find_source(name, source).fingerprint}"


def check_present(names: Iterable[str], source: str | Path, data_dir: Path) -> None:
    """Raises UserError where a songs folder lacks some of these datasets and they are not prepared either.

    The message names the licence of a public one, and the command that fetches it: nothing is fetched unasked.
    """
    folder = Path(source).expanduser()
    if str(source) == BUILT_IN or not folder.is_dir():
        return
    missing = [
        name
        for name in missing_from(names, folder)
        if name not in upstream.UPSTREAM or not (prepared_path(name, source, data_dir) / REPORT).is_file()
    ]
    if not missing:
        return
    public = [name for name in missing if name in upstream.UPSTREAM]
    licences = ", ".join(f"{name}: {upstream.UPSTREAM[name].licence}" for name in public)
    command = f"gapt data prepare NAME --songs {folder} --data-dir {data_dir} --download"
    fetching = f"; `{command}` fetches a public one ({licences})"
    if is_without_songs(folder):
        endings = ", ".join((*FILE_ENDINGS, *ENDINGS))
        said = f"{folder} holds no songs: put some there ({endings}), or name another folder as data.songs"
    else:
        said = (
            f"{folder} has no {', '.join(missing)} (it has {names_in(folder)}): name what it has in data.mixture and "
            f"data.out_of_domain, or train on all of it with `gapt run own --set data.songs={folder}`"
        )
    raise UserError(f"{said}{fetching if public else ''}")


def prepare(
    name: str, source: str | Path, data_dir: Path, on_progress: Progress | None = None, download: bool = False
) -> PreparedDataset:
    """Prepares one dataset unless that was done already for the same source; nothing is ever overwritten.

    `source` is a folder of song files and folders of native files, or the word "grammar". A public archive is fetched
    only with `download`.
    """
    check_name(name)
    found = find_source(name, source)
    if found.place is not None and not download:
        check_present([name], source, data_dir)
    final = data_dir / f"{name}-{found.fingerprint}"
    return prepare_once(name, final, lambda: _prepare_new(found, final, on_progress), on_progress)


def _fetched(source: Source, dl_manager: Any) -> Source:
    """A public archive with its files at hand."""
    assert source.place is not None
    return dataclasses.replace(source, path=upstream.fetch(source.name, dl_manager, source.place))


def _prepare_new(source: Source, final: Path, on_progress: Progress | None) -> None:
    if source.place is not None:
        downloads = final.parent / "downloads"
        if on_progress is not None:
            on_progress(f"fetching {source.name}", 0, None)
        tfds.disable_progress_bar()
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of every attempt
        source = _fetched(source, tfds.download.DownloadManager(download_dir=downloads, dataset_name=source.name))
    collected = collect(source, on_progress)
    total = sum(map(len, collected.examples.values()))
    if on_progress is not None:
        on_progress(f"writing {source.name}", 0, total)
    publish(final, lambda folder: _write(source, collected, folder))
    if on_progress is not None:
        on_progress(f"prepared {source.name}", total, total)
