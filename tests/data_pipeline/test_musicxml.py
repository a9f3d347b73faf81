import io
import re
import time
import zipfile

import numpy as np
import pytest

from gapt_jax.data_pipeline.importers import musicxml, musicxml_harmony
from gapt_jax.data_pipeline.importers.score import Score, to_song
from gapt_jax.data_pipeline.songs import BadSong, to_frames
from tests.data_pipeline.agreement import RAW, agreement, records

DIVISIONS = 4
SHEETS = RAW / "openewld"


def note(name: str, beats: float, inside: str = "") -> str:
    """``note("F#4", 1)``; "r" is a rest."""
    sounding = "<rest/>"
    if name != "r":
        step, alter, octave = re.fullmatch("([A-G])([#b]?)(.)", name).groups()
        altered = {"#": "<alter>1</alter>", "b": "<alter>-1</alter>", "": ""}[alter]
        sounding = f"<pitch><step>{step}</step>{altered}<octave>{octave}</octave></pitch>"
    return f"<note>{inside}{sounding}<duration>{int(beats * DIVISIONS)}</duration></note>"


def chord(root: str, kind: str = "major", inside: str = "", text: str = "") -> str:
    alter = root.count("#") - root.count("b")
    root_element = f"<root><root-step>{root[0]}</root-step><root-alter>{alter}</root-alter></root>"
    return f'<harmony>{root_element}<kind text="{text}">{kind}</kind>{inside}</harmony>'


def degree(value: int, alter: int, kind: str) -> str:
    parts = f"<degree-value>{value}</degree-value><degree-alter>{alter}</degree-alter><degree-type>{kind}</degree-type>"
    return f"<degree>{parts}</degree>"


def start_of(beats: int = 4, unit: int = 4, divisions: object = DIVISIONS, inside: str = "") -> str:
    time_element = f"<time><beats>{beats}</beats><beat-type>{unit}</beat-type></time>"
    return f"<attributes><divisions>{divisions}</divisions>{time_element}{inside}</attributes>"


def bar_line(inside: str, location: str = "right") -> str:
    return f'<barline location="{location}">{inside}</barline>'


FORWARD = bar_line('<repeat direction="forward"/>', "left")
BACKWARD = bar_line('<repeat direction="backward"/>')


def ending(number: str, kind: str, inside: str = "") -> str:
    return bar_line(f'<ending number="{number}" type="{kind}"/>{inside}', "left" if kind == "start" else "right")


def sheet(*measures: str, head: str = "", prologue: str = "") -> bytes:
    """A file of one part; the first measure should begin with `start_of`."""
    inside = "".join(m if m.startswith("<measure") else f"<measure>{m}</measure>" for m in measures)
    return f"{prologue}<score-partwise>{head}<part>{inside}</part></score-partwise>".encode()


def read(*measures: str, **options: str) -> Score:
    return musicxml.read(sheet(*measures, **options), "tune")


def notes_of(score: Score) -> list[tuple[float, float, int]]:
    return [tuple(played) for played in score.notes]


def letters(score: Score) -> str:
    """Steps in playing order, for tunes of natural notes."""
    return "".join("C.D.EF.G.A.B"[played.pitch % 12] for played in score.notes)


def one_chord(harmony: str) -> tuple[int, tuple[int, ...], int]:
    score = read(start_of() + harmony + note("C4", 4))
    return score.chords[0].root, score.chords[0].intervals, score.chords[0].bass


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


PLAIN = sheet(start_of() + chord("C") + note("C4", 2) + note("D4", 2))


def test_a_tune_has_its_notes_chords_metre_name_and_title() -> None:
    head = "<work><work-title> Two\n bars </work-title></work><movement-title>other</movement-title>"
    score = read(
        start_of(3, 4) + chord("C") + note("C4", 2) + note("F#4", 1),
        chord("Bb", "dominant", "<bass><bass-step>D</bass-step></bass>") + note("r", 1) + note("Bb3", 2),
        head=head,
    )
    assert notes_of(score) == [(0, 2, 60), (2, 3, 66), (4, 6, 58)]
    assert [tuple(c) for c in score.chords] == [(0, 3, 0, (0, 4, 7), 0, "C"), (3, 6, 10, (0, 4, 7, 10), 2, "Bb7/D")]
    assert (score.name, score.title, score.meter, score.pickup, score.beats_total) == ("tune", "Two bars", (3, 4), 0, 6)
    assert to_song(score, "mine").id == "mine/tune"


