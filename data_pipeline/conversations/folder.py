"""The conversations of an RTTM file, or of all RTTM and UEM files of a folder.

A file named after a split (``train.rttm``, ``dev.words.rttm.gz``) holds the conversations of that split; else a hash of
the group of a conversation decides. ``X.words_and_vocal_sounds.rttm`` beside ``X.words.rttm`` holds the same speech and
vocal sounds: what of it the other one lacks is a vocal sound. A UEM file says how long recordings are; without one a
recording ends with its last segment.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gapt_jax.data_pipeline.conversations.conversation import Conversation, group_of, without
from gapt_jax.data_pipeline.conversations.rttm import Faults, Recordings, Region, Track, read_rttm, read_uem
from gapt_jax.data_pipeline.examples import SPLITS, split_of
from gapt_jax.errors import UserError

SPEECH_ENDINGS = (".rttm", ".rttm.gz")
UEM_ENDINGS = (".uem", ".uem.gz")
MAX_SPEAKERS = 100
_VOCAL = ".words_and_vocal_sounds"
_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "dev": "valid", "development": "valid", "valid": "valid", "validation": "valid",
    "test": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_SLACK = 0.05  # seconds by which segments may overlap or pass the end, as rounded times do


class _Place(NamedTuple):
    """A recording in a file."""

    file: str
    speakers: dict[str, Track]

    @property
    def line(self) -> int:
        return min(track.lines[0] for track in self.speakers.values())


@dataclasses.dataclass
class Found:
    """What reading gave: conversations, what is wrong, and how many records of other types were skipped."""

    conversations: list[Conversation]
    faults: Faults
    skipped: collections.Counter[str]


def source_files(path: Path) -> list[Path]:
    """The files that are read: the one, or those directly in a folder, in the order of their names."""
    if not path.is_dir():
        return [path]
    endings = SPEECH_ENDINGS + UEM_ENDINGS
    return sorted((f for f in path.iterdir() if f.name.endswith(endings) and f.is_file()), key=lambda file: file.name)


def has_conversations(path: Path) -> bool:
    """Whether there are RTTM files."""
    return any(file.name.endswith(SPEECH_ENDINGS) for file in source_files(path))


def read(path: Path) -> Found:
    """Raises UserError where the files of a folder do not go together."""
    files = source_files(path)
    found = Found([], Faults(), collections.Counter())
    speech, vocal = _sorted_files(files)
    regions: dict[str, Region] = {}
    for file in files:
        if file.name.endswith(UEM_ENDINGS):
            for name, region in read_uem(file, found.faults).items():
                if regions.setdefault(name, region)[:2] != region[:2]:
                    found.faults.add(file.name, region.line, f"another file gives '{name}' another length")
    sounds = _recordings(vocal, found)
    conversations = []
    for name, place in _recordings(speech, found).items():
        split = _split_of_file(Path(place.file)) or split_of(group_of(name))
        made = _conversation(name, split, place, sounds.pop(name, None), regions.get(name), found.faults)
        conversations += [(place, made)] if made else []
    for name, place in sounds.items():
        found.faults.add(place.file, place.line, f"'{name}' has vocal sounds, but no file with its words names it")
    found.conversations = list(_without_leaks(conversations, found.faults))
    found.faults.kept.sort(key=lambda fault: (fault.file, fault.line))
    return found


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[0]


def _split_of_file(file: Path) -> str | None:
    return _SPLIT_NAMES.get(file.name.partition(".")[0].lower())


def _sorted_files(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """RTTM files of speech, and those with vocal sounds too."""
    rttm = [file for file in files if file.name.endswith(SPEECH_ENDINGS)]
    vocal = [file for file in rttm if _stem(file).endswith(_VOCAL)]
    speech = [file for file in rttm if file not in vocal]
    stems = {_stem(file) for file in speech}
    for file in vocal:
        partner = _stem(file).removesuffix(_VOCAL) + ".words"
        if partner not in stems:
            raise UserError(f"{file} needs {partner}.rttm beside it, to tell vocal sounds from speech")
    named = [file for file in speech if _split_of_file(file)]
    if named and len(named) < len(speech):
        other = next(file for file in speech if file not in named)
        raise UserError(
            f"{named[0].name} of {named[0].parent} is named after a split and {other.name} is not: name all files so, "
            "as in train.rttm, dev.rttm and test.rttm, or none"
        )
    return speech, vocal


def _recordings(files: Iterable[Path], found: Found) -> dict[str, _Place]:
    """Recordings by name; of one that is in several files the first stays."""
    places: dict[str, _Place] = {}
    for file in files:
        recordings: Recordings = read_rttm(file, found.faults, found.skipped)
        for name, speakers in recordings.items():
            place = _Place(file.name, speakers)
            if name in places:
                reason = f"'{name}' is in {places[name].file} too: what is here is left out"
                found.faults.add(file.name, place.line, reason)
            else:
                places[name] = place
    return places


def _conversation(
    name: str, split: str, place: _Place, sounds: _Place | None, region: Region | None, faults: Faults
) -> Conversation | None:
    """None, and a fault, where it cannot be used."""
    heard: Mapping[str, Track] = sounds.speakers if sounds else {}
    speakers = tuple(sorted({*place.speakers, *heard}))
    if not 2 <= len(speakers) <= MAX_SPEAKERS:
        what = "one speaker" if len(speakers) == 1 else f"{len(speakers)} speakers"
        faults.add(place.file, place.line, f"'{name}' has {what}: a conversation has 2 to {MAX_SPEAKERS}")
        return None
    ends = [max(track.ends) for track in (*place.speakers.values(), *heard.values())]
    start, end = region[:2] if region else (0.0, max(ends))
    parts = []
    for number, speaker in enumerate(speakers):
        speech = _cleaned(place, speaker, start, end, faults)
        vocal = without(*_cleaned(sounds, speaker, start, end, faults), *speech) if sounds else None
        for is_vocal, pieces in enumerate([speech, vocal] if vocal else [speech]):
            count = len(pieces[0])
            parts.append((*pieces, np.full(count, number, np.int32), np.full(count, bool(is_vocal))))
    starts, ends_of, who, vocal_flags = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not len(starts):
        faults.add(place.file, place.line, f"'{name}' has no segment within its length: left out")
        return None
    order = np.lexsort((who, starts))
    columns = (starts[order] - start, ends_of[order] - start, who[order], vocal_flags[order])
    return Conversation(name, group_of(name), split, end - start, speakers, *columns)


def _cleaned(place: _Place, speaker: str, start: float, end: float, faults: Faults) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) of the segments of a speaker: within the recording, in order, those that overlap joined."""
    track = place.speakers.get(speaker)
    if track is None:
        return np.zeros(0), np.zeros(0)
    starts, ends, lines = np.array(track.starts), np.array(track.ends), np.array(track.lines)
    for n in np.flatnonzero((ends > end + _SLACK) | (starts < start - _SLACK)):
        reason = f"it lasts from {starts[n]:.9g} to {ends[n]:.9g} s, the recording from {start:.9g} to {end:.9g} s: cut"
        faults.add(place.file, int(lines[n]), reason)
    starts, ends = np.clip(starts, start, end), np.clip(ends, start, end)
    order = np.argsort(starts, kind="stable")
    reached = np.maximum.accumulate(ends[order])
    for n in np.flatnonzero(starts[order][1:] < reached[:-1] - _SLACK) + 1:
        faults.add(place.file, int(lines[order[n]]), f"'{speaker}' speaks there already: the two are joined")
    return without(starts, ends, np.zeros(0), np.zeros(0))


def _without_leaks(found: list[tuple[_Place, Conversation]], faults: Faults) -> Iterator[Conversation]:
    """Leaves out conversations whose group is in a split that is held out further too."""
    furthest: dict[str, int] = {}
    for _, conversation in found:
        number = SPLITS.index(conversation.split)
        furthest[conversation.group] = max(furthest.get(conversation.group, 0), number)
    for place, conversation in found:
        other = SPLITS[furthest[conversation.group]]
        if other == conversation.split:
            yield conversation
        else:
            reason = (
                f"'{conversation.id}' belongs to the group '{conversation.group}', which is in {other} too: left out"
            )
            faults.add(place.file, place.line, reason)
