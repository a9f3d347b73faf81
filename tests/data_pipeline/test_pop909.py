"""POP909's MIDI and text files: beats from seconds, triple metres, bars of three, Harte's labels."""

import mido
import numpy as np
import pytest

from gapt_jax import midi
from gapt_jax.data_pipeline.importers import harte, pop909
from gapt_jax.data_pipeline.importers.folder import read_native
from gapt_jax.data_pipeline.importers.score import to_song
from gapt_jax.data_pipeline.songs import BadSong, Song
from gapt_jax.midi import Note
from tests.data_pipeline.agreement import RAW, agreement, records

SECONDS = 0.5  # a beat


def midi_of(notes: list[Note], name: str = "MELODY") -> bytes:
    content = midi.build(notes, [], bpm=60 / SECONDS)
    return content.replace(b"melody", name.encode()) if len(name) == 6 else content


def beats_of(count: int, bar: int = 4, first: int = 0, strong: int = 0) -> str:
    rows = [
        f"{0.25 + SECONDS * n} {float((n - first) % (strong or bar) == 0)} {float((n - first) % bar == 0)}"
        for n in range(count)
    ]
    return "\n".join(rows)


def notes_at(beats: list[float], length: float = 0.5) -> list[Note]:
    """The beat file begins a quarter of a second after the MIDI file: half a beat."""
    return [Note(beat + 0.5, beat + 0.5 + length, 60 + n) for n, beat in enumerate(beats)]


def read(beats: list[float], chords: str = "0.25 2.25 C:maj", **grid):
    return pop909.read(midi_of(notes_at(beats)), beats_of(24, **grid), chords, "x")


def test_seconds_become_beats_from_the_bar_line_before_the_first_event():
    score = read([1, 1.5, 3], first=1, chords="0.75 2.75 A:min7/b3\n2.75 3.75 N")
    # Bar lines at beats 1, 5, 9 of the file; the first event lies on the first of them.
    assert [note[:2] for note in score.notes] == [(0, 0.5), (0.5, 1), (2, 2.5)]
    assert [chord[:5] for chord in score.chords] == [(0, 4, 9, (0, 3, 7, 10), 0)]
    assert score.meter == (4, 4) and score.beats_total == 4


def test_empty_bars_before_the_music_are_left_out():
    assert read([9, 10], chords="4.25 6.25 C:maj").notes[0].onset == 1


def test_onsets_on_thirds_of_a_beat_mean_dotted_beats():
    score = read([0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3])
    assert score.meter == (12, 8) and [note.onset for note in score.notes] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert score.chords[0][:2] == (0, 6)


def test_bars_of_six_with_two_strong_beats_are_bars_of_three():
    assert read([0, 1, 2], bar=6, strong=3).meter == (3, 4)
    assert read([0, 1, 2], bar=6).meter == (6, 4)


def test_positions_a_sliver_beside_the_grid_are_moved_onto_it():
    assert read([0.004, 1.247, 2.1]).notes[0].onset == 0
    assert [round(note.onset, 4) for note in read([0.004, 1.247, 2.1]).notes] == [0, 1.25, 2.1]


FIVE = "0.5 1 1\n1 0 0\n1.5 0 0\n2 0 0\n2.5 1 1"  # beats 0 to 4


@pytest.mark.parametrize(
    "seconds, beats",
    [
        ((2.2, 9.0), (3.4, 4)),
        ((2.0, 3600.0), (3, 4)),
        ((2.0, 3.0), (3, 5)),
        ((2.0, 2.75), (3, 4.5)),
        ((2.5, 9.0), (4, 5)),
        ((2.75, 9.0), (4.5, 5)),
        ((3.5, 9.0), None),
    ],
)
def test_what_goes_on_after_the_last_beat_is_cut(seconds, beats):
    chords = "0.5 2 C:maj\n{} {} G:maj".format(*seconds)
    notes = [Note(1, 2, 60), Note(*(2 * second for second in seconds), 72)]
    score = pop909.read(midi_of(notes), FIVE, chords, "x")
    last = [] if beats is None else [pytest.approx(beats, abs=1e-3)]
    assert [note[:2] for note in score.notes[1:]] == last and [chord[:2] for chord in score.chords[1:]] == last
    assert score.beats_total == (3 if beats is None else beats[1])


def test_a_melody_after_the_last_beat_is_none():
    with pytest.raises(BadSong, match="within the beats"):
        pop909.read(midi_of([Note(10, 11, 60)]), FIVE, "0.5 2 C:maj", "x")


def test_events_before_the_first_beat_are_placed_by_its_length():
    score = pop909.read(midi_of([Note(0.5, 1, 60), Note(1, 2, 62)]), FIVE, "0 1 G:7(b9)", "x")
    assert [note[:2] for note in score.notes] == [(3.5, 4), (4, 5)]
    assert [chord[:4] for chord in score.chords] == [(3, 5, 7, (0, 1, 4, 7, 10))]


