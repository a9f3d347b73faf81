"""The built-in songs: the same everywhere, valid, varied, and in harmony well above chance."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json

import numpy as np
import pytest

from gapt_jax import chords
from gapt_jax.data_pipeline import grammar, grammar_harmony, grammar_melody
from gapt_jax.data_pipeline.catalogue import note_in_chord
from gapt_jax.data_pipeline.loader import Corpus
from gapt_jax.data_pipeline.songs import Song, parse_song

NAMES = ("grammar", "grammar_modal")


@pytest.fixture(scope="module", params=NAMES)
def songs(request: pytest.FixtureRequest) -> list[Song]:
    return [grammar.make_song(request.param, index, "train") for index in range(300)]


def test_a_song_depends_on_its_number_alone() -> None:
    """The digest pins the songs: raise GENERATOR_VERSION when it changes."""
    made = [grammar.make_song(name, index, "test") for name in NAMES for index in (0, 7, 299)]
    again = [grammar.make_song(name, index, "test") for name in reversed(NAMES) for index in (299, 7, 0)]
    assert made == again[::-1] and len({song.melody for song in made}) == 6
    digest = hashlib.sha256(json.dumps([dataclasses.astuple(song) for song in made]).encode()).hexdigest()
    assert (grammar.GENERATOR_VERSION, digest[:16]) == (1, "438f809b7900e417")


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_as_declared(name: str) -> None:
    dataset = dataclasses.replace(grammar.DATASETS[name], songs=(4, 2, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(grammar.DATASETS, name, dataset)
        made = list(grammar.generate(name))
    assert [song.split for song in made] == ["train"] * 4 + ["valid"] * 2 + ["test"] * 3
    assert len({song.id for song in made}) == len({song.group for song in made}) == 9


def test_every_song_passes_the_checks_of_the_schema(songs: list[Song]) -> None:
    for song in songs:
        assert parse_song(json.loads(json.dumps(dataclasses.asdict(song)))) == song
        for event in song.chords:
            assert chords.parse(event.symbol) == (event.root, event.intervals, event.bass)


def test_songs_lie_on_the_grid_fill_whole_bars_and_stay_in_range(songs: list[Song]) -> None:
    for song in songs:
        assert (song.beats_total - song.pickup) % (16 if song.meter == (4, 4) else 12) == 0
        assert all(4 * position % 1 == 0 for note in song.melody for position in note[:2])
        assert all(48 <= note.pitch <= 88 for note in song.melody)
        assert song.chords[0].onset == song.pickup and song.chords[-1].offset == song.beats_total
        assert all(a.offset == b.onset for a, b in zip(song.chords, song.chords[1:], strict=False))


def test_keys_metres_and_qualities_vary(songs: list[Song]) -> None:
    assert len({song.title.split()[0] for song in songs if song.title}) == 12
    metres = collections.Counter(song.meter for song in songs)
    assert set(metres) == {(4, 4), (3, 4)} and metres[4, 4] > metres[3, 4] > 30
    qualities = collections.Counter(event.intervals for song in songs for event in song.chords)
    shares = np.array(sorted(qualities.values(), reverse=True)) / sum(qualities.values())
    assert len(shares) >= 10 and 0.25 < shares[0] < 0.5 and (shares < 0.01).sum() >= 5
    assert np.mean([len({(e.root, e.intervals) for e in song.chords}) for song in songs]) > 6


def test_phrases_of_the_form_come_back_varied(songs: list[Song]) -> None:
    """All three forms have phrase 1 at place 2 or 3: its chords come back, its melody mostly."""
    alike = []
    for song in songs:
        bars = 4 * song.meter[0]
        phrases = [
            [(n.onset - start, n.pitch) for n in song.melody if start <= n.onset < start + bars]
            for start in (song.pickup + k * bars for k in range(3))
        ]
        alike.append(max(len(set(phrases[0]) & set(other)) / len(phrases[0]) for other in phrases[1:]))
    assert np.mean(alike) > 0.8 and np.mean([share == 1.0 for share in alike]) < 0.6


def test_closing_chord_is_the_tonic(songs: list[Song]) -> None:
    names = {name: root for root, name in enumerate(chords.ROOT_NAMES)}
    closed = [song.chords[-1].root == names[song.title.split()[0]] for song in songs if song.title]
    assert np.mean(closed) > 0.97


def test_harmony_lies_in_the_range_of_real_songs_and_far_above_chance(built_in: Corpus) -> None:
    for name in NAMES:
        frames = built_in.datasets[name]["test"].frames
        assert 0.7 < note_in_chord(frames) < 0.8
        assert 0.2 < np.mean([note_in_chord(frames, shift) for shift in range(1, 12)]) < 0.28


def test_the_modal_set_has_other_progressions(built_in: Corpus) -> None:
    """Leading-tone dominants make the difference: root motion down a fifth against up a fifth."""

    def fifths(name: str) -> float:
        made = [grammar.make_song(name, index, "test") for index in range(200)]
        moves = collections.Counter(
            (b.root - a.root) % 12 for s in made for a, b in zip(s.chords, s.chords[1:], strict=False)
        )
        return moves[5] / (moves[5] + moves[7])

    assert fifths("grammar") > fifths("grammar_modal") + 0.15


@pytest.mark.parametrize("table", [grammar_melody._MOTIFS, grammar_melody._CLOSINGS])
def test_rhythms_fill_their_bars(table: dict[int, tuple[tuple[int, ...], ...]]) -> None:
    for beats, bars in table.items():
        assert all(sum(map(abs, bar)) == 4 * beats for bar in bars)
    for beats, patterns in grammar_harmony._RHYTHMS.items():
        assert all(sum(pattern) == 2 * beats for pattern in patterns)


def test_songs_in_c_are_in_c_major_or_a_minor_alone():
    made = [grammar.make_song("grammar_c", index, "train") for index in range(40)]
    assert {song.title.rpartition(" no. ")[0] for song in made} == {"C major", "A minor"}
    white = sum(note.pitch % 12 in (0, 2, 4, 5, 7, 9, 11) for song in made for note in song.melody)
    assert white > 0.9 * sum(len(song.melody) for song in made)


def test_a_fingerprint_names_the_keys_and_those_of_sets_in_any_key_stay():
    assert "tonics" not in grammar.fingerprint_text("grammar")
    assert "('minor', 9)" in grammar.fingerprint_text("grammar_c")
