"""The same tune told in any key, wherever it begins; splits that do not hear each other."""

import dataclasses
import random

import numpy as np
import pytest

from gapt_jax.chords import Chord
from gapt_jax.data_pipeline import hygiene, store
from gapt_jax.data_pipeline.examples import split_of
from gapt_jax.data_pipeline.hygiene import Melodies, heard_elsewhere, melody_key
from gapt_jax.data_pipeline.importers.score import Score, chord_event, held, to_song
from gapt_jax.data_pipeline.songs import BadSong, Note, Song, parse_song, to_frames
from tests.data_pipeline.song_records import make_record

TUNE = [Note(n / 2, n / 2 + 0.5, 60 + n % 5) for n in range(12)]


def song(identity: str, split: str = "train", shift: int = 0, **changes) -> Song:
    melody = [[note.onset, note.offset, note.pitch + shift] for note in TUNE]
    return parse_song(make_record(identity, split, melody=melody, **changes))


def test_keys_of_melodies():
    key = melody_key(TUNE)
    assert key == melody_key([note._replace(pitch=note.pitch + 7) for note in TUNE])
    assert key == melody_key([note._replace(onset=note.onset + 3, offset=note.offset + 3) for note in TUNE])
    assert key == melody_key([*TUNE[:-1], TUNE[-1]._replace(offset=9)])
    assert key != melody_key([*TUNE[:-1], TUNE[-1]._replace(pitch=70)])
    assert key != melody_key([*TUNE[:-1], TUNE[-1]._replace(onset=5.75)])
    assert melody_key(TUNE[: hygiene.MIN_NOTES - 1]) is None


def test_duplicates_across_splits_come_first():
    melodies = Melodies()
    for dataset, one in (("a", song("a/1")), ("b", song("b/1", shift=3)), ("c", song("c/1", "test"))):
        melodies.add(dataset, one)
    other = dataclasses.replace(song("a/2"), melody=tuple(TUNE[:10]))
    melodies.add("a", other)
    melodies.add("b", dataclasses.replace(other, id="b/2"))
    first, second = melodies.duplicates()
    assert first.is_leak and not second.is_leak
    assert first.songs == (("a", "a/1", "train"), ("b", "b/1", "train"), ("c", "c/1", "test"))
    assert hygiene.names(first) == "a/1 (train), b/1 (train), c/1 (test)"


def test_what_a_held_out_split_hears_is_left_out_of_the_others_in_any_order():
    songs = [
        song("1"),
        song("2", "valid", 2),
        song("3", "test", -1),
        song("4", group="g"),
        song("5", "test", group="g"),
    ]
    songs[3:] = [dataclasses.replace(one, melody=tuple(TUNE[n:])) for n, one in enumerate(songs[3:], start=1)]
    for _ in range(5):
        random.shuffle(songs)
        assert {key: other.id for key, other in heard_elsewhere(songs).items()} == {"1": "3", "2": "3", "4": "5"}


def part(*melodies):
    """A split of songs with these notes: (onset, pitch), each as long as the next one leaves it."""
    frames = {}
    for number, notes in enumerate(melodies):
        ends = [onset for onset, _ in notes[1:]] + [notes[-1][0] + 1]
        melody = [[onset, end, pitch] for (onset, pitch), end in zip(notes, ends, strict=True)]
        beats = int(ends[-1]) + 1
        frames[str(number)] = to_frames(parse_song(make_record(str(number), beats=beats, melody=melody)))
    return store.of_frames(frames, [(0.0, 16.0)] * len(frames))