def test_movement_title_is_the_title_where_the_work_has_none() -> None:
    assert read(start_of() + note("C4", 4), head="<movement-title>A</movement-title>").title == "A"
    assert read(start_of() + note("C4", 4)).title is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str) -> None:
    declared = "utf-16" if encoding == "utf-16" else "utf-8"
    content = sheet(start_of() + note("C4", 4), head="<movement-title>Âme — 歌</movement-title>")
    text = f'<?xml version="1.0" encoding="{declared}"?>' + content.decode()
    assert musicxml.read(text.encode(encoding), "x").title == "Âme — 歌"


def test_the_document_type_of_musicxml_is_allowed() -> None:
    doctype = '<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://x.org/a.dtd">'
    assert letters(read(start_of() + note("C4", 4), prologue=doctype)) == "C"


def test_the_first_part_with_notes_and_the_voice_that_comes_first() -> None:
    rests = f"<part><measure>{start_of()}{note('r', 4)}</measure></part>"
    upper, lower = "<voice>1</voice>", "<voice>2</voice>"
    both = (
        note("r", 2, upper) + note("E5", 2, upper) + "<backup><duration>16</duration></backup>" + note("C3", 4, lower)
    )
    score = read(start_of() + both, head=rests)
    assert notes_of(score) == [(2, 4, 76)]


def test_backup_and_forward_move_the_position() -> None:
    score = read(
        start_of() + "<forward><duration>4</duration></forward>" + note("C4", 2),
        note("D4", 1) + "<backup><duration>2</duration></backup>" + note("E4", 3) + chord("C"),
    )
    assert notes_of(score) == [(1, 3, 60), (3, 4, 62), (3.5, 6.5, 64)]
    assert score.beats_total == 6.5 and score.chords == []


def test_of_notes_struck_together_the_highest_stays() -> None:
    struck = note("C4", 1) + note("G4", 1, "<chord/>") + note("E4", 1, "<chord/>") + note("D4", 3)
    score = read(start_of() + chord("C") + struck)
    assert [played[:2] for played in notes_of(score)] == [(0, 1), (0, 1), (0, 1), (1, 4)]
    assert [played.pitch for played in to_song(score, "mine").melody] == [67, 62]


def test_grace_cue_and_drum_notes_are_left_out() -> None:
    grace = "<note><grace/><pitch><step>D</step><octave>4</octave></pitch></note>"
    drum = "<note><unpitched/><duration>4</duration></note>"
    score = read(start_of() + grace + note("C4", 1) + note("E4", 1, "<cue/>") + drum + note("F4", 1))
    assert notes_of(score) == [(0, 1, 60), (3, 4, 65)]


def test_ties_join_notes_of_one_pitch_that_touch() -> None:
    begins, ends, both = '<tie type="start"/>', '<tie type="stop"/>', '<tie type="stop"/><tie type="start"/>'
    score = read(
        start_of() + note("C4", 4, begins),
        note("C4", 4, both),
        note("C4", 1, ends) + note("C4", 1, begins) + note("r", 1) + note("C4", 1, ends),
        note("D4", 2, begins) + note("E4", 2, ends),
    )
    assert notes_of(score) == [(0, 9, 60), (9, 10, 60), (11, 12, 60), (12, 14, 62), (14, 16, 64)]


def test_divisions_and_metre_may_change() -> None:
    score = read(
        start_of(6, 8) + note("C4", 3),
        "<attributes><divisions>3</divisions><time><beats>2</beats><beat-type>4</beat-type></time></attributes>"
        "<note><pitch><step>D</step><octave>4</octave></pitch><duration>1</duration></note>" * 3,
        "",
    )
    thirds = [played[0] for played in notes_of(score)[1:]]
    assert thirds == pytest.approx([3, 3 + 1 / 3, 3 + 2 / 3])
    assert score.meter == (6, 8)
    assert score.beats_total == 6, "a measure without notes has the length of its metre"


@pytest.mark.parametrize(
    ("inside", "meter"),
    [
        ("<beats>3+2</beats><beat-type>8</beat-type>", (5, 8)),
        ("<beats>3</beats><beat-type>8</beat-type><beats>1</beats><beat-type>4</beat-type>", (5, 8)),
        ("<senza-misura/>", (4, 4)),
    ],
)
def test_composite_metres(inside: str, meter: tuple[int, int]) -> None:
    attributes = f"<attributes><divisions>4</divisions><time>{inside}</time></attributes>"
    score = read(attributes + note("C4", 4), "")
    assert score.meter == meter and score.beats_total == 4 + 4 * meter[0] / meter[1]


