"""Hooktheory's analyses as JSON: a file of many clips in the schema of SheetSage's release, or one TheoryTab clip."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from gapt_jax.chords import Chord, fold
from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers.score import MAX_EVENTS, Score, chord_event
from gapt_jax.data_pipeline.songs import MAX_BEATS, BadSong, ChordEvent, Note

MIDDLE_C = 60  # octave 0 begins there
MAX_CLIP = 4 << 20  # characters
_DECODER = json.JSONDecoder()
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_SCALES = {
    "major": _MAJOR,
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "locrian": (0, 1, 3, 5, 6, 8, 10),
    "harmonicMinor": (0, 2, 3, 5, 7, 8, 11),
    "phrygianDominant": (0, 1, 4, 5, 7, 8, 10),
}
# Fields of a TheoryTab chord that are read, or that say nothing of its notes.
_READ = {"root", "type", "inversion", "applied", "borrowed", "adds", "omits", "alterations", "suspensions"}
_READ |= {"substitutions", "beat", "duration", "isRest"}
_SILENT = {"id", "recordingEndBeat"}


def clips(chunks: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """(key, value) of each member of the JSON object that the chunks of text make, never holding more than one.

    Raises BadSong where the text is no JSON object or a member is longer than `MAX_CLIP`.
    """
    reader = _Reader(chunks)
    if reader.next_sign() != "{":
        raise BadSong("the file is not a JSON object")
    sign = reader.next_sign()
    if sign == "}":
        return
    reader.put_back(sign)
    sign = ","
    while sign == ",":
        key = reader.value()
        if not isinstance(key, str) or reader.next_sign() != ":":
            raise BadSong("the file is not valid JSON")
        yield key, reader.value()
        sign = reader.next_sign()
    if sign != "}":
        raise BadSong("the file is not valid JSON")


class _Reader:
    """JSON values from chunks of text, one after the other."""

    def __init__(self, chunks: Iterable[str]):
        self._chunks = iter(chunks)
        self._text = ""

    def _more(self) -> bool:
        chunk = next(self._chunks, "")
        self._text += chunk
        return bool(chunk)

    def next_sign(self) -> str:
        self._text = self._text.lstrip(" \t\r\n\ufeff")
        while not self._text:
            if not self._more():
                raise BadSong("the file ends in mid-text")
            self._text = self._text.lstrip(" \t\r\n\ufeff")
        sign, self._text = self._text[0], self._text[1:]
        return sign

    def put_back(self, sign: str) -> None:
        self._text = sign + self._text

    def value(self) -> Any:
        self.put_back(self.next_sign())
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text)
                if end < len(self._text) or not self._more():  # a number may go on in the next chunk
                    self._text = self._text[end:]
                    return value
            except (ValueError, RecursionError) as error:
                if len(self._text) > MAX_CLIP or isinstance(error, RecursionError) or not self._more():
                    raise BadSong("the file is not valid JSON, or a clip is too long") from None


def read(chunks: Iterable[str], stem: str) -> Iterator[Score | Rejected]:
    """Scores of all clips. `stem` names a clip that has no name of its own.

    A clip that cannot be used is a `Rejected` (its line is its number in the file). Raises BadSong where the file
    as a whole is no JSON.
    """
    found = clips(chunks)
    first = next(found, None)
    if first is None:
        raise BadSong("it has no song")
    if not _is_entry(first[1]):
        yield theorytab(dict(itertools.chain([first], found)), stem)
        return
    for number, (name, entry) in enumerate(itertools.chain([first], found), start=1):
        try:
            yield sheetsage(entry, name, number)
        except BadSong as error:
            yield Rejected(stem, number, f"clip {name[:80]!r}: {error}")


def _is_entry(value: Any) -> bool:
    return isinstance(value, dict) and "annotations" in value


def _field(record: Any, name: str) -> Any:
    if not isinstance(record, dict) or name not in record:
        raise BadSong(f"'{name}' is missing")
    return record[name]


def _list(record: Any, name: str) -> list[Any]:
    value = _field(record, name)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_EVENTS:
        raise BadSong(f"'{name}' is not a list, or is too long")
    return value


def _number(record: Any, name: str, low: float, high: float) -> float:
    value = _field(record, name)
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise BadSong(f"'{name}' is not a number in {low:g}..{high:g}")
    return value


def _whole(record: Any, name: str, low: int, high: int) -> int:
    value = _number(record, name, low, high)
    if value != int(value):
        raise BadSong(f"'{name}' is not a whole number")
    return int(value)


def _span(event: Any, quarters: float) -> tuple[float, float]:
    onset, offset = (_number(event, name, 0, MAX_BEATS) * quarters for name in ("onset", "offset"))
    if offset <= onset:
        raise BadSong("an event does not end after it starts")
    return onset, offset


def sheetsage(entry: Any, name: str, number: int = 1) -> Score:
    """The score of one clip of a release. A beat is that of the metre; chords are root, steps and inversion.

    Raises BadSong with the reason.
    """
    notes_of, song = _field(entry, "annotations"), entry.get("hooktheory")
    meters = _list(notes_of, "meters")
    meter = (4, 4)
    if meters:
        meter = _whole(meters[0], "beats_per_bar", 1, 64), _whole(meters[0], "beat_unit", 1, 32)
    quarters = 4 / meter[1]
    melody = [
        Note(*_span(event, quarters), _pitch(12 * _whole(event, "octave", -6, 6) + _whole(event, "pitch_class", 0, 11)))
        for event in _list(notes_of, "melody")
    ]
    harmony = [_sheetsage_chord(event, quarters) for event in _list(notes_of, "harmony")]
    total = _number(notes_of, "num_beats", 0, MAX_BEATS) * quarters
    last = max([total] + [note.offset for note in melody] + [chord.offset for chord in harmony])
    title, artist = (song.get(field) if isinstance(song, dict) else None for field in ("song", "artist"))
    named = isinstance(title, str) and isinstance(artist, str)
    group = f"{artist}/{title}"[:500] if named else None  # sections of one song
    return Score(name, title if named else None, meter, 0, last, melody, harmony, number, group)


def _pitch(above_middle_c: int) -> int:
    if not 0 <= MIDDLE_C + above_middle_c <= 127:
        raise BadSong("a pitch lies outside the range of MIDI")
    return MIDDLE_C + above_middle_c


def _sheetsage_chord(event: Any, quarters: float) -> ChordEvent:
    root = _whole(event, "root_pitch_class", 0, 11)
    steps = _list(event, "root_position_intervals")
    if not all(type(step) is int and 0 < step < 24 for step in steps) or len(steps) > 12:
        raise BadSong("'root_position_intervals' are not steps of 1 to 23 semitones")
    tones = [0, *itertools.accumulate(steps)]
    inversion = _whole(event, "inversion", 0, 12)
    if inversion >= len(tones):
        raise BadSong("a chord has more inversions than notes")
    return chord_event(*_span(event, quarters), Chord(root, fold(tones), (root + tones[inversion]) % 12))


def theorytab(clip: Any, name: str) -> Score:
    """The score of a TheoryTab clip: scale degrees and functions in keys that may change. Beats count from 1, those
    of compound metres are eighths. Raises BadSong with the reason.
    """
    meters = _list(clip, "meters")
    meter, quarters = (4, 4), 1.0
    if meters:
        is_compound = _whole(meters[0], "beatUnit", 1, 3) == 3
        meter, quarters = (_whole(meters[0], "numBeats", 1, 64), 8 if is_compound else 4), 0.5 if is_compound else 1.0
    keys = sorted((_number(key, "beat", 0, MAX_BEATS), *_key(key)) for key in _list(clip, "keys")) or [(1, 0, _MAJOR)]

    def key_at(beat: float) -> tuple[int, tuple[int, ...]]:
        return next((key[1:] for key in reversed(keys) if key[0] <= beat), keys[0][1:])

    melody, harmony = [], []
    for event in _sounding(clip, "notes"):
        onset, duration = _number(event, "beat", 1, MAX_BEATS), _number(event, "duration", 0, MAX_BEATS)
        tonic, scale = key_at(onset)
        pitch = _pitch(12 * _whole(event, "octave", -4, 4) + tonic + _scale_degree(event, scale))
        melody.append(Note((onset - 1) * quarters, (onset - 1 + duration) * quarters, pitch))
    for event in _sounding(clip, "chords"):
        onset, duration = _number(event, "beat", 1, MAX_BEATS), _number(event, "duration", 0, MAX_BEATS)
        chord = _function(event, *key_at(onset))
        harmony.append(chord_event((onset - 1) * quarters, (onset - 1 + duration) * quarters, chord))
    last = max([note.offset for note in melody] + [chord.offset for chord in harmony], default=0.0)
    return Score(name, None, meter, 0, last, melody, harmony)


def _sounding(clip: Any, part: str) -> list[Any]:
    return [event for event in _list(clip, part) if not _field(event, "isRest") and _number(event, "duration", 0, 1e6)]


def _key(key: Any) -> tuple[int, tuple[int, ...]]:
    tonic, scale = _field(key, "tonic"), _field(key, "scale")
    if not isinstance(tonic, str) or not isinstance(scale, str) or scale not in _SCALES:
        raise BadSong("a key is not a tonic and a known scale")
    letter = tonic[:1]
    if letter not in tuple("CDEFGAB") or tonic[1:] not in ("", "b", "#", "bb", "##"):
        raise BadSong("a tonic is not a note name")
    natural = dict(zip("CDEFGAB", _MAJOR, strict=True))[letter]
    return (natural + tonic.count("#") - tonic.count("b")) % 12, _SCALES[scale]


def _scale_degree(event: Any, scale: tuple[int, ...]) -> int:
    """Semitones above the tonic of ``"5"``, ``"b3"``, ``"##4"``."""
    text = _field(event, "sd")
    if not isinstance(text, str) or text[-1:] not in tuple("1234567") or text[:-1] not in ("", "b", "#", "bb", "##"):
        raise BadSong("'sd' is not a scale degree")
    return scale[int(text[-1]) - 1] + text.count("#") - text.count("b")


def _options(event: Any, name: str, allowed: tuple[Any, ...]) -> list[Any]:
    values = _list(event, name)
    if any(value not in allowed for value in values):
        raise BadSong(f"'{name}' of a chord holds something else than {', '.join(map(str, allowed))}")
    return values


def _borrowed(event: Any, scale: tuple[int, ...]) -> tuple[int, ...]:
    borrowed = _field(event, "borrowed")
    if isinstance(borrowed, list):
        if len(borrowed) != 7 or not all(type(step) is int and -12 < step < 24 for step in borrowed):
            raise BadSong("'borrowed' is not a scale of seven notes")
        return tuple(borrowed)
    if borrowed and (not isinstance(borrowed, str) or borrowed not in _SCALES):
        raise BadSong("'borrowed' is not a known scale")
    return _SCALES[borrowed] if borrowed else scale


def _check_fields(event: dict[str, Any]) -> None:
    """Raises BadSong where a chord says more than is read here; a field without a value says nothing."""
    unknown = next((name for name, value in event.items() if name not in _READ | _SILENT and value), None)
    if unknown is not None:
        raise BadSong(f"a chord has the field {unknown[:40]!r}, which is not read and may change its notes")


def _function(event: Any, tonic: int, scale: tuple[int, ...]) -> Chord:
    """Thirds piled up on a scale degree. An applied chord is built in the major key of the degree that it leads to,
    its seventh diminished on the leading note. A tritone substitution moves the whole chord by six semitones.

    A suspended note stands where the third was, in the bass of the first inversion too. Alterations of one degree
    sound together.
    """
    scale = _borrowed(event, scale)
    _check_fields(event)
    root, applied = _whole(event, "root", 1, 7), _whole(event, "applied", 0, 7)
    if applied:
        tonic, root, scale = tonic + scale[root - 1], applied, _MAJOR
    size = _whole(event, "type", 5, 13)
    if size % 2 == 0:
        raise BadSong("'type' of a chord is not 5, 7, 9, 11 or 13")
    suspended = _options(event, "suspensions", (2, 4))
    left_out = {*_options(event, "omits", (3, 5)), *([3] if suspended else [])}
    degrees = {*range(1, size + 1, 2), *suspended, *_options(event, "adds", (4, 6, 9))} - left_out

    def above(number: int) -> int:
        step = root - 1 + number - 1
        return scale[step % 7] + 12 * (step // 7) - scale[root - 1] - (number == 7 and applied == 7)

    altered: dict[int, list[int]] = {}
    for alteration in _options(event, "alterations", ("b5", "#5", "b9", "#9", "#11", "b13")):
        number = int(alteration[1:])
        altered.setdefault(number, []).append(above(number) + (1 if alteration[0] == "#" else -1))
    tones = {number: [above(number)] for number in degrees} | altered
    pitch_class = (tonic + scale[root - 1]) % 12
    if "substitutions" in event and _options(event, "substitutions", ("tri",)):
        pitch_class = (pitch_class + 6) % 12
    inverted = 2 * _whole(event, "inversion", 0, 3) + 1
    in_bass = suspended if suspended and inverted == 3 else [inverted]
    basses = [step for number in in_bass for step in tones.get(number, [])]
    if len(basses) != 1:
        raise BadSong("a chord is inverted on a note that it has not, or on one of two")
    return Chord(pitch_class, fold(itertools.chain(*tones.values())), (pitch_class + basses[0]) % 12)
