"""RTTM and UEM files: frames by hand, splits and groups, and every fault by its file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.data_pipeline.conversations import rttm as rttm_files
from gapt_jax.data_pipeline.conversations.conversation import group_of, without
from gapt_jax.data_pipeline.conversations.folder import read
from gapt_jax.errors import UserError
from tests.data_pipeline.conversations.rttm_files import rttm, talk, write

GOOD = rttm("r", [("a", 0, 2), ("b", 3, 4)])


def painted(active: np.ndarray) -> list[str]:
    return ["".join(".x"[int(frame)] for frame in row) for row in active]


def faults(folder: Path) -> list[str]:
    return [f"{found.file}:{found.line}: {found.reason}" for found in read(folder).faults.kept]


def test_frames_by_hand(tmp_path: Path) -> None:
    """A frame is speech where any of it is; bounds on the grid touch no frame beyond."""
    speech = rttm("r", [("a", 0.6, 1.0), ("b", 0.1, 0.21), ("a", 1.21, 1.22), ("b", 1.0, 1.6)])
    (talked,) = read(write(tmp_path, r__rttm=speech, r__uem="r 1 0.000 1.9\n")).conversations
    assert talked.speakers == ("a", "b") and talked.num_frames(0.2) == 10
    heard, vocal = talked.frames(0.2)
    assert painted(heard) == ["...xx.x...", "xx...xxx.."] and not vocal.any()


def test_what_the_words_lack_is_a_vocal_sound(tmp_path: Path) -> None:
    words = rttm("r", [("a", 0, 1), ("b", 2, 3)])
    both = rttm("r", [("a", 0, 1.4), ("b", 2, 3), ("c", 1.0, 1.2), ("b", 0.2, 0.4)])
    folder = write(tmp_path, train__words__rttm__gz=words, train__words_and_vocal_sounds__rttm__gz=both)
    (talked,) = read(folder).conversations
    heard, vocal = talked.frames(0.2)
    assert painted(heard) == ["xxxxx..........", "..........xxxxx", "..............."]
    assert painted(vocal) == [".....xx........", ".x.............", ".....x........."]
    assert talked.split == "train" and talked.is_vocal.sum() == 3


def test_a_region_that_begins_later_is_counted_from_its_beginning(tmp_path: Path) -> None:
    (talked,) = read(write(tmp_path, r__rttm=GOOD, r__uem=";; a remark\n\nr 1 1.0 4.0\n")).conversations
    assert painted(talked.frames(0.2)[0]) == ["xxxxx..........", "..........xxxxx"]


def test_without_a_length_a_recording_ends_with_its_last_segment(tmp_path: Path) -> None:
    assert read(write(tmp_path, r__rttm=GOOD)).conversations[0].seconds == 4.0


def test_one_file_is_read_alone(tmp_path: Path) -> None:
    folder = write(tmp_path, one__rttm=GOOD, two__rttm=talk("s"))
    assert [talked.id for talked in read(folder / "one.rttm").conversations] == ["r"]


def test_nine_columns_tabs_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + GOOD.replace(" <NA>\n", "\r\n").replace(" ", "\t")
    found = read(write(tmp_path, r__rttm=text))
    assert len(found.conversations) == 1 and not found.faults.total


def test_other_records_are_skipped_and_counted(tmp_path: Path) -> None:
    others = "SPKR-INFO r 1 <NA> <NA> <NA> unknown a <NA> <NA>\nLEXEME r 1 0 1 hi lex a 1 <NA>\n"
    found = read(write(tmp_path, r__rttm=others + others.splitlines(True)[0] + GOOD))
    assert found.skipped == {"SPKR-INFO": 2, "LEXEME": 1} and not found.faults.total


LINE = "SPEAKER r 1 5 1 <NA> <NA> a <NA> <NA>"
BAD_LINES = {
    LINE.replace(" 5 ", " -5 "): "its start is -5 s: it must not be negative",
    LINE.replace(" 1 <NA>", " -1 <NA>", 1): "its duration is -1 s: it must not be negative",
    LINE.replace(" 1 <NA>", " 0 <NA>", 1): "its duration is 0 s",
    LINE.replace(" 5 ", " nan "): "its start 'nan' is no number of seconds",
    LINE.replace(" 5 ", " inf "): "its start 'inf' is no number of seconds",
    LINE.replace(" 5 ", " 1_0 "): "its start '1_0' is no number of seconds",
    LINE.replace(" 5 ", " 1e999 "): "its start is inf s: a recording may have 24 hours, in seconds",
    LINE.replace(" 1 <NA>", " 86399 <NA>", 1): "it ends at 86404 s: a recording may have 24 hours, in seconds",
    LINE.replace(" <NA> <NA> a <NA> <NA>", ""): "it has 5 columns: a SPEAKER line has 9 or 10",
    LINE + " more": "it has 11 columns: a SPEAKER line has 9 or 10",
    LINE.replace("SPEAKER", "SPEAKR"): "'SPEAKR' is no type of RTTM record",
    LINE.replace(" a ", " <NA> "): "'<NA>' is no name of a speaker",
    LINE.replace(" a ", " a\u202eb "): "'a?b' is no name of a speaker",
    LINE.replace(" r ", f" {'r' * 201} "): f"'{'r' * 40}' is no name of a recording",
    LINE.replace(" 5 ", " 1.9 "): "'a' speaks there already: the two are joined",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_and_the_others_stay(line: str, tmp_path: Path) -> None:
    folder = write(tmp_path, r__rttm=GOOD + line + "\n")
    assert faults(folder) == [f"r.rttm:3: {BAD_LINES[line]}"]
    assert painted(read(folder).conversations[0].frames(0.2)[0])[1] == "." * 15 + "xxxxx"


def test_a_segment_beyond_the_recording_is_cut(tmp_path: Path) -> None:
    folder = write(tmp_path, r__rttm=GOOD + rttm("r", [("b", 5, 6)]), r__uem="r 1 0 3.5\n")
    assert faults(folder) == [
        "r.rttm:2: it lasts from 3 to 4 s, the recording from 0 to 3.5 s: cut",
        "r.rttm:3: it lasts from 5 to 6 s, the recording from 0 to 3.5 s: cut",
    ]
    assert painted(read(folder).conversations[0].frames(0.2)[0])[1] == "." * 15 + "xxx"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("r 1 0\n", "it has 3 columns: a UEM line has 4 (recording, channel, start, end)"),
        ("r 1 5 5\n", "it ends at 5 s, which is not after its start"),
        ("r 1 0 nan\n", "its end 'nan' is no number of seconds"),
        ("r 1 0 90000\n", "its end is 90000 s: a recording may have 24 hours, in seconds"),
    ],
)
def test_a_bad_length_is_named(text: str, reason: str, tmp_path: Path) -> None:
    assert faults(write(tmp_path, r__rttm=GOOD, r__uem=text)) == [f"r.uem:1: {reason}"]


def test_lengths_that_disagree_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, r__rttm=GOOD, a__uem="r 1 0 4\nr 1 5 6\n", b__uem="r 1 0 5\n")
    write(folder, c__uem=";; the same again\nr 1 0 4\n")
    assert faults(folder) == [
        "a.uem:2: 'r' was given on line 1: one stretch of a recording can be used",
        "b.uem:1: another file gives 'r' another length",
    ]


def test_faults_of_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rttm_files, "MAX_LINES", 50)
    folder = write(tmp_path, good__rttm=GOOD, long__rttm=talk("s", 120), wide__rttm="x" * 5_000)
    (folder / "broken.rttm.gz").write_bytes(gzip.compress(talk("t").encode())[:-9])
    (folder / "plain.rttm.gz").write_text(talk("u"))
    (folder / "latin.rttm").write_bytes(
        GOOD.replace("r", "v").encode() + "SPEAKER v 1 5 1 <NA> <NA> Zoë <NA>".encode("latin-1")
    )
    (folder / "wide_letters.rttm").write_text(talk("w"), encoding="utf-16")
    (folder / "bomb.rttm.gz").write_bytes(gzip.compress(b"\n" * 1_000_000))
    nothing = "nothing of this file is used"
    assert faults(folder) == [
        f"bomb.rttm.gz:51: it has more than 50 lines or 1 GiB of text; {nothing}",
        "broken.rttm.gz:1: it is a damaged or truncated gzip file "
        f"(Compressed file ended before the end-of-stream marker was reached); {nothing}",
        f"latin.rttm:3: it is not UTF-8 text: save it as UTF-8; {nothing}",
        f"long.rttm:51: it has more than 50 lines or 1 GiB of text; {nothing}",
        f"plain.rttm.gz:1: it is a damaged or truncated gzip file (Not a gzipped file (b'SP')); {nothing}",
        f"wide.rttm:1: it has a line of more than 4096 bytes; {nothing}",
        f"wide_letters.rttm:1: it is not UTF-8 text: save it as UTF-8; {nothing}",
    ]
    assert [talked.id for talked in read(folder).conversations] == ["r"]


def test_recordings_that_are_no_conversations(tmp_path: Path) -> None:
    crowd = rttm("crowd", [(f"s{n}", n, n + 1) for n in range(101)])
    folder = write(tmp_path, a__rttm=rttm("alone", [("a", 0, 1)]) + crowd + rttm("late", [("a", 5, 6), ("b", 6, 7)]))
    write(tmp_path, a__uem="late 1 0 4\n", b__rttm=talk("alone"))
    assert faults(folder) == [
        "a.rttm:1: 'alone' has one speaker: a conversation has 2 to 100",
        "a.rttm:2: 'crowd' has 101 speakers: a conversation has 2 to 100",
        "a.rttm:103: it lasts from 5 to 6 s, the recording from 0 to 4 s: cut",
        "a.rttm:103: 'late' has no segment within its length: left out",
        "a.rttm:104: it lasts from 6 to 7 s, the recording from 0 to 4 s: cut",
        "b.rttm:1: 'alone' is in a.rttm too: what is here is left out",
    ]
    assert not read(folder).conversations


def test_files_keep_their_split_and_a_group_stays_in_the_one_held_out_further(tmp_path: Path) -> None:
    folder = write(tmp_path, train__rttm=talk("M1a") + talk("N1"), Dev__x__rttm=talk("M1b"), eval__rttm=talk("O1c"))
    found = read(folder)
    assert {talked.id: talked.split for talked in found.conversations} == {"M1b": "valid", "N1": "train", "O1c": "test"}
    assert faults(folder) == ["train.rttm:1: 'M1a' belongs to the group 'M1', which is in valid too: left out"]


def test_without_named_files_a_hash_of_the_group_decides(tmp_path: Path) -> None:
    folder = write(tmp_path, talks__rttm="".join(talk(f"M{n}{part}", 4) for n in range(100) for part in "ab"))
    found = read(folder).conversations
    splits = {talked.id: talked.split for talked in found}
    assert all(splits[f"M{n}a"] == splits[f"M{n}b"] for n in range(100))
    counts = [list(splits.values()).count(split) for split in ("train", "valid", "test")]
    assert counts == [154, 26, 20]  # SHA-1 has the only say, on any machine


def test_files_that_do_not_go_together_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.rttm of .* is named after a split and talks.rttm is not: name all"):
        read(write(tmp_path / "a", train__rttm=GOOD, talks__rttm=talk("s")))
    with pytest.raises(UserError, match=r"dev.words_and_vocal_sounds.rttm needs dev.words.rttm beside it"):
        read(write(tmp_path / "b", dev__words_and_vocal_sounds__rttm=GOOD))


def test_groups_are_series_of_recordings() -> None:
    names = {"ES2002a": "ES2002", "IN1001": "IN1001", "call": "call", "a1b": "a1", "x1A": "x1A"}
    assert {name: group_of(name) for name in names} == names


@pytest.mark.parametrize("seed", range(20))
def test_differences_of_intervals(seed: int) -> None:
    """Against the same on a fine grid."""
    rng = np.random.default_rng(seed)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        starts = rng.integers(0, 40, count)
        return starts.astype(float), (starts + rng.integers(0, 6, count)).astype(float)

    def grid(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        middles = np.arange(50) + 0.5
        return ((starts[:, None] < middles) & (middles < ends[:, None])).any(axis=0)

    first, second = drawn(rng.integers(0, 9)), drawn(rng.integers(0, 9))
    starts, ends = without(*first, *second)
    assert np.array_equal(grid(starts, ends), grid(*first) & ~grid(*second))
    assert (starts < ends).all() and (ends[:-1] < starts[1:]).all()
