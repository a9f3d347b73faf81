"""Songs as MIDI files of a melody track and a chord track, in and out."""

from __future__ import annotations

from data_pipeline.importers.score import Score, chord_event
from data_pipeline.songs import BadSong, Song, from_frames, to_frames
from gapt_jax import midi
from gapt_jax.chords import Chord
from gapt_jax.vocabulary import FRAMES_PER_BEAT


def read(content: bytes, stem: str) -> Score:
    """The score of a MIDI file (`midi.melody_of`, `midi.chords_of`). Raises BadSong with the reason."""
    try:
        file = midi.parse(content)
        melody, harmony = midi.melody_of(file), midi.chords_of(file)
    except ValueError as error:
        raise BadSong(str(error)) from None
    if harmony and sum(bool(track.notes) for track in file.tracks) == 1:
        raise BadSong("its only track plays chords: it has no melody")
    chords = [chord_event(*found) for found in harmony]
    last = max([file.beats] + [chord.offset for chord in chords])
    return Score(stem, None, file.meter, 0, last, melody, chords)


def write(song: Song) -> bytes:
    """A MIDI file of a song as the models hear it: on the sixteenth-note frame grid, roots in the bass."""
    frames = to_frames(song)
    melody, chords = from_frames(frames)
    harmony = [midi.Harmony(c.onset, c.offset, Chord(c.root, c.intervals, c.bass)) for c in chords]
    return midi.build(melody, harmony, beats=len(frames) / FRAMES_PER_BEAT, meter=song.meter)