def test_a_pickup_is_a_short_or_an_implicit_first_measure() -> None:
    assert read(start_of() + note("C4", 1), note("D4", 4)).pickup == 1
    implicit = f'<measure implicit="yes">{start_of(1, 4)}{note("C4", 1)}</measure>'
    assert read(implicit, note("D4", 1)).pickup == 1
    assert read(start_of() + note("C4", 4), note("D4", 4)).pickup == 0


def test_measures_of_another_length_than_the_metre_keep_theirs() -> None:
    score = read(start_of() + note("C4", 4), note("D4", 1), note("E4", 6), note("F4", 4))
    assert [played[0] for played in notes_of(score)] == [0, 4, 5, 11] and score.beats_total == 15


def test_transposing_parts_sound_elsewhere_with_their_chords() -> None:
    transpose = (
        "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic><octave-change>-1</octave-change></transpose>"
    )
    bass = "<bass><bass-step>C</bass-step></bass>"
    score = read(start_of(inside=transpose) + chord("D", "minor", bass) + note("D5", 4))
    assert notes_of(score) == [(0, 4, 60)]
    assert score.chords[0][2:5] == (0, (0, 3, 7), 10)


A, B, C, D, E, F = (note(f"{letter}4", 4) for letter in "ABCDEF")


@pytest.mark.parametrize(
    ("measures", "played"),
    [
        ([A, B + BACKWARD, C], "ABABC"),
        ([A, FORWARD + B, C + BACKWARD, D], "ABCBCD"),
        ([A + BACKWARD, B + BACKWARD, C], "AABBC"),
        ([FORWARD + A + bar_line('<repeat direction="backward" times="3"/>'), B], "AAAB"),
        (
            [FORWARD + A, ending("1", "start") + B + ending("1", "stop") + BACKWARD, ending("2", "start") + C, D],
            "ABACD",
        ),
        (
            [
                FORWARD + A,
                ending("1,2", "start") + B + ending("1,2", "stop", '<repeat direction="backward"/>'),
                ending("3.", "start") + C + ending("3", "discontinue"),
                D,
                FORWARD + E + BACKWARD,
            ],
            "ABABACDEE",
        ),
        (
            [FORWARD + A, ending("1", "start") + B + ending("1", "stop", '<repeat direction="backward"/>'), C],
            "ABAC",
        ),
        (
            [
                A,
                ending("1", "start") + B + ending("1", "stop", '<repeat direction="backward"/>'),
                ending("2", "start") + C + ending("2", "stop", '<repeat direction="backward"/>'),
                D,
            ],
            "ABACD",
        ),
        ([A, FORWARD + B, FORWARD + C + BACKWARD, D + BACKWARD, E], "ABCCDDE"),
        ([FORWARD + A, B], "AB"),
        ([A, ending("1", "start") + B + ending("1", "stop"), ending("2", "start") + C + ending("2", "stop")], "ABC"),
        (
            [
                FORWARD + A,
                ending("1", "start") + B + ending("1", "stop", '<repeat direction="backward"/>'),
                ending("3", "start") + C + ending("3", "stop"),
                D,
            ],
            "ABABACD",
        ),
        (
            [
                FORWARD + A,
                ending("1", "start") + B + ending("1", "stop"),
                C + BACKWARD,
                ending("2", "start") + D + ending("2", "stop"),
                E + BACKWARD,
                F,
            ],
            "ABCADEEF",
        ),
    ],
    ids=[
        "from the start",
        "forward and backward",
        "two in a row",
        "three times",
        "endings",
        "an ending for two passes, then another repeat",
        "only a first ending",
        "a repeat sign after the last ending",
        "nested",
        "a repeat that never ends",
        "endings without a repeat",
        "endings 1 and 3",
        "a bracket shorter than the ending",
    ],
)
def test_repeats_and_endings_are_played_out(measures: list[str], played: str) -> None:
    score = read(start_of() + measures[0], *measures[1:])
    assert letters(score) == played and score.beats_total == 4 * len(played)


