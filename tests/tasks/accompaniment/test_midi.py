import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapt_jax import midi as sound
from gapt_jax.errors import UserError
from gapt_jax.tasks.accompaniment import midi
from gapt_jax.vocabulary import FRAMES_PER_BEAT, NOTE_HOLD, NOTE_ONSET, PAD, SILENCE, Vocabulary

TICKS_PER_FRAME = sound.TICKS_PER_BEAT // FRAMES_PER_BEAT
VOCABULARY = Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7)])
C_MAJOR, A_MINOR = VOCABULARY.names.index("C"), VOCABULARY.names.index("Am")


def _chord(index, *, onset):
    return (VOCABULARY.chord_onset if onset else 260) + index


def _notes(track):
    """(start, end, pitch, velocity) in frames."""
    notes, started, now = [], {}, 0
    for message in track:
        now += message.time
        if message.type == "note_on":
            assert message.note not in started
            started[message.note] = (now, message.velocity)
        elif message.type == "note_off":
            start, velocity = started.pop(message.note)
            notes.append((start / TICKS_PER_FRAME, now / TICKS_PER_FRAME, message.note, velocity))
    assert not started
    return sorted(notes)


def _save(path, *tracks):
    """Tracks are (name, channel, [(onset, offset, pitch)]), in beats."""
    file = mido.MidiFile(ticks_per_beat=480)
    for name, channel, notes in tracks:
        events = [(on, "note_on", pitch) for on, _, pitch in notes] + [(off, "note_off", p) for _, off, p in notes]
        track, now = mido.MidiTrack([mido.MetaMessage("track_name", name=name)]), 0
        for time, kind, pitch in sorted(events):
            ticks = round(time * 480)
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=64, time=ticks - now))
            now = ticks
        file.tracks.append(track)
    file.save(path)
    return path


def test_accompaniment_has_both_parts_with_their_velocities(tmp_path):
    melody = [SILENCE, NOTE_ONSET + 60, NOTE_HOLD + 60, NOTE_ONSET + 60, SILENCE, NOTE_ONSET + 62, PAD, PAD]
    chords = [_chord(C_MAJOR, onset=True), *[_chord(C_MAJOR, onset=False)] * 2, _chord(A_MINOR, onset=True)]
    chords += [_chord(A_MINOR, onset=False), SILENCE, PAD, _chord(C_MAJOR, onset=True)]
    path = tmp_path / "out" / "song.mid"
    midi.write_accompaniment(path, np.array(melody), np.array(chords), VOCABULARY, bpm=120)
    file = mido.MidiFile(path)
    assert [track.name for track in file.tracks] == ["melody", "chords"]
    assert _notes(file.tracks[0]) == [(1, 3, 60, 76), (3, 4, 60, 76), (5, 6, 62, 76)]
    c_major = [(0, 3, 36, 56), (0, 3, 48, 50), (0, 3, 52, 50), (0, 3, 55, 50)]
    a_minor = [(3, 5, 45, 56), (3, 5, 48, 50), (3, 5, 52, 50), (3, 5, 57, 50)]
    assert _notes(file.tracks[1]) == c_major + a_minor
    assert file.length == pytest.approx(6 / 4 * 0.5)  # six frames at 120 beats a minute


def test_a_hold_without_its_onset_sounds_and_foreign_tokens_are_silent(tmp_path):
    melody = [NOTE_HOLD + 60, NOTE_HOLD + 60, NOTE_HOLD + 64, _chord(C_MAJOR, onset=True), NOTE_HOLD + 64]
    chords = [NOTE_ONSET + 60, SILENCE, _chord(C_MAJOR, onset=False), SILENCE, SILENCE]
    midi.write_accompaniment(tmp_path / "x.mid", np.array(melody), np.array(chords), VOCABULARY)
    file = mido.MidiFile(tmp_path / "x.mid")
    assert _notes(file.tracks[0]) == [(0, 2, 60, 76), (2, 3, 64, 76), (4, 5, 64, 76)]
    assert {note[:2] for note in _notes(file.tracks[1])} == {(2, 3)}


