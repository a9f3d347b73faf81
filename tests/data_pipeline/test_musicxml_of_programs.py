"""MusicXML as programs write it, and as it should not be: what is meant is read all the same."""

import itertools
import time

import pytest

from gapt_jax import chords
from gapt_jax.data_pipeline.importers import musicxml
from gapt_jax.data_pipeline.importers.musicxml_harmony import typed_chords
from gapt_jax.data_pipeline.importers.score import Score
from gapt_jax.data_pipeline.songs import BadSong
from tests.data_pipeline.test_musicxml import bar_line, chord, ending, letters, note, notes_of, read, sheet, start_of

BACKUP = "<backup><duration>16</duration></backup>"
REST = note("r", 4)


def run(names: str, voice: int = 1, inside: str = "") -> str:
    """Quarter notes of octave 4, "r" for a rest."""
    extra = f"<voice>{voice}</voice>{inside}"
    return "".join(note(name if name == "r" else f"{name}4", 1, extra) for name in names)


def words(*texts: str, inside: str = "", enclosure: str = "none") -> str:
    written = "".join(f'<words enclosure="{enclosure}">{text}</words>' for text in texts)
    return f"<direction><direction-type>{written}</direction-type>{inside}</direction>"


def style(inside: str, number: str = "") -> str:
    return f"<attributes><measure-style{number}>{inside}</measure-style></attributes>"


def parts(*measures_of_parts: tuple[str, ...]) -> Score:
    inside = "".join(f"<part>{''.join(f'<measure>{m}</measure>' for m in part)}</part>" for part in measures_of_parts)
    return musicxml.read(f"<score-partwise>{inside}</score-partwise>".encode(), "x")


def symbols(score: Score) -> list[tuple[float, float, str]]:
    return [(event.onset, event.offset, event.symbol) for event in score.chords]


def test_chords_of_another_part() -> None:
    melody = (start_of() + run("CDEF"), run("GABC"))
    bass = (start_of(divisions=8) + chord("C") + note("C3", 4), chord("G") + note("G2", 4))
    assert symbols(parts(melody, bass)) == [(0, 4, "C"), (4, 8, "G")] and letters(parts(melody, bass)) == "CDEFGABC"
    own = (start_of() + chord("F") + run("CDEF"), run("GABC"))
    assert symbols(parts(own, bass)) == [(0, 8, "F")], "the melody's own part goes first"
    transpose = "<transpose><chromatic>-2</chromatic></transpose>"
    transposed = (start_of(inside=transpose) + chord("D") + REST, words("A7") + REST)
    assert symbols(parts(melody, transposed)) == [(0, 4, "C"), (4, 8, "G7")]
    alternate = chord("F").replace("<harmony>", '<harmony type="alternate">')
    assert symbols(parts((melody[0] + alternate, melody[1]), bass)) == [(0, 4, "C"), (4, 8, "G")]


def test_chords_of_another_part_are_repeated_with_the_melody() -> None:
    melody = (start_of() + run("CDEF"), run("GABC") + bar_line('<repeat direction="backward"/>'))
    bass = (start_of() + chord("C") + REST, chord("G") + REST)
    assert symbols(parts(melody, bass)) == [(0, 4, "C"), (4, 8, "G"), (8, 12, "C"), (12, 16, "G")]


SLASH = "<notehead>slash</notehead>"


def test_slashes_are_no_melody() -> None:
    heads = read(start_of() + chord("C") + run("CDEF"), chord("G") + run("BBBB", inside=SLASH), run("GABC"))
    assert letters(heads) == "CDEFGABC" and notes_of(heads)[4][0] == 8 and heads.beats_total == 12
    region = read(
        start_of() + chord("C") + run("CDEF"), style('<slash type="start"/>') + run("BBBB"), run("BBBB"),
        style('<slash type="stop"/>') + run("GABC"),
    )  # fmt: skip
    assert letters(region) == "CDEFGABC" and notes_of(region)[4][0] == 12
    lower = read(start_of() + style('<slash type="start"/>', ' number="2"') + run("CDEF"))
    assert letters(lower) == "CDEF", "slashes of another staff"


def test_a_chart_of_slashes_alone_has_no_melody() -> None:
    with pytest.raises(BadSong, match="slashes"):
        read(start_of() + chord("C") + run("BBBB", inside=SLASH))
    chart, tune = (start_of() + chord("C") + run("BBBB", inside=SLASH),), (start_of() + run("CDEF"),)
    assert letters(parts(chart, tune)) == "CDEF" and symbols(parts(chart, tune)) == [(0, 4, "C")]