def test_chords_and_ties_follow_the_playing_order() -> None:
    tied, stop = '<tie type="start"/>', '<tie type="stop"/>'
    score = read(
        start_of() + chord("C") + note("C4", 4, tied),
        ending("1", "start") + note("C4", 4, stop) + chord("G") + ending("1", "stop", '<repeat direction="backward"/>'),
        ending("2", "start") + note("C4", 4, stop) + ending("2", "stop"),
    )
    assert notes_of(score) == [(0, 8, 60), (8, 16, 60)]
    assert [(c.onset, c.offset, c.symbol) for c in score.chords] == [(0, 8, "C"), (8, 16, "C")]


def test_chords_stand_at_their_offset_and_the_last_of_one_place_counts() -> None:
    score = read(
        start_of() + chord("C") + chord("D") + note("C4", 2) + chord("E", inside="<offset>-4</offset>") + note("D4", 2),
        chord("none", "none") + note("E4", 4),
        chord("F", inside="<offset>8</offset>") + note("F4", 4) + chord("G", inside="<offset>80</offset>"),
    )
    assert [(c.onset, c.offset, c.symbol) for c in score.chords] == [(0, 1, "D"), (1, 4, "E"), (10, 12, "F")]


def test_alternate_chords_are_left_out() -> None:
    alternate = chord("D").replace("<harmony>", '<harmony type="alternate">')
    assert one_chord(chord("C") + alternate)[0] == 0


STANDARD_KINDS = {
    "augmented": (0, 4, 8),
    "augmented-seventh": (0, 4, 8, 10),
    "diminished": (0, 3, 6),
    "diminished-seventh": (0, 3, 6, 9),
    "dominant": (0, 4, 7, 10),
    "dominant-11th": (0, 2, 4, 5, 7, 10),
    "dominant-13th": (0, 2, 4, 7, 9, 10),
    "dominant-ninth": (0, 2, 4, 7, 10),
    "French": (0, 4, 6, 10),
    "German": (0, 4, 7, 10),
    "half-diminished": (0, 3, 6, 10),
    "Italian": (0, 4, 10),
    "major": (0, 4, 7),
    "major-11th": (0, 2, 4, 5, 7, 11),
    "major-13th": (0, 2, 4, 7, 9, 11),
    "major-minor": (0, 3, 7, 11),
    "major-ninth": (0, 2, 4, 7, 11),
    "major-seventh": (0, 4, 7, 11),
    "major-sixth": (0, 4, 7, 9),
    "minor": (0, 3, 7),
    "minor-11th": (0, 2, 3, 5, 7, 10),
    "minor-13th": (0, 2, 3, 5, 7, 9, 10),
    "minor-ninth": (0, 2, 3, 7, 10),
    "minor-seventh": (0, 3, 7, 10),
    "minor-sixth": (0, 3, 7, 9),
    "Neapolitan": (0, 4, 7),
    "pedal": (0,),
    "power": (0, 7),
    "suspended-fourth": (0, 5, 7),
    "suspended-second": (0, 2, 7),
    "Tristan": (0, 3, 6, 10),
}


def test_all_kinds_of_the_standard() -> None:
    assert set(musicxml_harmony._KINDS) == set(STANDARD_KINDS)
    for kind, intervals in STANDARD_KINDS.items():
        assert one_chord(chord("Eb", kind)) == (3, intervals, 3), kind


@pytest.mark.parametrize(
    ("harmony", "expected"),
    [
        (chord("C", "dominant", degree(9, -1, "add")), (0, 1, 4, 7, 10)),
        (chord("C", "dominant", degree(9, -1, "add") + degree(9, 1, "add")), (0, 1, 3, 4, 7, 10)),
        (chord("C", "major", degree(7, 1, "add")), (0, 4, 7, 11)),
        (chord("C", "minor-seventh", degree(5, -1, "alter")), (0, 3, 6, 10)),
        (chord("C", "diminished", degree(5, 1, "alter")), (0, 3, 7)),
        (chord("C", "dominant", degree(11, 1, "alter")), (0, 4, 6, 7, 10)),
        (chord("C", "dominant-ninth", degree(5, 0, "subtract")), (0, 2, 4, 10)),
        (chord("C", "suspended-fourth", degree(7, 0, "add")), (0, 5, 7, 10)),
        (chord("C", "other", text="7b9"), (0, 1, 4, 7, 10)),
        (chord("C", "other", degree(9, -1, "add"), text="7"), (0, 1, 4, 7, 10)),
        (chord("C", "major-69", text="6/9"), (0, 2, 4, 7, 9)),
        (chord("C", "", text="maj7"), (0, 4, 7, 11)),
        (chord("C", "other", degree(3, -1, "add") + degree(4, 1, "add")), (0, 3, 6)),
        (chord("C", "other", degree(4, 0, "add") + degree(7, 0, "add"), text="quartal?"), (0, 5, 10)),
    ],
)
def test_degrees_and_printed_texts(harmony: str, expected: tuple[int, ...]) -> None:
    assert one_chord(harmony) == (0, expected, 0)


