"""MIDI files as songs: which track is what, chords named or recognised, and the way back."""

import dataclasses
import hashlib
import io

import mido
import numpy as np
import pytest

from gapt_jax import midi
from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.importers import midi_song
from gapt_jax.data_pipeline.importers.score import to_song
from gapt_jax.data_pipeline.songs import BadSong, Frames, Song, from_frames, parse_song, to_frames
from gapt_jax.midi import Harmony, Note
from tests.data_pipeline.agreement import DATA, RAW, records
from tests.data_pipeline.song_records import make_record

C, AM = Chord(0, (0, 4, 7), 0), Chord(9, (0, 3, 7), 9)


def equal(one: Frames, two: Frames) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(Frames))


def unnamed(content: bytes, *, names: bool = True) -> bytes:
    """The file with words in the place of chord symbols, and, with `names`, with tracks that are called otherwise."""
    file, out = mido.MidiFile(file=io.BytesIO(content)), io.BytesIO()
    for track in file.tracks:
        for n, message in enumerate(track):
            if message.type == "text":
                track[n] = message.copy(text="la la")
            elif message.type == "track_name" and names:
                track[n] = message.copy(name="piano")
    file.save(file=out)
    return out.getvalue()


def test_recognition():
    for pitches, expected in [
        ([48, 52, 55], C),
        ([36, 48, 52, 55], C),
        ([40, 48, 52, 55], Chord(0, (0, 4, 7), 4)),
        ([45, 48, 52, 55], Chord(9, (0, 3, 7, 10), 9)),
        ([48, 52, 57], Chord(9, (0, 3, 7), 0)),
        ([60], Chord(0, (0,), 0)),
        ([48, 49, 50], Chord(0, (0, 1, 2), 0)),
    ]:
        assert midi.recognise(pitches) == expected


def test_chords_are_read_from_notes_where_no_text_names_them():
    harmony = [Harmony(0, 4, C), Harmony(4, 6, AM), Harmony(7, 8, Chord(7, (0, 4, 7, 10), 11))]
    content = midi.build([Note(0, 1, 72), Note(1, 4, 74)], harmony, beats=9, meter=(3, 4))
    for file in (content, unnamed(content, names=False), unnamed(content)):
        score = midi_song.read(file, "x")
        assert [(c.onset, c.offset, Chord(c.root, c.intervals, c.bass)) for c in score.chords] == harmony
        assert score.notes == [(0, 1, 72), (1, 4, 74)] and score.beats_total == 9 and score.meter == (3, 4)


def test_notes_held_into_the_next_chord_belong_to_it():
    def track(name: str, notes: list[tuple[int, int, int]]) -> mido.MidiTrack:
        events = sorted([(on, 1, p) for on, _, p in notes] + [(off, 0, p) for _, off, p in notes])
        messages, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
        for beat, struck, pitch in events:
            kind = "note_on" if struck else "note_off"
            messages.append(mido.Message(kind, note=pitch, velocity=64, time=(beat - now) * 480))
            now = beat
        return messages

    file, out = mido.MidiFile(ticks_per_beat=480), io.BytesIO()
    file.tracks = [track("tune", [(0, 4, 80)]), track("pad", [(0, 4, 48), (0, 4, 52), (0, 2, 55), (2, 4, 57)])]
    file.save(file=out)
    found = midi_song.read(out.getvalue(), "x").chords
    assert [(c.onset, c.offset, c.symbol) for c in found] == [(0, 2, "C"), (2, 4, "Am/C")]


def test_files_with_one_part_only():
    with pytest.raises(BadSong, match="no chord symbols"):
        to_song(midi_song.read(midi.build([Note(0, 1, 60)], []), "x"), "d")
    with pytest.raises(BadSong, match="no notes in its melody track"):
        midi_song.read(midi.build([], [Harmony(0, 1, C)]), "x")
    with pytest.raises(BadSong, match="no melody"):
        midi_song.read(unnamed(midi.build([], [Harmony(0, 1, C)])), "x")
    with pytest.raises(BadSong, match="not a readable MIDI file"):
        midi_song.read(b"MThd", "x")


def round_trip(song: Song) -> Frames:
    return to_frames(to_song(midi_song.read(midi_song.write(song), "x"), "d"))


def test_the_way_back_by_hand():
    chords = [[0, 3, 0, [0, 3, 8], 0, "?"], [3, 4, 0, [0, 3, 8], 0, "?"], [5, 7.5, 1, [0, 1, 2, 3], 4, "?"]]
    melody = [[0.25, 1, 60], [1, 2, 60], [2, 2.1, 61], [7, 7.5, 62]]
    song = parse_song(make_record(chords=chords, melody=melody, beats_total=12, meter=[6, 8]))
    assert equal(round_trip(song), to_frames(song))


def test_events_of_frames_paint_the_same_frames():
    song = parse_song(make_record(beats=8))
    melody, chords = from_frames(to_frames(song))
    assert melody == list(song.melody) and [c[:4] for c in chords] == [c[:4] for c in song.chords]


@pytest.mark.real_data
def test_the_way_back_of_200_songs():
    names = [path.name.removesuffix(".jsonl.gz") for path in (DATA / "songs").glob("*.jsonl.gz")]
    songs = [song for name in names for song in records(name).values()]
    chosen = sorted(songs, key=lambda song: hashlib.sha1(song.id.encode()).hexdigest())[:200]
    assert len({song.dataset for song in chosen}) > 3
    assert [song.id for song in chosen if not equal(round_trip(song), to_frames(song))] == []


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["slip1", "slip2", "xmas1", "xmas2"])
def test_real_files_of_one_part_each(name):
    """Other software's renderings: the melody in one file, the chords in another. Those of playford1 and playford2 are
    left out: that software read a tie of two pitches and the repeats otherwise."""
    folder = RAW / "nottingham" / "midi"
    expected = records("nottingham")[f"nottingham/{name}"]
    melody = midi.melody_of(midi.parse((folder / "melody" / f"{name}.mid").read_bytes()))
    assert [note.pitch for note in melody] == [note.pitch for note in expected.melody]
    chords = midi.chords_of(midi.parse((folder / "chords" / f"{name}.mid").read_bytes()))
    found = [(c.chord.root, c.chord.intervals) for c in chords]
    assert found == [(c.root, c.intervals) for c in expected.chords]
    with pytest.raises(BadSong, match="no melody"):
        midi_song.read((folder / "chords" / f"{name}.mid").read_bytes(), name)
