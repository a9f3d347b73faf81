"""The song record, its checks, the reader of ``*.jsonl.gz`` files and the sixteenth-note frame grid.

Positions in a song are quarter-note beats from its start; frames are sixteenth notes (4 frames a beat).
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gapt_jax.chords import Chord, fold
from gapt_jax.chords import symbol as chord_symbol
from gapt_jax.data_pipeline.examples import SPLITS, Rejected
from gapt_jax.errors import UserError
from gapt_jax.midi import MAX_BEATS, Note
from gapt_jax.vocabulary import FRAMES_PER_BEAT

FILE_ENDINGS = (".jsonl.gz", ".jsonl")
MAX_TEXT = 1_000  # characters of an id, group or title
MAX_INTERVAL = 48  # semitones above the root
MAX_LINE_BYTES = 8 << 20
MAX_FILE_BYTES = 4 << 30  # after decompression
_POSITION_SLACK = 1e-6  # beats; positions are decimal numbers rounded by whoever wrote them
_NUMBERS = {int, float}


class ChordEvent(NamedTuple):
    """A chord: onset, offset in beats, root pitch class, semitones above the root, bass pitch class, text."""

    onset: float
    offset: float
    root: int
    intervals: tuple[int, ...]
    bass: int
    symbol: str


@dataclasses.dataclass(frozen=True)
class Song:
    """One song with both parts; `group` names the songs that must stay in one split."""

    id: str
    dataset: str
    title: str | None
    split: str
    group: str
    meter: tuple[int, int]
    pickup: float  # beats before the first bar line
    beats_total: float
    melody: tuple[Note, ...]
    chords: tuple[ChordEvent, ...]


class BadSong(ValueError):
    """A song record that cannot be used, with the reason."""


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """A song on the frame grid, free of any vocabulary. T frames; silence is -1 (-1 and 0 for chords)."""

    melody_pitch: np.ndarray  # [T] int16: MIDI pitch sounding, -1 none
    melody_onset: np.ndarray  # [T] bool: a note starts here
    chord_root: np.ndarray  # [T] int8: root pitch class, -1 none
    chord_intervals: np.ndarray  # [T] int16: bit i set where folded interval i belongs to the chord, 0 none
    chord_onset: np.ndarray  # [T] bool: a chord starts here

    def __len__(self) -> int:
        return len(self.melody_pitch)


def interval_mask(intervals: Sequence[int]) -> int:
    """``(0, 4, 7, 14)`` -> the 12-bit mask of the folded set ``{0, 2, 4, 7}``."""
    return sum(1 << step for step in fold(intervals))


def mask_intervals(mask: int) -> tuple[int, ...]:
    """The folded interval set of a 12-bit mask."""
    return tuple(step for step in range(12) if mask >> step & 1)


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise BadSong(reason)


def _text(record: dict[str, Any], field: str) -> str:
    value = record[field]
    _require(isinstance(value, str) and 0 < len(value) <= MAX_TEXT, f"'{field}' must be a short text")
    writable = "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
    _require(writable, f"'{field}' has a character that cannot be written")
    return value


def _number(record: dict[str, Any], field: str, low: float, high: float) -> float:
    value = record[field]
    _require(type(value) in _NUMBERS and low <= value <= high, f"'{field}' must be a number in {low:g}..{high:g}")
    return float(value)


def _meter(value: Any) -> tuple[int, int]:
    fits = isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)
    _require(fits and 1 <= value[0] <= 64 and value[1] in (1, 2, 4, 8, 16, 32), "'meter' must be [beats, unit]")
    return value[0], value[1]


def _check_positions(events: list[list[Any]], part: str, beats_total: float) -> None:
    flat = list(itertools.chain.from_iterable(event[:2] for event in events))
    _require(set(map(type, flat)) <= _NUMBERS, f"'{part}' has a position that is not a number")
    try:
        positions = np.array(flat, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise BadSong(f"'{part}' has a position that is not finite") from error
    onset, offset = positions.T
    _require(bool(np.isfinite(positions).all()), f"'{part}' has a position that is not finite")
    _require(onset[0] >= 0, f"'{part}' starts before beat 0")
    _require(bool((offset > onset).all()), f"'{part}' has an event that does not end after it starts")
    _require(bool((onset[1:] >= onset[:-1]).all()), f"'{part}' is not sorted by onset")
    _require(bool((onset[1:] >= offset[:-1] - _POSITION_SLACK).all()), f"'{part}' has events that overlap")
    _require(float(np.max(offset)) <= beats_total + _POSITION_SLACK, f"'{part}' goes on after 'beats_total'")


def _events(record: dict[str, Any], part: str, width: int, beats_total: float) -> list[list[Any]]:
    events = record[part]
    _require(isinstance(events, list) and bool(events), f"'{part}' must be a list with at least one event")
    shaped = all(isinstance(event, list) and len(event) == width for event in events)
    _require(shaped, f"'{part}' must hold lists of {width} values")
    _check_positions(events, part, beats_total)
    return events


def _melody(record: dict[str, Any], beats_total: float) -> tuple[Note, ...]:
    events = _events(record, "melody", 3, beats_total)
    _require(all(type(e[2]) is int and 0 <= e[2] <= 127 for e in events), "a pitch is not a whole number in 0..127")
    return tuple(itertools.starmap(Note, events))


def _check_intervals(intervals: Any) -> tuple[int, ...]:
    fits = isinstance(intervals, list) and bool(intervals) and all(type(step) is int for step in intervals)
    _require(fits and intervals[0] == 0, "the intervals of a chord must be whole numbers beginning with 0")
    ascending = all(low < high for low, high in itertools.pairwise(intervals))
    _require(
        ascending and intervals[-1] <= MAX_INTERVAL,
        f"the intervals of a chord must ascend, up to {MAX_INTERVAL}",
    )
    return tuple(intervals)


def _pitch_class(value: Any, what: str) -> int:
    _require(type(value) is int and 0 <= value < 12, f"the {what} of a chord is not a whole number in 0..11")
    return value


def _chords(record: dict[str, Any], beats_total: float) -> tuple[ChordEvent, ...]:
    checked = []
    for onset, offset, root, intervals, bass, symbol in _events(record, "chords", 6, beats_total):
        _require(isinstance(symbol, str) and len(symbol) <= MAX_TEXT, "the symbol of a chord is not a short text")
        steps = _check_intervals(intervals)
        checked.append(ChordEvent(onset, offset, _pitch_class(root, "root"), steps, _pitch_class(bass, "bass"), symbol))
    return tuple(checked)


def parse_song(record: Any) -> Song:
    """Checks one decoded JSON record; unknown fields are ignored. Raises BadSong with the first fault."""
    _require(isinstance(record, dict), "the line is not a JSON object")
    needed = [f.name for f in dataclasses.fields(Song) if f.name != "title"]
    missing = [field for field in needed if field not in record]
    _require(not missing, f"field {', '.join(repr(field) for field in missing)} is missing")
    title = None if record.get("title") is None else _text(record, "title")
    _require(record["split"] in SPLITS, "'split' must be train, valid or test")
    beats_total = _number(record, "beats_total", 0, MAX_BEATS)
    return Song(
        id=_text(record, "id"),
        dataset=_text(record, "dataset"),
        title=title,
        split=record["split"],
        group=_text(record, "group"),
        meter=_meter(record["meter"]),
        pickup=_number(record, "pickup", 0, MAX_BEATS),
        beats_total=beats_total,
        melody=_melody(record, beats_total),
        chords=_chords(record, beats_total),
    )


def to_record(song: Song) -> dict[str, Any]:
    """The JSON record of a song: what `parse_song` reads."""
    record = {field.name: getattr(song, field.name) for field in dataclasses.fields(Song)}
    chords = [[*chord[:3], list(chord.intervals), *chord[4:]] for chord in song.chords]
    return record | {"meter": list(song.meter), "melody": [list(note) for note in song.melody], "chords": chords}


def _parse_line(line: str) -> Song:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadSong("the line is not valid JSON") from error
    return parse_song(record)


def _lines(path: Path, stream: io.BufferedIOBase) -> Iterator[str]:
    total = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        total += len(line)
        if len(line) > MAX_LINE_BYTES or total > MAX_FILE_BYTES:
            what = "a line longer than 8 MiB" if len(line) > MAX_LINE_BYTES else "more than 4 GiB of text"
            raise UserError(f"{path} holds {what}, so it is no song file: give one JSON object a line")
        yield line.decode("utf-8")


def read_songs(path: Path) -> Iterator[Song | Rejected]:
    """Songs of a ``*.jsonl.gz`` or ``*.jsonl`` file in file order; a bad line is a `Rejected`, others go on.

    Raises UserError where the file as a whole cannot be read (corrupt or truncated archive, not UTF-8).
    """
    first_line: dict[str, int] = {}
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            for number, line in enumerate(_lines(path, stream), start=1):
                if not line.strip():
                    continue
                try:
                    song = _parse_line(line)
                    _require(
                        song.id not in first_line,
                        f"its id was used before, on line {first_line.get(song.id)}",
                    )
                except BadSong as error:
                    yield Rejected(path.name, number, str(error))
                else:
                    first_line[song.id] = number
                    yield song
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: write it anew as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is a damaged or truncated gzip file ({error}): fetch or write it anew") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}): check the path and its rights") from error


def to_frame(beats: np.ndarray | float) -> np.ndarray:
    """Nearest frame of a position in beats, halves up, int64."""
    return np.floor(np.asarray(beats, np.float64) * FRAMES_PER_BEAT + 0.5).astype(np.int64)


def _event_frames(events: Sequence[Note | ChordEvent]) -> tuple[np.ndarray, np.ndarray]:
    """First frame and end frame (exclusive) of each event: at least one frame, cut by the next onset.

    Of several events that start in one frame the last stays; the others get no frame.
    """
    positions = np.array([event[:2] for event in events], np.float64)
    start, end = to_frame(positions).T
    end = np.maximum(end, start + 1)
    end[:-1] = np.minimum(end[:-1], start[1:])
    return start, end


def _paint(length: int, start: np.ndarray, end: np.ndarray, values: np.ndarray, empty: int) -> np.ndarray:
    """[length] array with ``values[i]`` on frames ``start[i]..end[i]`` and `empty` elsewhere."""
    painted = np.full(length, empty, values.dtype)
    sizes = end - start
    offset_in_event = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    painted[np.repeat(start, sizes) + offset_in_event] = np.repeat(values, sizes)
    return painted


def _onsets(length: int, start: np.ndarray) -> np.ndarray:
    onset = np.zeros(length, bool)
    onset[start] = True
    return onset


def to_frames(song: Song) -> Frames:
    """A song on the sixteenth-note grid: positions rounded to the nearest frame, so a song has
    ``round(4 * beats_total)`` frames, and one more where its last event starts at the very end."""
    note_start, note_end = _event_frames(song.melody)
    chord_start, chord_end = _event_frames(song.chords)
    length = max(int(to_frame(song.beats_total)), int(note_end[-1]), int(chord_end[-1]))
    roots = np.array([chord.root for chord in song.chords], np.int8)
    masks = np.array([interval_mask(chord.intervals) for chord in song.chords], np.int16)
    return Frames(
        melody_pitch=_paint(length, note_start, note_end, np.array([n.pitch for n in song.melody], np.int16), -1),
        melody_onset=_onsets(length, note_start),
        chord_root=_paint(length, chord_start, chord_end, roots, -1),
        chord_intervals=_paint(length, chord_start, chord_end, masks, 0),
        chord_onset=_onsets(length, chord_start),
    )


def from_frames(frames: Frames) -> tuple[list[Note], list[ChordEvent]]:
    """The events of a song on the frame grid, as `to_frames` paints them; chords with their root in the bass."""

    def spans(values: np.ndarray, onset: np.ndarray, silence: int) -> list[tuple[int, int]]:
        sounds = values != silence
        starts = sounds & (onset | np.concatenate([[True], values[1:] != values[:-1]]))
        changes = np.flatnonzero(starts | ~sounds)
        ends = np.append(changes, len(values))
        return [
            (start, int(ends[np.searchsorted(ends, start, side="right")])) for start in np.flatnonzero(starts).tolist()
        ]

    melody = [
        Note(start / FRAMES_PER_BEAT, end / FRAMES_PER_BEAT, int(frames.melody_pitch[start]))
        for start, end in spans(frames.melody_pitch, frames.melody_onset, -1)
    ]
    harmony = []
    for start, end in spans(frames.chord_root, frames.chord_onset, -1):
        root, steps = int(frames.chord_root[start]), mask_intervals(int(frames.chord_intervals[start]))
        name = chord_symbol(Chord(root, steps, root))
        harmony.append(ChordEvent(start / FRAMES_PER_BEAT, end / FRAMES_PER_BEAT, root, steps, root, name))
    return melody, harmony


def count_off_grid(song: Song) -> int:
    """Number of notes that start off the sixteenth-note grid."""
    onsets = np.array([note.onset for note in song.melody]) * FRAMES_PER_BEAT
    return int(np.count_nonzero(np.abs(onsets - np.round(onsets)) > 1e-3))
