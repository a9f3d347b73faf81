"""NIST's RTTM (who speaks when) and UEM (how long a recording is), a line at a time, gzipped or not.

A fault of a line is noted and the line left out; after a fault of the file as a whole nothing of it is used.
"""

from __future__ import annotations

import collections
import dataclasses
import gzip
import io
import itertools
import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.preparing import MAX_REPORTED

MAX_HOURS = 24  # of a recording
MAX_SECONDS = 3600.0 * MAX_HOURS
MAX_LINES = 5_000_000  # of a file
MAX_BYTES = 1 << 30  # of a file after decompression
MAX_LINE_BYTES = 4096
MAX_NAME = 200  # characters
SPEAKER = "SPEAKER"
OTHER_TYPES = {
    "NOSCORE", "NO_RT_METADATA", "SEGMENT", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU", "CB",
    "A/P", "SPKR-INFO", "END",
}  # fmt: skip  # of NIST, and the END of ESPnet: skipped and counted
_COLUMNS = (9, 10)  # older files have no last one
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BYTE_ORDER_MARK = "\ufeff".encode()


class Faults:
    """What is wrong with files; of very many the first are kept, and all are counted."""

    def __init__(self) -> None:
        self.kept: list[Rejected] = []
        self.total = 0

    def add(self, file: str, line: int, reason: str) -> None:
        self.total += 1
        if len(self.kept) < MAX_REPORTED:
            self.kept.append(Rejected(file, line, reason))


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """Segments of one speaker of a recording, in the order of the lines of a file: start and end in seconds."""

    starts: array[float]
    ends: array[float]
    lines: array[int]


def _empty_track() -> Track:
    return Track(array("d"), array("d"), array("q"))


Recordings = dict[str, dict[str, Track]]  # by the names of the recording and the speaker


class Region(NamedTuple):
    """The part of a recording that is annotated, in seconds, and the line that says so."""

    start: float
    end: float
    line: int


class _BadLine(ValueError):
    """A line that cannot be used, with the reason."""


class _BadFile(ValueError):
    """A file that cannot be used, with the reason."""


def read_rttm(path: Path, faults: Faults, skipped: collections.Counter[str]) -> Recordings:
    """The segments of an RTTM file; `skipped` counts records of other types."""
    found: Recordings = collections.defaultdict(lambda: collections.defaultdict(_empty_track))

    def take(number: int, fields: list[bytes]) -> None:
        kind = _shown(fields[0])
        if kind in OTHER_TYPES:
            skipped[kind] += 1
            return
        if kind != SPEAKER:
            raise _BadLine(f"'{kind}' is no type of RTTM record")
        if len(fields) not in _COLUMNS:
            raise _BadLine(f"it has {len(fields)} columns: a SPEAKER line has {_COLUMNS[0]} or {_COLUMNS[1]}")
        start, end = _times(fields[3], fields[4])
        recording, speaker = _name(fields[1], "recording"), _name(fields[7], "speaker")
        track = found[recording][speaker]
        track.starts.append(start)
        track.ends.append(end)
        track.lines.append(number)

    return found if _each_line(path, take, faults) else {}


def read_uem(path: Path, faults: Faults) -> dict[str, Region]:
    """The length of each recording that a UEM file names."""
    found: dict[str, Region] = {}

    def take(number: int, fields: list[bytes]) -> None:
        if len(fields) != 4:
            raise _BadLine(f"it has {len(fields)} columns: a UEM line has 4 (recording, channel, start, end)")
        name = _name(fields[0], "recording")
        start, end = _seconds(fields[2], "start"), _seconds(fields[3], "end")
        if end <= start:
            raise _BadLine(f"it ends at {end:.9g} s, which is not after its start")
        if name in found:
            raise _BadLine(f"'{name}' was given on line {found[name].line}: one stretch of a recording can be used")
        found[name] = Region(start, end, number)

    return found if _each_line(path, take, faults) else {}


def _each_line(path: Path, take: Callable[[int, list[bytes]], None], faults: Faults) -> bool:
    """Gives the fields of every line that has some to `take`; False where the file cannot be used."""
    number = 0
    try:
        for number, line in _lines(path):
            fields = line.split()
            if fields and not fields[0].startswith(b";;"):
                try:
                    take(number, fields)
                except _BadLine as error:
                    faults.add(path.name, number, str(error))
    except _BadFile as error:
        faults.add(path.name, number + 1, f"{error}; nothing of this file is used")
        return False
    except UnicodeDecodeError:
        faults.add(path.name, number, "it is not UTF-8 text: save it as UTF-8; nothing of this file is used")
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _open(path) as raw:
            is_gzip = path.name.endswith(".gz")
            yield from _bounded_lines(io.BufferedReader(gzip.GzipFile(fileobj=raw)) if is_gzip else raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _BadFile(f"it is a damaged or truncated gzip file ({error})") from None
    except OSError as error:
        raise _BadFile(f"it cannot be read ({error.strerror or error})") from None


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _bounded_lines(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    total = 0
    for number in itertools.count(1):
        line = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        total += len(line)
        if b"\0" in line:
            raise _BadFile("it is not UTF-8 text: save it as UTF-8")
        if len(line) > MAX_LINE_BYTES:
            raise _BadFile(f"it has a line of more than {MAX_LINE_BYTES} bytes")
        if number > MAX_LINES or total > MAX_BYTES:
            raise _BadFile(f"it has more than {MAX_LINES:,} lines or {MAX_BYTES >> 30} GiB of text")
        yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line


def _shown(field: bytes) -> str:
    """A field, short and printable, for a message."""
    text = field[:40].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _name(field: bytes, what: str) -> str:
    text = field.decode("utf-8")
    if text == "<NA>" or len(text) > MAX_NAME or not text.isprintable():
        raise _BadLine(f"'{_shown(field)}' is no name of a {what}")
    return text


def _seconds(field: bytes, what: str) -> float:
    if not _NUMBER.fullmatch(field):
        raise _BadLine(f"its {what} '{_shown(field)}' is no number of seconds")
    value = float(field)
    if value < 0:
        raise _BadLine(f"its {what} is {value:.9g} s: it must not be negative")
    if value > MAX_SECONDS:
        raise _BadLine(f"its {what} is {value:.9g} s: a recording may have {MAX_HOURS} hours, in seconds")
    return value


def _times(start_field: bytes, duration_field: bytes) -> tuple[float, float]:
    start, duration = _seconds(start_field, "start"), _seconds(duration_field, "duration")
    if duration == 0:
        raise _BadLine("its duration is 0 s")
    if start + duration > MAX_SECONDS:
        raise _BadLine(f"it ends at {start + duration:.9g} s: a recording may have {MAX_HOURS} hours, in seconds")
    return start, start + duration
