"""Songs as MIDI files of a melody track and a chord track, in and out."""

from __future__ import annotations

from gapt_jax import midi
from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.importers.score import Score, chord_event
from gapt_jax.data_pipeline.songs import BadSong, Song, from_frames, to_frames
from gapt_jax.vocabulary import FRAMES_PER_BEAT


def read(content: bytes, stem: str) -> Score:
    """The score of a MIDI file (`midi.melody_part`, `midi.find_chords`). Raises BadSong with the reason."""
    try:
        file = midi.parse(content)
        part = midi.melody_part(file)
        melody, found = midi.one_at_a_time(part.notes), midi.find_chords(file, part)
        meter, pickup = file.meter(melody[0].onset)
    except ValueError as error:
        raise BadSong(str(error)) from None
    if found.part == part:
        raise BadSong("its only track plays chords: it has no melody")
    chords = [chord_event(*harmony) for harmony in found.harmony]
    last = max([file.beats] + [chord.offset for chord in chords])
    source = f"the melody is that of {part.label}, the chords are those of {found.label}"
    return Score(stem, None, meter, pickup, last, melody, chords, source=source)


def write(song: Song) -> bytes:
    """A MIDI file of a song as the models hear it: on the sixteenth-note frame grid, roots in the bass. A pickup is a
    first bar with a time signature of its own."""
    frames = to_frames(song)
    melody, chords = from_frames(frames)
    harmony = [midi.Harmony(c.onset, c.offset, Chord(c.root, c.intervals, c.bass)) for c in chords]
    return midi.build(melody, harmony, beats=len(frames) / FRAMES_PER_BEAT, meter=song.meter, pickup=song.pickup)