def test_melody_round_trip_through_a_file(tmp_path):
    tokens = np.array([SILENCE, NOTE_ONSET + 60, NOTE_HOLD + 60, NOTE_ONSET + 60, SILENCE, NOTE_ONSET + 127])
    midi.write_accompaniment(tmp_path / "x.mid", tokens, np.full(6, SILENCE), VOCABULARY)
    np.testing.assert_array_equal(midi.melody_tokens(midi.read_melody(tmp_path / "x.mid"), 256), tokens)


def test_the_track_named_melody_wins_over_a_higher_one(tmp_path):
    low, high = ("MELODY", 0, [(0, 1, 50)]), ("flute", 1, [(0, 1, 90)])
    assert midi.read_melody(_save(tmp_path / "a.mid", high, low)) == [(0, 1, 50)]


def test_otherwise_the_highest_part_without_drums(tmp_path):
    parts = [("", 0, [(0, 1, 50), (1, 2, 95)]), ("", 1, [(0, 1, 80), (2, 3.5, 82)]), ("", 9, [(0, 1, 100)])]
    assert midi.read_melody(_save(tmp_path / "a.mid", *parts)) == [(0, 1, 80), (2, 3.5, 82)]


def test_a_later_note_cuts_and_the_highest_of_a_chord_stays(tmp_path):
    path = _save(tmp_path / "a.mid", ("melody", 0, [(0, 4, 60), (1, 2, 64), (1, 2, 55), (3, 3.5, 62)]))
    assert midi.read_melody(path) == [(0, 1, 60), (1, 2, 64), (3, 3.5, 62)]


def test_a_note_that_never_ends_lasts_to_the_end_of_its_track(tmp_path):
    track = mido.MidiTrack([mido.Message("note_on", note=60, time=0), mido.MetaMessage("end_of_track", time=960)])
    mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(tmp_path / "a.mid")
    assert midi.read_melody(tmp_path / "a.mid") == [(0, 2, 60)]


def test_bad_files_are_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "a.mid"
    with pytest.raises(UserError, match="is not there"):
        midi.read_melody(path)
    with pytest.raises(UserError, match="is not there"):
        midi.read_melody(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="it is empty"):
        midi.read_melody(path)
    for content in (b"MThd", b"RIFF" * 100, b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\x09\0\x90"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a readable MIDI file"):
            midi.read_melody(path)
    with pytest.raises(UserError, match="has no notes"):
        midi.read_melody(_save(path, ("piano", 9, [(0, 1, 60)])))
    with pytest.raises(UserError, match="no notes in its melody track"):
        midi.read_melody(_save(path, ("melody", 0, []), ("piano", 0, [(0, 1, 60)])))
    with pytest.raises(UserError, match="longer than"):
        midi.read_melody(_save(path, ("piano", 0, [(0, 21_000, 60)])))
    with pytest.raises(UserError, match="film frames"):
        path.write_bytes(_save(path, ("piano", 0, [(0, 1, 60)])).read_bytes().replace(b"\x01\xe0", b"\xe7\x28", 1))
        midi.read_melody(path)
    monkeypatch.setattr(sound, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="more than the 0 MB"):
        midi.read_melody(path)


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_end_in_another_error(tmp_path_factory, data, with_header):
    path = tmp_path_factory.mktemp("fuzz") / "a.mid"
    path.write_bytes((b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\xc8\0\x90" if with_header else b"") + data)
    try:
        notes = midi.read_melody(path)
    except UserError:
        return
    assert all(onset < offset and 0 <= pitch < 128 for onset, offset, pitch in notes)


def test_melody_tokens_rounds_halves_up_and_keeps_short_notes():
    notes = [sound.Note(0.125, 0.374, 60), sound.Note(0.5, 0.51, 62), sound.Note(0.75, 1.25, 64)]
    expected = [SILENCE, NOTE_ONSET + 60, NOTE_ONSET + 62, NOTE_ONSET + 64, NOTE_HOLD + 64]
    tokens = midi.melody_tokens(notes, 256)
    assert tokens.tolist() == expected and tokens.dtype == np.int32
    assert midi.melody_tokens(notes, 2).tolist() == expected[:2]


def test_melody_tokens_without_a_note_in_reach():
    with pytest.raises(UserError, match="first 4 frames"):
        midi.melody_tokens([sound.Note(10, 11, 60)], 4)