def test_other_heads_are_notes() -> None:
    assert letters(read(start_of() + run("C", inside="<notehead>x</notehead>") + run("DEF"))) == "CDEF"


def test_chords_typed_as_words() -> None:
    score = read(
        start_of() + chord("C") + run("CDEF"),
        words("N.C.") + run("GABC"),
        run("CD") + words("G7(#5)") + run("EF"),
        words("Dm7", inside="<offset>4</offset>") + run("CDEF"),
    )
    assert symbols(score) == [(0, 4, "C"), (10, 13, "G7#5"), (13, 16, "Dm7")]


@pytest.mark.parametrize("text", ["N.C.", "NC", "n.c.", "N.C", "N. C.", "(N.C.)", "No Chord", "NO CHORD"])
def test_words_of_silence(text: str) -> None:
    assert typed_chords(text) == [None]


@pytest.mark.parametrize(
    ("text", "symbol"),
    [
        ("Bm7(b5)", "Bm7b5"),
        ("Cm(ma7)", "Cmmaj7"),
        ("F m7/Bb", "Fm7/Bb"),
        (" Dm\n 7", "Dm7"),
        ("(A7)", "A7"),
        ("B\ue10dmaj7", "Bbmaj7"),
        ("F\ue10cdim7", "Gbdim7"),
        ("E♭7", "Eb7"),
    ],
)
def test_words_that_are_chords(text: str, symbol: str) -> None:
    (found,) = typed_chords(text)
    assert found is not None and chords.symbol(found) == symbol


PROSE = ["Chorus", "Fine", "D.C.", "D.S.", "dim", "Go", "Ah", "Do", "a", "f", "rit.", "A", "F", "B2", "Verse"]
PROSE += ["Coda", "Bridge", "Ad", "Add", "En", "AB", "(", "3x", "/9", "1", "A-tempo", "A7D7"]


@pytest.mark.parametrize("text", ["", "A tempo", "F 2-----", "4x Fine", "Bb pedal", "GO TO TRIO", "e7", *PROSE])
def test_words_that_are_no_chords(text: str) -> None:
    assert typed_chords(text) == []


def test_a_symbol_goes_before_words_at_its_place() -> None:
    for both in (words("A7") + chord("C"), chord("C") + words("A7")):
        assert symbols(read(start_of() + both + run("CDEF"))) == [(0, 4, "C")]


def test_a_text_in_pieces_is_one_chord() -> None:
    pieces = read(start_of() + words("B", "b", "7") + run("CDEF"))
    assert symbols(pieces) == [(0, 4, "Bb7")]
    assert symbols(read(start_of() + words("Chorus", "Am7") + run("CDEF"))) == [(0, 4, "Am7")]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["C", "Am", "F", "G7"], ["C", "Am", "F", "G7"]),
        (["A", "E7", "A"], ["A", "E7", "A"]),
        (["C", "F", "G", "C"], ["C", "F", "G", "C"]),
        (["A", "B", "A"], []),
        (["F"], []),
    ],
)
def test_lone_letters_are_chords_where_they_name_no_sections(texts: list[str], found: list[str]) -> None:
    measures = [words(text) + run("CDEF") for text in texts]
    assert [symbol for *_, symbol in symbols(read(start_of() + measures[0], *measures[1:]))] == found


def test_sections_beside_symbols_are_no_chords() -> None:
    score = read(
        start_of() + chord("C") + words("A") + run("CDEF"), words("B") + run("CDEF"), words("G7") + run("CDEF")
    )
    assert symbols(score) == [(0, 8, "C"), (8, 12, "G7")]
    boxed = read(start_of() + chord("C") + run("CDEF"), words("Am", enclosure="rectangle") + run("CDEF"))
    assert symbols(boxed) == [(0, 8, "C")]


STOP, START = '<tie type="stop"/>', '<tie type="start"/>'


@pytest.mark.parametrize("first, second", [(START, ""), ("", STOP), (START, STOP)])
def test_a_tie_said_at_one_end_joins(first: str, second: str) -> None:
    score = read(start_of() + note("D4", 2) + note("E4", 2, first), note("E4", 2, second) + note("F4", 2))
    assert notes_of(score) == [(0, 2, 62), (2, 6, 64), (6, 8, 65)]


