"""MIDI bytes and what they sound like: tracks of notes in beats, one melody, and two-part songs. Pure: no files."""

from gapt_jax.midi.file import MAX_BEATS, File, Harmony, Meters, Note, Tempos, music
from gapt_jax.midi.parts import Part, chords_of, find_chords, melody_of, melody_part, one_at_a_time, recognise
from gapt_jax.midi.writer import MELODY_VELOCITY, TICKS_PER_BEAT, build

__all__ = [
    "MAX_BEATS", "MAX_BYTES", "MELODY_VELOCITY", "TICKS_PER_BEAT", "File", "Harmony", "Meters", "Note", "Part",
    "Tempos", "build", "chords_of", "find_chords", "melody_of", "melody_part", "one_at_a_time", "parse", "recognise",
]  # fmt: skip
MAX_BYTES = 4 << 20


def parse(content: bytes) -> File:
    """Reads MIDI bytes. Raises ValueError with the reason where they are none, or none we can use."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content) >> 20} MB, more than the {MAX_BYTES >> 20} MB of a MIDI file we read")
    return music(content)
