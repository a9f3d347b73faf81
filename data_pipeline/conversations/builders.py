"""Preparation: the conversations of one source become a TFDS dataset of segments in array_record files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gapt_jax.data_pipeline import preparing
from gapt_jax.data_pipeline.conversations.conversation import Conversation
from gapt_jax.data_pipeline.conversations.folder import Found, read
from gapt_jax.data_pipeline.conversations.rttm import MAX_SECONDS
from gapt_jax.data_pipeline.conversations.sources import find, fingerprint_of
from gapt_jax.data_pipeline.examples import SPLITS
from gapt_jax.data_pipeline.preparing import PreparedDataset, Progress
from gapt_jax.errors import UserError

Splits = dict[str, list[Conversation]]
_MICROSECOND = 1e-6
_COLUMNS = ("starts", "ends", "who", "is_vocal")


def features() -> tfds.features.FeaturesDict:
    """What a record of a prepared dataset holds: a `Conversation` without its split, times in whole microseconds, as
    TFDS keeps floats in 32 bits."""

    def segments(dtype: Any) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=(None,), dtype=dtype)

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "group": tfds.features.Text(),
            "length": tfds.features.Scalar(np.int64),
            "speakers": tfds.features.Sequence(tfds.features.Text()),
            "starts": segments(np.int64),
            "ends": segments(np.int64),
            "who": segments(np.int32),
            "is_vocal": segments(np.bool_),
        }
    )


class Conversations(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Who speaks when: the segments of each participant of conversations, in seconds.

    Without `collected` conversations the builder reads the files of TFDS's `manual_dir`.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, collected: Found | None = None, data_dir: str | Path | None = None):
        self._collected = collected
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        about = "Who speaks when in conversations"
        return tfds.core.DatasetInfo(builder=self, features=features(), disable_shuffling=True, description=about)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        splits = _by_split((self._collected or read(Path(dl_manager.manual_dir))).conversations)
        return {split: self._generate_examples(found) for split, found in splits.items() if found}

    def _generate_examples(self, conversations: list[Conversation]) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(map(_to_record, conversations))


def _by_split(conversations: list[Conversation]) -> Splits:
    return {split: [found for found in conversations if found.split == split] for split in SPLITS}


def _to_record(conversation: Conversation) -> dict[str, Any]:
    def microseconds(seconds: Any) -> Any:
        return np.rint(np.asarray(seconds) / _MICROSECOND).astype(np.int64)

    return {
        "id": conversation.id,
        "group": conversation.group,
        "length": microseconds(conversation.seconds),
        "speakers": list(conversation.speakers),
        "starts": microseconds(conversation.starts),
        "ends": microseconds(conversation.ends),
        "who": conversation.who,
        "is_vocal": conversation.is_vocal,
    }


def _of_record(record: dict[str, Any], split: str) -> Conversation:
    """Raises ValueError for what no file could have said."""
    counts = {len(record[column]) for column in _COLUMNS}
    who, length = record["who"], record["length"] * _MICROSECOND
    if len(counts) != 1 or not ((who >= 0) & (who < len(record["speakers"]))).all() or not 0 < length <= MAX_SECONDS:
        raise ValueError("a record holds no conversation")
    return Conversation(
        id=record["id"].decode("utf-8"),
        group=record["group"].decode("utf-8"),
        split=split,
        seconds=float(length),
        speakers=tuple(name.decode("utf-8") for name in record["speakers"]),
        starts=record["starts"] * _MICROSECOND,
        ends=record["ends"] * _MICROSECOND,
        who=who,
        is_vocal=record["is_vocal"],
    )


def fingerprint(splits: Splits) -> str:
    """12 hex digits that change with any segment, name, length or split."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split} {len(splits[split])}\n".encode())
        for found in splits[split]:
            names = (found.id, found.group, repr(found.seconds), *found.speakers)
            digest.update(f"{len(found.speakers)} {len(found.starts)} {' '.join(names)}\n".encode())
            for column in _COLUMNS:
                array = getattr(found, column)
                digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:12]


def _read_splits(folder: Path) -> Splits:
    return {
        split: [_of_record(record, split) for record in preparing.read_records(folder, split, features())]
        for split in SPLITS
    }


def _report(name: str, source: Path, found: Found, splits: Splits) -> dict[str, Any]:
    everything = found.conversations
    return {
        "name": name,
        "source": str(source),
        "source_fingerprint": fingerprint_of(source),
        "fingerprint": fingerprint(splits),
        "conversations": {split: len(splits[split]) for split in SPLITS},
        "hours": {split: round(sum(c.seconds for c in splits[split]) / 3600, 3) for split in SPLITS},
        "groups": len({c.group for c in everything}),
        "participants": sum(len(c.speakers) for c in everything),
        "segments": int(sum(np.count_nonzero(~c.is_vocal) for c in everything)),
        "vocal_sounds": int(sum(np.count_nonzero(c.is_vocal) for c in everything)),
        "skipped": dict(found.skipped.most_common()),
        "faults_total": found.faults.total,
        "faults": [dataclasses.asdict(fault) for fault in found.faults.kept],
    }


def prepare(name: str, source: str | Path, data_dir: Path, on_progress: Progress | None = None) -> PreparedDataset:
    """Prepares one dataset of a folder of conversations, unless that was done already for the same files."""
    preparing.check_name(name)
    path = find(name, source)
    final = data_dir / f"{name}-{fingerprint_of(path)}"
    return preparing.prepare_once(name, final, lambda: _prepare_new(name, path, final, on_progress), on_progress)


def _prepare_new(name: str, source: Path, final: Path, on_progress: Progress | None) -> None:
    def say(what: str, done: int, total: int | None) -> None:
        if on_progress is not None:
            on_progress(f"{what} {name}", done, total)

    say("reading", 0, None)
    found = read(source)
    total = len(found.conversations)
    say("reading", total, None)
    if not total:
        first = f"the first reason: {found.faults.kept[0].reason}" if found.faults.total else "there are no segments"
        raise UserError(f"no conversation of {source} could be used ({first}): `gapt data check {source}` lists all")
    say("writing", 0, total)

    def write(folder: Path) -> None:
        preparing.write_records(Conversations, found, folder)
        preparing.write_report(folder, _report(name, source, found, _read_splits(folder)))

    preparing.publish(final, write)
    say("prepared", total, total)


def open_splits(prepared: PreparedDataset) -> Splits:
    """All conversations of a prepared dataset by split. Raises UserError where they are not what was prepared."""
    with preparing.damage_named(prepared):
        splits = _read_splits(prepared.path)
        if fingerprint(splits) != prepared.fingerprint:
            raise ValueError("the records are not those of the report")
        return splits