def test_a_tie_without_stop_joins_no_other_note() -> None:
    rest = read(start_of() + note("E4", 2, START) + note("r", 1) + note("E4", 1) + note("E4", 4))
    assert [played[:2] for played in notes_of(rest)] == [(0, 2), (3, 4), (4, 8)]
    other = read(start_of() + note("E4", 2, START) + note("F4", 2))
    assert notes_of(other) == [(0, 2, 64), (2, 4, 65)]
    three = read(start_of() + note("E4", 4, START), note("E4", 4, START), note("E4", 4), note("E4", 4))
    assert [played[:2] for played in notes_of(three)] == [(0, 12), (12, 16)]


def test_a_tie_without_stop_is_not_carried_back_by_a_repeat() -> None:
    back = '<repeat direction="backward"/>'
    score = read(
        start_of() + note("C4", 4),
        ending("1", "start") + note("C4", 4, START) + ending("1", "stop", back),
        ending("2", "start") + note("C4", 4) + ending("2", "stop"),
    )
    assert [played[:2] for played in notes_of(score)] == [(0, 4), (4, 8), (8, 12), (12, 16)]


def test_the_melody_goes_on_in_another_voice_where_the_first_rests() -> None:
    second = BACKUP + run("GABC", 2)
    score = read(start_of() + chord("C") + run("CDEF"), run("rrrr") + second, run("CDEF"))
    assert letters(score) == "CDEFGABCCDEF"
    absent = read(start_of() + run("CDEF"), run("GABC", 2), run("CDEF"))
    assert letters(absent) == "CDEFGABCCDEF"
    shared = read(start_of() + run("CDrr") + BACKUP + run("rrEF", 2))
    assert letters(shared) == "CDEF"


def test_a_voice_that_accompanies_stays_out() -> None:
    below = BACKUP + note("C3", 4, "<voice>2</voice>")
    score = read(start_of() + run("rCDE") + below, run("CDEF"))
    assert letters(score) == "CDECDEF" and min(played.pitch for played in score.notes) == 60
    left_hand = BACKUP + run("GABC", 5, "<staff>2</staff>")
    hands = read(start_of() + run("CDEF", 1, "<staff>1</staff>"), run("rrrr", 1, "<staff>1</staff>") + left_hand)
    assert letters(hands) == "CDEF"


def test_ties_go_from_voice_to_voice() -> None:
    score = read(start_of() + note("C4", 4, START), REST + BACKUP + note("C4", 4, STOP + "<voice>2</voice>"))
    assert notes_of(score) == [(0, 8, 60)]


def without_time(*measures: str) -> Score:
    return read("<attributes><divisions>4</divisions></attributes>" + measures[0], *measures[1:])


@pytest.mark.parametrize(
    ("lengths", "meter", "pickup"),
    [
        ([3, 3, 3], (3, 4), 0),
        ([1, 3, 3, 3, 2], (3, 4), 1),
        ([1, 3, 2], (3, 4), 1),
        ([4, 4, 4], (4, 4), 0),
        ([2, 2, 2, 2], (2, 4), 0),
        ([0.5, 1.5, 1.5, 1.5, 1.5, 1], (3, 8), 0.5),
        ([4.5, 4.5, 4.5], (9, 8), 0),
        ([4], (4, 4), 0),
    ],
)
def test_without_a_metre_the_bars_tell_it(lengths: list[float], meter: tuple[int, int], pickup: float) -> None:
    score = without_time(*(note("C4", length) for length in lengths))
    assert (score.meter, score.pickup, score.beats_total) == (meter, pickup, sum(lengths))


def test_an_empty_measure_has_the_length_that_the_bars_tell() -> None:
    score = without_time(note("C4", 3), "", note("D4", 3), note("E4", 3))
    assert score.meter == (3, 4) and [played[0] for played in notes_of(score)] == [0, 6, 9]


def repeat_sign(count: int | None) -> str:
    text = "stop" if count is None else "start"
    return style(f'<measure-repeat type="{text}">{count or ""}</measure-repeat>')


def test_a_measure_repeat_plays_the_measure_before() -> None:
    one = read(
        start_of() + chord("C") + run("CDEF"), repeat_sign(1) + REST, repeat_sign(None) + chord("G") + run("GABC")
    )
    assert letters(one) == "CDEFCDEFGABC" and symbols(one) == [(0, 8, "C"), (8, 12, "G")]
    several = read(start_of() + run("CDEF"), repeat_sign(1) + REST, REST, repeat_sign(None) + run("GABC"))
    assert letters(several) == "CDEFCDEFCDEFGABC"


