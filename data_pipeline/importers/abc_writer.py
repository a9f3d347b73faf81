"""Songs as an ABC tune book."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from gapt_jax.data_pipeline.songs import ChordEvent, Note, Song, from_frames, to_frames
from gapt_jax.vocabulary import FRAMES_PER_BEAT

_SPELLINGS = ("=C", "^C", "=D", "^D", "=E", "=F", "^F", "=G", "^G", "=A", "^A", "=B")
_BARS_A_LINE = 4


def write(songs: Iterable[Song]) -> str:
    """A tune book of songs as the models hear them: on the sixteenth-note frame grid, roots in the bass."""
    return "\n".join(_tune(number, song) for number, song in enumerate(songs, start=1))


def _tune(number: int, song: Song) -> str:
    title = "".join(letter if letter.isprintable() else " " for letter in song.title or song.id).replace("%", r"\%")
    head = f"X:{number}\nT:{title}\nM:{song.meter[0]}/{song.meter[1]}\nL:1/16\nK:none\n"
    frames = to_frames(song)
    bar = max(1, 4 * FRAMES_PER_BEAT * song.meter[0] // song.meter[1])
    first = round(song.pickup * FRAMES_PER_BEAT) % bar or bar
    bars = [0, *range(first, len(frames), bar), len(frames)]
    texts = _bars(*from_frames(frames), bars)
    return head + "".join(
        text + (" |\n" if index % _BARS_A_LINE == 0 or index == len(texts) else " | ")
        for index, text in enumerate(texts, start=1)
    )


def _frame(position: float) -> int:
    return round(position * FRAMES_PER_BEAT)


def _bars(melody: Sequence[Note], harmony: Sequence[ChordEvent], bars: Sequence[int]) -> list[str]:
    """The music between bar lines, which stand at frames `bars`: notes and rests are cut where anything changes."""
    symbols = {_frame(chord.offset): "N.C." for chord in harmony if _frame(chord.offset) < bars[-1]}
    symbols |= {_frame(chord.onset): chord.symbol for chord in harmony}
    notes = {_frame(note.onset): note for note in melody}
    ends = {_frame(note.offset) for note in melody}
    cuts = sorted({*bars, *symbols, *notes, *ends})
    starts = set(bars)
    texts: list[list[str]] = []
    sounding: Note | None = None
    for start, end in itertools.pairwise(cuts):
        if start in starts:
            texts.append([])
        sounding = notes.get(start, None if start in ends else sounding)
        symbol = f'"{symbols[start]}"' if start in symbols else ""
        tie = "-" if sounding and _frame(sounding.offset) > end else ""
        texts[-1].append(f"{symbol}{_spelt(sounding)}{end - start}{tie}")
    return [" ".join(bar) for bar in texts]


def _spelt(note: Note | None) -> str:
    if note is None:
        return "z"
    octave, step = divmod(note.pitch - 60, 12)
    return _SPELLINGS[step] + ("'" * octave if octave > 0 else "," * -octave)