def test_an_inversion_without_a_bass_has_one() -> None:
    assert one_chord(chord("D", "dominant", "<inversion>3</inversion>")) == (2, (0, 4, 7, 10), 0)
    bass = "<inversion>1</inversion><bass><bass-step>G</bass-step></bass>"
    assert one_chord(chord("D", "minor", bass)) == (2, (0, 3, 7), 7)


def test_nothing_is_played_where_the_text_says_so() -> None:
    assert read(start_of() + chord("C", "other", text="N.C.") + note("C4", 4)).chords == []


@pytest.mark.parametrize(
    ("harmony", "reason"),
    [
        (chord("C", "other", text="mystic"), r"kind 'other' \(text 'mystic'\), which is not understood"),
        (chord("C", "other", text="b9"), "not understood"),
        (chord("C", "other"), "not understood"),
        (chord("C", "quartal", degree(4, 0, "add")), "kind 'quartal'"),
        (chord("C", "other", degree(5, 0, "subtract"), text="7"), "not understood"),
        (chord("C", "major", degree(99, 0, "add")), "chord degree is '99'"),
        (chord("C", "major", degree(9, 7, "add")), "degree-alter is '7'"),
        (chord("C", "major", degree(9, 0, "double")), "type 'double'"),
        (chord("C", "major", degree(9, 0, "add") * 17), "more than 16 degrees"),
        (chord("H"), "chord root has the step 'H'"),
        (chord("C", inside="<bass><bass-step/></bass>"), "chord bass has the step ''"),
        (chord("C", inside="<inversion>x</inversion>"), "inversion is 'x'"),
        (chord("C", inside="<offset>1e9</offset>"), "harmony offset is '1e9'"),
        ("<harmony><function>V</function><kind>major</kind></harmony>", "function or numeral"),
        ("<harmony><numeral><numeral-root>5</numeral-root></numeral><kind>major</kind></harmony>", "numeral"),
        ("<harmony><root><root-step>C</root-step></root></harmony>", "without a kind"),
        (chord("C", inside="<root><root-step>D</root-step></root><kind>major</kind>"), "a chord upon a chord"),
    ],
)
def test_chords_that_are_not_understood_are_never_simplified(harmony: str, reason: str) -> None:
    with pytest.raises(BadSong, match=reason):
        one_chord(harmony)


def pitched(step: str = "C", alter: str = "0", octave: str = "4", duration: str = "4") -> str:
    pitch = f"<pitch><step>{step}</step><alter>{alter}</alter><octave>{octave}</octave></pitch>"
    return f"<note>{pitch}<duration>{duration}</duration></note>"


@pytest.mark.parametrize(
    ("measure", "reason"),
    [
        (start_of(divisions=0) + pitched(), "divisions is '0'"),
        (start_of(divisions="-4") + pitched(), "divisions is '-4'"),
        (start_of(divisions="9" * 400) + pitched(), "divisions is '9{40}'"),
        (start_of(divisions="nan") + pitched(), "divisions is 'nan'"),
        (pitched(), "no divisions"),
        (start_of() + pitched(duration="1" + "0" * 12), "duration is '1000000000000'"),
        (start_of() + pitched(duration="999999999999"), "measure of more than 20000 beats"),
        (start_of() + pitched(duration="-4"), "less than nothing"),
        (start_of() + pitched(duration=""), "duration is ''"),
        (start_of() + pitched(duration="٤"), "not a number"),
        (start_of() + pitched(alter="nan"), "alter of a note is 'nan'"),
        (start_of() + pitched(alter="inf"), "alter of a note is 'inf'"),
        (start_of() + pitched(alter="0.5"), "not a whole number in -4..4"),
        (start_of() + pitched(octave="99"), "octave of a note is '99'"),
        (start_of() + pitched(octave="10", step="B"), "outside the MIDI pitches"),
        (start_of() + pitched(step="H"), "note has the step 'H'"),
        (start_of(0, 4) + pitched(), "metre is '0'"),
        (start_of(4, 3) + pitched(), "metre is none of"),
        (start_of(64, 1) + pitched() + start_of(10**6, 4), "metre is '1000000'"),
        (
            start_of() + pitched() + bar_line('<repeat direction="backward" times="999999999"/>'),
            "repeats is '999999999'",
        ),
        (start_of() + ending("999999999", "start") + pitched(), "ending of the number '999999999'"),
        (start_of() + ending("1-x", "start") + pitched(), "ending of the number '1-x'"),
        (start_of(inside="<transpose><chromatic>x</chromatic></transpose>") + pitched(), "transposition is 'x'"),
        (start_of() + "<note><rest/><duration>4</duration></note>", "no notes"),
    ],
)
def test_absurd_values_are_refused_with_the_reason(measure: str, reason: str) -> None:
    with pytest.raises(BadSong, match=reason) as refused:
        read(measure)
    assert len(str(refused.value)) < 150