@pytest.mark.parametrize(
    "midi_file, beats, chords, reason",
    [
        (b"", beats_of(8), "0 1 C:maj", "it is empty"),
        (b"RIFF", beats_of(8), "0 1 C:maj", "not a readable MIDI"),
        (midi_of([Note(0, 1, 60)], "MELODX"), beats_of(8), "0 1 C:maj", "no track MELODY"),
        (midi_of([Note(0, 1, 60)]), "", "0 1 C:maj", "file of beats must have lines of 3"),
        (midi_of([Note(0, 1, 60)]), "0 1 1\n1 0 0\n", "0 1 C:maj", "four beats"),
        (midi_of([Note(0, 1, 60)]), "0 1 1\n2 0 0\n1 0 0\n3 0 0", "0 1 C:maj", "in order"),
        (midi_of([Note(0, 1, 60)]), "0 1 0\n1 0 0\n2 0 0\n3 0 0", "0 1 C:maj", "no bars"),
        (midi_of([Note(0, 1, 60)]), "nan 1 1\n1 0 0\n2 0 0\n3 0 0", "0 1 C:maj", "outside"),
        (midi_of([Note(0, 1, 60)]), beats_of(8), "0 x C:maj", "no number"),
        (midi_of([Note(0, 1, 60)]), beats_of(8), "0 1e300 C:maj", "outside"),
        (midi_of([Note(0, 1, 60)]), beats_of(8), "0 1 C:major", "no chord label"),
        (midi_of([Note(0, 1, 60)]), beats_of(8), "0 1", "lines of 3"),
    ],
)
def test_faults_are_one_clause(midi_file, beats, chords, reason):
    with pytest.raises(BadSong, match=reason):
        pop909.read(midi_file, beats, chords, "x")


@pytest.mark.parametrize(
    "label, root, intervals, bass",
    [
        ("C:maj", 0, (0, 4, 7), 0),
        ("Bb:min7/b3", 10, (0, 3, 7, 10), 1),
        ("F#:sus4(b7)", 6, (0, 5, 7, 10), 6),
        ("G:hdim7", 7, (0, 3, 6, 10), 7),
        ("Db:maj/5", 1, (0, 4, 7), 8),
        ("E:minmaj7", 4, (0, 3, 7, 11), 4),
        ("A:maj9", 9, (0, 2, 4, 7, 11), 9),
        ("D:7(b9)", 2, (0, 1, 4, 7, 10), 2),
        ("C:maj(*5)", 0, (0, 4), 0),
        ("C", 0, (0, 4, 7), 0),
    ],
)
def test_labels(label, root, intervals, bass):
    assert harte.parse(label) == (root, intervals, bass)


def test_labels_of_nothing_and_of_nonsense():
    assert harte.parse("N") is None and harte.parse("X") is None
    for label in ("", "H:maj", "C:foo", "C:maj/99", "C" * 99, "C:maj(zz)"):
        with pytest.raises(ValueError, match="chord label"):
            harte.parse(label)


@pytest.mark.real_data
def test_real_songs_agree_with_their_records():
    found = list(read_native(RAW / "pop909", "pop909"))
    assert len(found) == 12 and all(isinstance(song, Song) for song in found)
    expected = records("pop909")
    shares, weights = [], []
    for song in found:
        record = expected[song.id]
        assert song.meter == record.meter and song.beats_total == pytest.approx(record.beats_total)
        assert len(song.melody) == len(record.melody) and len(song.chords) == len(record.chords)
        shares.append(agreement(song, record))
        weights.append(record.beats_total)
    melody, chords = np.average(shares, axis=0, weights=weights)
    # What differs are ends of notes that lie half a frame from two frames, where the records are rounded elsewhere.
    assert melody > 0.999 and chords == 1


def test_melody_of_another_tempo_map(tmp_path):
    """A change of tempo in the MIDI file moves seconds, not the beats that the beat file counts."""
    file = mido.MidiFile(ticks_per_beat=480)
    tempo, melody = mido.MidiTrack(), mido.MidiTrack([mido.MetaMessage("track_name", name="MELODY")])
    tempo.append(mido.MetaMessage("set_tempo", tempo=500_000))
    tempo.append(mido.MetaMessage("set_tempo", tempo=1_000_000, time=4 * 480))
    melody.append(mido.Message("note_on", note=60, velocity=64, time=0))
    melody.append(mido.Message("note_off", note=60, time=480))
    melody.append(mido.Message("note_on", note=62, velocity=64, time=5 * 480))
    melody.append(mido.Message("note_off", note=62, time=480))
    file.tracks = [tempo, melody]
    file.save(tmp_path / "x.mid")
    times = [0, 0.5, 1, 1.5, 2, 3, 4, 5]
    beats = "\n".join(f"{time} 0 {float(n % 4 == 0)}" for n, time in enumerate(times))
    score = pop909.read((tmp_path / "x.mid").read_bytes(), beats, "0 2 C:maj", "x")
    assert [note[:2] for note in score.notes] == [(0, 1), (6, 7)]
    assert to_song(score, "d").beats_total == 7