def test_a_repeat_of_two_measures() -> None:
    score = read(
        start_of() + chord("C") + run("CDEF"), chord("F") + run("GABC"), repeat_sign(2) + REST, "",
        repeat_sign(None) + chord("G") + run("CCCC"),
    )  # fmt: skip
    assert letters(score) == "CDEFGABC" * 2 + "CCCC"
    assert symbols(score) == [(0, 4, "C"), (4, 8, "F"), (8, 12, "C"), (12, 16, "F"), (16, 20, "G")]


def test_a_measure_repeat_that_stops_in_its_own_measure_or_starts_anew() -> None:
    own = read(start_of() + run("CDEF"), repeat_sign(1) + REST + repeat_sign(None), REST)
    assert letters(own) == "CDEF" * 2
    anew = read(start_of() + run("CDEF"), repeat_sign(1) + REST, repeat_sign(None) + repeat_sign(1) + REST)
    assert letters(anew) == "CDEF" * 3


def test_a_measure_repeat_leaves_what_is_written_out_alone() -> None:
    written = read(start_of() + run("CDEF"), repeat_sign(1) + run("GABC"), repeat_sign(None) + run("CDEF"))
    assert letters(written) == "CDEFGABCCDEF"
    assert letters(read(start_of() + repeat_sign(2) + REST, run("CDEF"))) == "CDEF", "nothing to repeat"


def test_a_backup_past_the_bar_line_stops_at_it() -> None:
    backup = "<backup><duration>{}</duration></backup>"
    for ticks in (17, 384):
        score = read(start_of() + run("CDEF") + backup.format(ticks) + note("C3", 4, "<voice>2</voice>"), run("GABC"))
        assert letters(score) == "CDEFGABC" and score.beats_total == 8


def test_a_forward_past_the_bar_line_moves_no_bar_line() -> None:
    forward = "<forward><duration>17</duration></forward>"
    assert notes_of(read(start_of() + run("CDEF") + BACKUP + forward, run("GABC")))[4][0] == 4


def test_a_first_bar_longer_than_the_metre_is_no_pickup() -> None:
    free = "<attributes><divisions>4</divisions><time><senza-misura/></time></attributes>"
    first = f'<measure implicit="yes">{free}{run("CDEFGABC")}</measure>'
    score = read(first, run("CDEF"), run("CDEF"))
    assert (score.meter, score.pickup, score.beats_total) == ((4, 4), 0, 16)
    timed = read(f'<measure implicit="yes">{start_of()}{run("CDEFG")}</measure>', run("CDEF"))
    assert timed.pickup == 0 and timed.meter == (4, 4)


TITLE = "Canción de cuña"
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252")
LABELS = ("", "UTF-8", "utf-16", "ISO-8859-1", "us-ascii", "no-such-code", "utf-7", "rot13")


@pytest.mark.parametrize(("encoding", "label"), list(itertools.product(ENCODINGS, LABELS)))
def test_a_wrong_label_of_the_encoding_is_seen_through(encoding: str, label: str) -> None:
    text = sheet(start_of() + run("CDEF"), head=f"<movement-title>{TITLE}</movement-title>").decode()
    declared = f'<?xml version="1.0" encoding="{label}"?>' if label else ""
    score = musicxml.read((declared + text).encode(encoding), "x")
    assert letters(score) == "CDEF" and score.title == TITLE


@pytest.mark.parametrize("encoding", ["windows-1251", "shift_jis", "gb2312", "iso-8859-2", "koi8-r"])
def test_a_right_label_counts(encoding: str) -> None:
    title = {"shift_jis": "歌の本", "gb2312": "中国", "iso-8859-2": "Žába"}.get(encoding, "Песня")
    text = f'<?xml version="1.0" encoding="{encoding}"?>'
    text += sheet(start_of() + run("CDEF"), head=f"<movement-title>{title}</movement-title>").decode()
    assert musicxml.read(text.encode(encoding), "x").title == title


def test_many_voices_take_no_time() -> None:
    began = time.perf_counter()
    notes = "".join(note("C4", 1, f"<voice>{voice}</voice>") for voice in range(20_000))
    assert read(start_of() + notes).notes
    assert time.perf_counter() - began < 10