def refused(content: bytes) -> str:
    began = time.perf_counter()
    with pytest.raises(BadSong) as raised:
        musicxml.read(content, "tune")
    assert time.perf_counter() - began < 5
    return str(raised.value)


def test_what_grows_when_it_is_played_is_limited() -> None:
    many = "".join(f"<attributes><divisions>{value}</divisions></attributes>" for value in range(1, 40))
    assert "different numbers of divisions" in refused(sheet(many + pitched()))
    long_measure = start_of() + pitched(duration="40000") + bar_line('<repeat direction="backward" times="16"/>')
    assert "20000 beats" in refused(sheet(long_measure))
    short = "<note><rest/><duration>0.000001</duration></note>"
    assert "50000 notes" in refused(sheet(start_of() + pitched(), *[short] * 60_000))


def test_entities_are_refused() -> None:
    laughs = '<!ENTITY l0 "ha">' + "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    quadratic = f'<!ENTITY a "{"a" * 100_000}">'
    external = '<!ENTITY a SYSTEM "file:///etc/passwd">'
    parameter = '<!ENTITY % a SYSTEM "http://127.0.0.1:9/a.dtd"> %a;'
    for entities in (laughs, quadratic, external, parameter):
        content = sheet(start_of() + note("C4", 4), head="&a;" * 1000, prologue=f"<!DOCTYPE x [{entities}]>")
        assert refused(content) == "its XML declares entities, which are refused"


def test_broken_xml_is_refused() -> None:
    for content in (b"", b"MThd\0\0\0\6", PLAIN[:-30], PLAIN + b"<", b"\xff\xfe<"):
        assert refused(content).startswith("it is no well-formed XML")
    assert refused(PLAIN.replace(b"C", b"\xff", 1)) == "its chord root has the step 'ÿ'"
    assert "entity" in refused(sheet(start_of() + note("C4", 4), head="&nothing;"))


def test_other_documents_are_refused() -> None:
    assert refused(b"<score-timewise/>") == "it is score-timewise: convert it to score-partwise"
    assert refused(b"<html/>") == "its root element is 'html', not 'score-partwise'"
    assert refused(b"<score-partwise/>") == "it has no notes"


def test_size_and_number_of_tags_are_limited() -> None:
    assert refused(b"<a>" + b" " * (16 << 20)) == "it is larger than 16 MiB"
    assert refused(b"<a/>" * 1_000_001) == "it has more than 1000000 tags"
    assert "root element" in refused(b"<a>" * 100_000 + b"</a>" * 100_000)


def test_compressed_files_are_read_by_their_container() -> None:
    container = b'<container><rootfiles><rootfile full-path="scores/b.xml"/></rootfiles></container>'
    other = sheet(start_of() + note("E4", 4))
    members = {"META-INF/container.xml": container, "a.xml": other, "scores/b.xml": PLAIN}
    assert letters(musicxml.read(archive(members), "x")) == "CD"


@pytest.mark.parametrize("path", [None, "I'm.xml", "gone.xml", ""])
def test_without_a_readable_container_the_first_score_is_read(path: str | None) -> None:
    container = f"<container><rootfiles><rootfile full-path='{path}'/></rootfiles></container>".encode()
    members = {"META-INF/x.xml": b"<x/>"} if path is None else {"META-INF/container.xml": container}
    assert letters(musicxml.read(archive(members | {"a.musicxml": PLAIN}), "x")) == "CD"


