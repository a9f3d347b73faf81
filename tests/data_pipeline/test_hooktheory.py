"""Hooktheory's JSON, in the schema of SheetSage's release and as TheoryTab keeps it."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers import hooktheory
from gapt_jax.data_pipeline.importers.folder import read_native
from gapt_jax.data_pipeline.importers.score import Score, to_song
from gapt_jax.data_pipeline.songs import BadSong, Song
from tests.data_pipeline.agreement import RAW, agreement, records

CLIP = {
    "tags": ["MELODY", "HARMONY"],
    "hooktheory": {"artist": "a-band", "song": "a-song"},
    "annotations": {
        "num_beats": 8,
        "meters": [{"beat": 0, "beats_per_bar": 4, "beat_unit": 4}],
        "melody": [
            {"onset": 0, "offset": 1.5, "octave": 0, "pitch_class": 11},
            {"onset": 2, "offset": 3, "octave": -1, "pitch_class": 0},
        ],
        "harmony": [
            {"onset": 0, "offset": 4, "root_pitch_class": 7, "root_position_intervals": [4, 3, 3], "inversion": 1},
            {"onset": 5, "offset": 8, "root_pitch_class": 0, "root_position_intervals": [4, 3], "inversion": 0},
        ],
    },
}


def read(value, chunk: int = 7) -> list[Score | Rejected]:
    text = value if isinstance(value, str) else json.dumps(value)
    return list(hooktheory.read((text[n : n + chunk] for n in range(0, len(text), chunk)), "file"))


def test_a_clip_by_hand():
    (score,) = read({"abc": CLIP})
    assert isinstance(score, Score) and score.name == "abc" and score.group == "a-band/a-song"
    assert score.notes == [(0, 1.5, 71), (2, 3, 48)] and score.beats_total == 8
    assert [chord[:5] for chord in score.chords] == [(0, 4, 7, (0, 4, 7, 10), 11), (5, 8, 0, (0, 4, 7), 0)]


def test_beats_of_eighths_are_half_a_quarter():
    clip = copy.deepcopy(CLIP)
    clip["annotations"]["meters"][0] |= {"beats_per_bar": 6, "beat_unit": 8}
    (score,) = read({"abc": clip})
    assert score.meter == (6, 8) and score.notes[0][:2] == (0, 0.75) and score.beats_total == 4


def test_sections_of_one_song_share_a_split():
    first, second = (to_song(score, "hooktheory") for score in read({"a": CLIP, "b": CLIP}))
    assert first.group == second.group and first.split == second.split and first.id != second.id


@pytest.mark.parametrize("size", [1, 2, 3, 10_000])
def test_members_come_one_by_one_whatever_the_chunks(size):
    text = ' {"a": [1, 2], "b" : {"c": "d\\u00e9,}"},"e":1}'
    chunks = (text[n : n + size] for n in range(0, len(text), size))
    assert list(hooktheory.clips(chunks)) == [("a", [1, 2]), ("b", {"c": "dé,}"}), ("e", 1)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":{} "b":2}',
        '{"a":{},}',
        "{1:2}",
        "[" * 9999,
        '{"a":' + "[" * 99999,
    ],
)
def test_no_json_is_one_clause(text):
    with pytest.raises(BadSong, match="the file"):
        assert read(text) is None


def _changed(path: str, value) -> dict:
    clip = copy.deepcopy(CLIP)
    *parents, last = path.split(".")
    place = clip
    for name in parents:
        place = place[int(name)] if name.isdigit() else place[name]
    place[last] = value
    return clip


@pytest.mark.parametrize(
    "path, value, reason",
    [
        ("annotations", None, "'meters' is missing"),
        ("annotations.melody", {}, "'melody' is not a list"),
        ("annotations.num_beats", 1e9, "'num_beats' is not a number in"),
        ("annotations.num_beats", float("nan"), "'num_beats'"),
        ("annotations.melody.0.offset", -1, "'offset'"),
        ("annotations.melody.0.offset", 0, "does not end after it starts"),
        ("annotations.melody.0.octave", 6, "range of MIDI"),
        ("annotations.melody.0.pitch_class", True, "'pitch_class'"),
        ("annotations.melody.0.pitch_class", 1.5, "whole number"),
        ("annotations.harmony.0.inversion", 9, "more inversions than notes"),
        ("annotations.harmony.0.root_position_intervals", [0], "steps of"),
        ("annotations.harmony.0.root_position_intervals", "43", "not a list"),
    ],
)
def test_a_bad_clip_is_left_out_and_the_others_go_on(path, value, reason):
    bad, good = read({"bad": _changed(path, value), "good": CLIP})
    assert isinstance(bad, Rejected) and reason in bad.reason and "bad" in bad.reason and bad.line == 1
    assert isinstance(good, Score)


def test_a_clip_without_a_melody_is_no_song():
    (score,) = read({"a": _changed("annotations.melody", None)})
    with pytest.raises(BadSong, match="no notes"):
        to_song(score, "d")


TAB = {
    "keys": [{"beat": 1, "scale": "minor", "tonic": "Eb"}],
    "meters": [{"beat": 1, "numBeats": 4, "beatUnit": 1}],
    "notes": [
        {"sd": "1", "octave": 0, "beat": 1, "duration": 1, "isRest": False},
        {"sd": "#7", "octave": -1, "beat": 2.5, "duration": 0.5, "isRest": False},
        {"sd": "1", "octave": 0, "beat": 3, "duration": 1, "isRest": True},
    ],
    "chords": [],
}


def function(scale: str = "major", tonic: str = "C", **changes):
    chord = {
        "root": 1,
        "beat": 1,
        "duration": 4,
        "type": 5,
        "inversion": 0,
        "applied": 0,
        "isRest": False,
        "borrowed": "",
    }
    chord |= {"adds": [], "omits": [], "alterations": [], "suspensions": []} | changes
    tab = TAB | {"keys": [{"beat": 1, "scale": scale, "tonic": tonic}], "chords": [chord]}
    (score,) = read(tab)
    return score.chords[0].symbol


@pytest.mark.parametrize(
    "changes, symbol",
    [
        ({"root": 2, "type": 7}, "Dm7"),
        ({"root": 5, "type": 7, "inversion": 3}, "G7/F"),
        ({"root": 7}, "Bdim"),
        ({"root": 5, "applied": 5, "type": 7}, "D7"),
        ({"root": 6, "applied": 5}, "E"),
        ({"root": 2, "applied": 7, "type": 7}, "Dbdim7"),
        ({"root": 6, "borrowed": "minor"}, "Ab"),
        ({"root": 1, "borrowed": [0, 2, 3, 5, 7, 9, 10]}, "Cm"),
        ({"suspensions": [4]}, "Csus4"),
        ({"adds": [9]}, "Cadd9"),
        ({"adds": [6]}, "C6"),
        ({"type": 7, "alterations": ["#5"]}, "Cmaj7#5"),
        ({"root": 5, "type": 7, "alterations": ["b9"]}, "G7b9"),
        ({"root": 5, "type": 9, "omits": [5]}, "G(0,2,4,10)"),
        ({"scale": "minor", "tonic": "A", "root": 5}, "Em"),
        ({"scale": "harmonicMinor", "tonic": "A", "root": 5}, "E"),
        ({"scale": "dorian", "tonic": "D", "root": 4}, "G"),
        ({"root": 5, "type": 7, "substitutions": ["tri"]}, "Db7"),
        ({"root": 2, "type": 7, "applied": 5, "substitutions": ["tri"], "inversion": 3}, "Eb7/Db"),
        ({"scale": "minor", "tonic": "G", "type": 9, "applied": 5, "substitutions": ["tri"]}, "Ab9"),
        ({"root": 5, "type": 7, "substitutions": []}, "G7"),
        ({"root": 5, "type": 7, "alterations": ["b9", "#9"]}, "G(0,1,3,4,7,10)"),
        ({"root": 5, "type": 7, "alterations": ["#5", "b5"]}, "G(0,4,6,8,10)"),
        ({"suspensions": [4], "inversion": 1}, "Csus4/F"),
        ({"suspensions": [2], "inversion": 1}, "Csus2/D"),
        ({"suspensions": [4], "inversion": 2}, "Csus4/G"),
        ({"root": 5, "type": 7, "suspensions": [4], "inversion": 3}, "G7sus4/F"),
        ({"scale": "minor", "tonic": "B", "borrowed": [-1, 1, 3, 5, 6, 8, 10]}, "Bb"),
        ({"pedal": None, "alternate": "", "recordingEndBeat": 3.5, "id": "x", "halfDim": False}, "C"),
    ],
)
def test_functions(changes, symbol):
    assert function(**changes) == symbol


def test_scale_degrees_and_rests():
    (score,) = read(TAB)
    assert score.notes == [(0, 1, 63), (1.5, 2, 62)] and score.name == "file"


@pytest.mark.parametrize(
    "changes",
    [{"root": 9}, {"type": 6}, {"inversion": 3}, {"borrowed": "martian"}, {"adds": [5]}, {"beat": 0}, {"tonic": "X"}],
)
def test_bad_functions_are_refused(changes):
    with pytest.raises(BadSong):
        function(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"pedal": 1}, {"alternate": "b"}, {"halfDim": True}, {"substitutions": ["tri", "x"]}, {"suspensions": [7]}],
)
def test_what_a_chord_says_beyond_what_is_read_is_refused_by_its_name(changes):
    with pytest.raises(BadSong, match=f"'{next(iter(changes))}'"):
        function(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"suspensions": [2, 4], "inversion": 1},
        {"type": 7, "alterations": ["b5", "#5"], "inversion": 2},
        {"omits": [3], "inversion": 1},
    ],
)
def test_inversions_on_no_note_or_on_two_are_refused(changes):
    with pytest.raises(BadSong, match="inverted"):
        function(**changes)


def test_a_file_without_a_song_is_a_fault():
    for text in ("{}", " {\n} "):
        with pytest.raises(BadSong, match="it has no song"):
            read(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*CLIP, *CLIP["annotations"], *TAB, "onset", "beat"]), inner, max_size=5)
        ),
        max_leaves=15,
    )
)
def test_no_json_ends_in_another_error(value):
    for clip in ({"a": value}, {"a": {"annotations": value}}, value if isinstance(value, dict) else {}):
        try:
            for score in read(clip, 1000):
                if isinstance(score, Score):
                    to_song(score, "d")
        except BadSong:
            pass


@pytest.mark.real_data
def test_real_clips_agree_with_their_records():
    found = {song.id: song for song in read_native(RAW / "hooktheory_json", "h") if isinstance(song, Song)}
    assert agreement(found.pop("h/qveoYyGGodn"), records("hooktheory")["hooktheory/qveoYyGGodn"]) == (1, 1)
    example = found.pop("h/theorytab_raw_ExampleAnalysis")
    assert [chord.symbol for chord in example.chords] == ["Dm", "G", "C", "Am", "Dm"]
    assert len(found) == 13
    for identity, song in found.items():
        expected = records("openewld")[identity.replace("h/openewld_", "openewld/")]
        # One clip's num_beats is half a beat longer than its music.
        assert agreement(song, expected) == (1, 1) or (expected.title == "L'Internationale" and song.beats_total == 127)


@pytest.mark.real_data
def test_common_chords_have_no_melody_but_their_names():
    path = RAW / "hooktheory_json" / "theorytab_raw_CommonChords.json"
    (score,) = read(path.read_text("utf-8-sig"), 1000)
    names = (
        "C Dm Dm7 G7 Cmaj7 Csus4 Cadd9 Bdim Bm7b5 Csus2 G7sus4 Dm9 Cmaj9 G7sus2 Dmadd9 Bdim7 Cmaj7sus2 G9 Csus24 Caug"
    )
    assert [chord.symbol for chord in score.chords] == names.split()
    with pytest.raises(BadSong, match="no notes"):
        to_song(score, "d")
