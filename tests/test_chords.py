"""Chord symbols as lead sheets spell them; naming that commutes with transposition."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapt_jax import chords
from gapt_jax.chords import Chord

SONGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "songs"
FLAT_FIVE = (0, 4, 6)  # written as "Db5" in the data: D with a flat five, or the power chord of D flat


@pytest.mark.parametrize(
    "spellings, intervals",
    [
        ("C Cmaj CM", (0, 4, 7)),
        ("Cm Cmin Cmi C-", (0, 3, 7)),
        ("Cdim Co C°", (0, 3, 6)),
        ("Caug C+", (0, 4, 8)),
        ("C7", (0, 4, 7, 10)),
        ("Cm7 Cmin7 C-7 Cmi7", (0, 3, 7, 10)),
        ("Cmaj7 CM7 CΔ CΔ7 C^7 C^", (0, 4, 7, 11)),
        ("CmM7 Cm(maj7) Cminmaj7 Cmmaj7", (0, 3, 7, 11)),
        ("Cdim7 Co7 C°7", (0, 3, 6, 9)),
        ("Cm7b5 Cm7-5 Cø Ch7 Chdim7 Cø7", (0, 3, 6, 10)),
        ("C7#5 C7+5 C+7 C7+ Caug7", (0, 4, 8, 10)),
        ("Csus Csus4", (0, 5, 7)),
        ("C7sus C7sus4 Csus7", (0, 5, 7, 10)),
        ("C9sus4 Csus9", (0, 2, 5, 7, 10)),
        ("Csus2sus4 Csus24", (0, 2, 5, 7)),
        ("C6/9 C69 C6(9)", (0, 2, 4, 7, 9)),
        ("C9", (0, 2, 4, 7, 10)),
        ("C7b9 C7(b9) C7-9", (0, 1, 4, 7, 10)),
        ("C13b9", (0, 1, 4, 7, 9, 10)),
        ("Cadd9 C(add9) C2 Cadd2", (0, 2, 4, 7)),
        ("C5 Cno3", (0, 7)),
        ("C7no5", (0, 4, 10)),
        ("C7alt Calt", (0, 1, 3, 4, 8, 10)),
        ("C(0,3,8)", (0, 3, 8)),
        ("C(0,3,8,11)", (0, 3, 8, 11)),
        ("C(2) C(add9)", (0, 2, 4, 7)),
        ("C(4)", (0, 4, 5, 7)),
        ("C(5)", (0, 7)),
        ("C(6)", (0, 4, 7, 9)),
        ("C(7)", (0, 4, 7, 10)),
        ("C(9) C7(9)", (0, 2, 4, 7, 10)),
        ("C(11)", (0, 2, 4, 5, 7, 10)),
        ("C(13) C(9,13)", (0, 2, 4, 7, 9, 10)),
        ("C(b9)", (0, 1, 4, 7)),
        ("C7M C(7M) C∆ C△7 CMA7 CMa7 Cj7 Cmaj.7", (0, 4, 7, 11)),
        ("C7M(9) C9M CM7(9)", (0, 2, 4, 7, 11)),
        ("C7M(#5)", (0, 4, 8, 11)),
        ("Cm7M Cm(7M) C−M7", (0, 3, 7, 11)),
        ("C− C– CMI CMi Cmin.", (0, 3, 7)),
        ("C−7 C–7 CMI7 CMi7", (0, 3, 7, 10)),
        ("Cº C˚ Cdim. Cd", (0, 3, 6)),
        ("Cº7 Cdim.7 Cd7", (0, 3, 6, 9)),
        ("CØ Cφ CØ7 C0 C07 Ch", (0, 3, 6, 10)),
        ("Co^7 C°7M", (0, 3, 6, 11)),
        ("Ch9", (0, 2, 3, 6, 10)),
        ("Ca", (0, 4, 8)),
        ("Ca7", (0, 4, 8, 10)),
    ],
)
def test_spellings(spellings, intervals):
    for text in spellings.split():
        assert chords.parse(text) == (0, intervals, 0), text


def test_roots_basses_and_brackets():
    assert chords.parse("Gm/d") == (7, (0, 3, 7), 2)
    assert chords.parse("D/f+") == (2, (0, 4, 7), 6)
    assert chords.parse("A7/c#") == (9, (0, 4, 7, 10), 1)
    assert chords.parse("B♭m7/A♭") == (10, (0, 3, 7, 10), 8)
    assert chords.parse("Cb") == (11, (0, 4, 7), 11)
    assert chords.parse("(Am)") == (9, (0, 3, 7), 9)


@pytest.mark.parametrize(
    "text", ["", "Hm", "C%", "C7b15", "Cfoo", "C" * 99, "N.C.", "D.C. al Fine", "Dad", "C(0,a)", "Cadd"]
)
def test_what_is_not_understood_is_never_guessed(text):
    with pytest.raises(ValueError, match="chord"):
        chords.parse(text)


def test_no_chord():
    assert all(map(chords.is_no_chord, ["N.C.", "NC", " N ", "", "n.c."]))
    assert not any(map(chords.is_no_chord, ["C", "Nm"]))


def test_degrees():
    assert [chords.degree(text) for text in ("1", "b3", "5", "#5", "7", "b9", "#11", "13")] == [
        0,
        3,
        7,
        8,
        10,
        1,
        6,
        9,
    ]
    for text in ("", "b", "15", "x"):
        with pytest.raises(ValueError):
            chords.degree(text)


@given(st.text(max_size=12))
def test_no_text_ends_in_another_error(text):
    for tried in (text, f"C{text}", f"C{text}/E"):
        try:
            found = chords.parse(tried)
        except ValueError:
            continue
        assert found.intervals[0] == 0 and max(found.intervals) < 12


@given(st.integers(0, 11), st.sets(st.integers(1, 11)), st.integers(0, 11))
def test_every_chord_is_read_back_from_its_name_in_every_key(root, steps, bass):
    chord = Chord(root, (0, *sorted(steps)), bass)
    assert _moved_around(chord) == chord


def _moved_around(chord: Chord) -> Chord:
    """The chord after 12 steps of a semitone, named and read at each."""
    for _ in range(12):
        moved = Chord((chord.root + 1) % 12, chord.intervals, (chord.bass + 1) % 12)
        assert chords.quality_name(moved.intervals) == chords.quality_name(chord.intervals)
        chord = chords.parse(chords.symbol(moved))
        assert chord == moved
    return chord


@pytest.mark.real_data
def test_chords_of_all_songs_are_read_and_return_after_twelve_steps():
    seen = {}
    for file in SONGS.glob("*.jsonl.gz"):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                seen |= {text: Chord(r, chords.fold(i), b) for *_, r, i, b, text in json.loads(line)["chords"]}
    assert len(seen) == 2280
    for text, chord in seen.items():
        assert _moved_around(chord) == chord
        assert chords.parse(text) == chord or chord.intervals == FLAT_FIVE, text