def test_names_in_an_archive_reach_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    container = b"<container><rootfiles><rootfile full-path='../../../etc/passwd'/></rootfiles></container>"
    content = archive({"META-INF/container.xml": container, "/etc/passwd.xml": PLAIN, "../../b.xml": b"<b/>"})
    monkeypatch.setattr("builtins.open", lambda *a, **k: pytest.fail("a file was opened"))
    assert letters(musicxml.read(content, "x")) == "CD"


def test_hostile_archives_are_refused() -> None:
    bomb = archive({"a.xml": b"<score-partwise>" + b" " * (17 << 20)})
    assert len(bomb) < 100_000 and refused(bomb) == "its archive holds a file of more than 16 MiB"
    size = (17 << 20) + len("<score-partwise>")
    lying = bomb.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert lying != bomb and "damaged" in refused(lying)
    good = archive({"a.xml": PLAIN})
    for cut in range(2, len(good) - 1, 7):
        assert refused(good[:cut]) == "its archive is damaged or truncated"
    assert refused(archive({f"{i}.xml": PLAIN for i in range(65)})) == "its archive has more than 64 files"
    assert refused(archive({"a.txt": PLAIN})) == "its archive has no MusicXML file"
    assert refused(archive({"a.xml": PLAIN}, zipfile.ZIP_BZIP2)) == "its archive is not compressed by Deflate"
    assert refused(encrypted(good)) == "its archive is encrypted"


def encrypted(content: bytes) -> bytes:
    """The archive with the flag of encryption set in its directory."""
    place = content.index(b"PK\1\2") + 8
    return content[:place] + b"\1" + content[place + 1 :]


def test_damage_anywhere_is_a_bad_song_or_a_score() -> None:
    random = np.random.default_rng(0)
    for content in (PLAIN, archive({"a.xml": PLAIN}), archive({"a.xml": PLAIN}, zipfile.ZIP_STORED)):
        for _ in range(400):
            damaged = bytearray(content)
            damaged[random.integers(len(content))] = random.integers(256)
            try:
                musicxml.read(bytes(damaged), "x")
            except BadSong as error:
                assert str(error)


# Beats until which the record agrees, length as we play it, and why the two differ after that.
EXPLAINED = {
    "openewld/1208": (
        99.5,
        150.5,
        "endings 1 and 3: the record plays two passes and no last ending; we play ending 1 twice, then 3",
    ),
    "openewld/1676": (
        130,
        258,
        "the bracket of ending 1 stops a bar before the repeat sign: the record repeats that one bar, we all",
    ),
    "openewld/2154": (
        195,
        387,
        "the bracket of ending 1 stops a bar before the repeat sign: the record repeats that one bar, we all",
    ),
}


@pytest.fixture(scope="module")
def sheets() -> dict[str, Score]:
    numbered = {path: path.name.split("_")[0] for path in sorted(SHEETS.glob("*.mxl"))}
    return {f"openewld/{stem}": musicxml.read(path.read_bytes(), stem) for path, stem in numbered.items()}


@pytest.mark.real_data
def test_real_sheets_agree_with_the_records(sheets: dict[str, Score]) -> None:
    expected = records("openewld")
    shares, lengths = [], []
    for name, score in sheets.items():
        song = to_song(score, "openewld")
        assert (song.id, song.meter, song.pickup) == (name, expected[name].meter, expected[name].pickup)
        if name not in EXPLAINED:
            shares.append(agreement(song, expected[name]))
            lengths.append(expected[name].beats_total)
            assert min(shares[-1]) > 0.98, name
    assert len(shares) == 11
    melody, harmony = np.average(shares, axis=0, weights=lengths)
    assert melody >= 0.99 and harmony >= 0.98


@pytest.mark.real_data
@pytest.mark.parametrize("name", EXPLAINED)
def test_real_sheets_that_differ_do_so_only_where_explained(sheets: dict[str, Score], name: str) -> None:
    until, length, reason = EXPLAINED[name]
    found, expected = to_frames(to_song(sheets[name], "openewld")), to_frames(records("openewld")[name])
    assert sheets[name].beats_total == length, reason
    frames = int(4 * until)
    for part in ("melody_pitch", "melody_onset", "chord_root", "chord_intervals"):
        assert np.array_equal(getattr(found, part)[:frames], getattr(expected, part)[:frames]), (part, reason)