def test_songs_that_share_twenty_steps_of_melody():
    rng = np.random.default_rng(0)
    onsets = np.cumsum(rng.integers(1, 4, 60)) / 4
    tune, other = (list(zip(onsets.tolist(), rng.integers(55, 80, 60).tolist(), strict=True)) for _ in range(2))

    def moved(notes, beats, semitones):
        return [(onset + beats, pitch + semitones) for onset, pitch in notes]

    def after(notes, rest):
        return [*notes, *moved(rest, notes[-1][0] + 1 - rest[0][0], 0)]

    least = hygiene.STEPS + 1  # notes
    tests = [
        tune,
        moved(tune, 2.25, -3),
        after(other[:9], tune[30 : 30 + least]),
        after(other[:9], tune[30 : 30 + least - 1]),  # a step too few
        tune[:least],
        tune[: least - 1],
        other,
        [(2 * onset, pitch) for onset, pitch in tune],  # twice as slow
        [(onset, pitch + (n % 20 == 10)) for n, (onset, pitch) in enumerate(tune)],  # a wrong note every twenty
    ]
    heard = hygiene.windows_of_all([part(tune, tune[:30])])
    assert len(heard) == 60 - hygiene.STEPS  # no window goes from one song into the next
    found = hygiene.has_window_of(part(*tests), heard)
    assert found.tolist() == [True, True, True, False, True, False, False, False, False]
    assert not hygiene.has_window_of(part(tune), hygiene.windows_of_all([])).any()


@pytest.mark.parametrize(
    "meter, pickup, first, step, off",
    [
        ((4, 4), 0, 0, 4, False),
        ((4, 4), 0, 1, 4, True),
        ((4, 4), 1, 1, 4, False),
        ((4, 4), 0, 0.1, 4, False),
        ((4, 4), 0, 3.9, 4, False),
        ((3, 4), 0, 0, 1, False),
        ((6, 8), 0, 3, 3, False),
        ((6, 8), 0, 1.5, 3, True),
    ],
)
def test_chords_on_and_off_the_bar_lines(meter, pickup, first, step, off):
    chords = [[first + step * n, first + step * n + 1, 0, [0, 4, 7], 0, "C"] for n in range(hygiene.MIN_CHORDS)]
    one = parse_song(make_record("a", beats=80, meter=list(meter), pickup=pickup, chords=chords))
    assert hygiene.is_off_bars(one) is off
    assert not hygiene.is_off_bars(dataclasses.replace(one, chords=one.chords[1:])), "too few to say"


def test_splits_depend_on_the_group_alone():
    splits = [split_of(f"group {n}") for n in range(5_000)]
    assert [round(splits.count(name) / 5_000, 1) for name in ("train", "valid", "test")] == [0.8, 0.1, 0.1]
    assert [split_of(name) for name in ("a", "b", "c", "melody:0")] == ["train", "train", "train", "train"]


def score(**changes) -> Score:
    chords = [chord_event(0, 4, Chord(0, (0, 4, 7), 0))]
    return dataclasses.replace(Score("x", None, (4, 4), 0, 8, TUNE, chords), **changes)


def test_equal_melodies_of_different_sets_share_a_group():
    moved = [note._replace(pitch=note.pitch - 5) for note in TUNE]
    one, two = to_song(score(), "a"), to_song(score(notes=moved, name="y"), "b")
    assert one.group == two.group and one.split == two.split and (one.id, two.id) == ("a/x", "b/y")
    assert to_song(score(group="g"), "a").group == "g"
    assert to_song(score(notes=TUNE[:3]), "a").group == "a/x"


def test_notes_one_at_a_time():
    notes = [Note(1, 3, 60), Note(0, 2, 64), Note(1, 2, 67), Note(4, 4, 50)]
    assert to_song(score(notes=notes), "a").melody == ((0, 1, 64), (1, 2, 67))


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"notes": []}, "no notes"),
        ({"chords": []}, "no chord symbols"),
        ({"notes": [Note(-1, 1, 60)]}, "before its start"),
        ({"notes": [Note(0, 1e9, 60)]}, "longer than"),
        ({"beats_total": float("nan")}, "longer than"),
        ({"notes": [Note(2, 1, 60)]}, "ends after it starts"),
        ({"notes": TUNE * 5_000}, "more than 50000"),
        ({"meter": (0, 4)}, "'meter'"),
    ],
)
def test_scores_that_are_no_songs(changes, reason):
    with pytest.raises(BadSong, match=reason):
        to_song(score(**changes), "a")


def test_held_chords():
    c, g = Chord(0, (0, 4, 7), 0), Chord(7, (0, 4, 7), 7)
    found = held([(4, g), (0, c), (2, None), (4, c), (6, None)], 8)
    assert [(event.onset, event.offset, event.symbol) for event in found] == [(0, 2, "C"), (4, 6, "C")]
