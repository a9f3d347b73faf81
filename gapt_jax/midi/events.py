"""The bytes of a MIDI file as the events of its tracks, read as players do. Pure: no files.

What a player passes over is passed over: bytes before the header (RIFF, MacBinary), chunks that are no tracks, a wrong
number of tracks, a wrong length of a track that says where it ends, meta events of any content, system messages. A
running status goes on after these.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

META = 0xFF
_HEADER_WITHIN = 1 << 12  # bytes before the header
_MAX_TRACKS = 1 << 16
_END_OF_TRACK = 0x2F
_SYSTEM_SIZES = {0xF1: 1, 0xF2: 2, 0xF3: 1}  # data bytes; the others have none
_LONGEST_NUMBER = 8  # bytes


class Event(NamedTuple):
    """A channel message, or a meta event: `status` is then META, `kind` its type. `data` may have any length there."""

    tick: int
    status: int
    kind: int
    data: bytes


class Tracks(NamedTuple):
    """What the chunks of a file hold; of each track its events and its last tick."""

    type: int
    division: int
    tracks: list[tuple[list[Event], int]]


class _Cut(Exception):
    """The file ends here."""


def read(content: bytes) -> Tracks:
    """All tracks of a file. Raises ValueError with the reason where it is none, or ends too early."""
    if not content:
        raise ValueError("it is empty")
    start = content.find(b"MThd", 0, _HEADER_WITHIN)
    if start < 0:
        raise _unreadable("it does not begin as one")
    if len(content) < start + 14:
        raise _unreadable("it ends in its header")
    size, type_, _, division = struct.unpack_from(">IHHH", content, start + 4)
    at, tracks = start + 8 + max(size, 6), list[tuple[list[Event], int]]()
    while (at := _next_track(content, at)) >= 0:
        if len(tracks) == _MAX_TRACKS:
            raise _unreadable(f"it has more than {_MAX_TRACKS} tracks")
        try:
            events, end, at = _track(content, at)
        except _Cut:
            raise _unreadable("it ends in mid-track") from None
        except ValueError as error:
            raise _unreadable(f"its track {len(tracks) + 1} is damaged: {error}") from None
        tracks.append((events, end))
    if not tracks:
        raise _unreadable("it has no tracks")
    return Tracks(type_, division, tracks)


def _unreadable(cause: str) -> ValueError:
    return ValueError(f"it is not a readable MIDI file ({cause})")


def _is_chunk(content: bytes, at: int) -> bool:
    return at + 8 <= len(content) and content[at : at + 4].isalnum()


def _next_track(content: bytes, at: int) -> int:
    """Where the next track begins, -1: nowhere. Other chunks are skipped, where they fit into the file."""
    while _is_chunk(content, at) and content[at : at + 4] != b"MTrk":
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "big")
        if end > len(content):
            break
        at = end
    found = content.find(b"MTrk", at)
    return found if found + 8 <= len(content) else -1


def _number(content: bytes, at: int) -> tuple[int, int]:
    """(a number of variable length, where it ends)."""
    value = 0
    for place in range(at, at + _LONGEST_NUMBER):
        byte = content[place]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + 1
    raise ValueError("a number in it has no end")


def _track(content: bytes, start: int) -> tuple[list[Event], int, int]:
    """(events of the track whose chunk begins at `start`, its last tick, where its chunk ends)."""
    at = start + 8
    end = at + int.from_bytes(content[start + 4 : at], "big")
    events: list[Event] = []
    tick, status = 0, 0
    try:
        while at != end or not (at == len(content) or _is_chunk(content, at)):
            delta, at = _number(content, at)
            tick, byte = tick + delta, content[at]
            if byte == META:
                kind = content[at + 1]
                size, at = _number(content, at + 2)
                if kind == _END_OF_TRACK:
                    is_right = at <= end <= len(content) and not content.startswith(b"MTrk", at)
                    return events, tick, end if is_right else at
                at += size
                if at > len(content):
                    raise _Cut
                events.append(Event(tick, META, kind, content[at - size : at]))
            elif byte >= 0xF0:
                size, at = _number(content, at + 1) if byte in (0xF0, 0xF7) else (_SYSTEM_SIZES.get(byte, 0), at + 1)
                at += size
            else:
                if byte >= 0x80:
                    status, at = byte, at + 1
                elif not status:
                    raise ValueError("it begins with data of no event")
                size = 1 if status >> 4 in (0xC, 0xD) else 2
                at += size
                if at > len(content):
                    raise _Cut
                events.append(Event(tick, status, 0, content[at - size : at]))
    except IndexError:
        raise _Cut from None
    return events, tick, end
