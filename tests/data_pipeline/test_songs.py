"""Song records: every fault is named with its line; frames by hand and for any valid song."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapt_jax.data_pipeline import songs
from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.songs import BadSong, Note, Song, parse_song, read_songs, to_frames
from gapt_jax.errors import UserError
from tests.data_pipeline.song_records import make_record, write_songs

NOTE, CHORD = [0, 1, 60], [0, 4, 0, [0, 4, 7], 0, "C"]
FAULTS = [
    (["not", "an", "object"], "not a JSON object"),
    (
        {k: v for k, v in make_record().items() if k not in ("melody", "split")},
        "'split', 'melody' is missing",
    ),
    (make_record(split="training"), "'split'"),
    (make_record(song_id=""), "'id'"),
    (make_record(title=5), "'title'"),
    (make_record(title="\ud800"), "'title' has a character"),
    (make_record(meter=[4, 5]), "'meter'"),
    (make_record(meter=[True, 4]), "'meter'"),
    (make_record(meter="4/4"), "'meter'"),
    (make_record(pickup=-1), "'pickup'"),
    (make_record(beats_total=30_000), "'beats_total'"),
    (make_record(beats_total=math.nan), "'beats_total'"),
    (make_record(beats_total=True), "'beats_total'"),
    (make_record(beats_total="8"), "'beats_total'"),
    (make_record(melody=[]), "'melody' must be a list with at least one event"),
    (make_record(melody=[[0, 1]]), "lists of 3"),
    (make_record(melody=[[0, 1, 60.0]]), "pitch"),
    (make_record(melody=[[0, 1, 128]]), "pitch"),
    (make_record(melody=[[0, 1, -1]]), "pitch"),
    (make_record(melody=[["0", 1, 60]]), "not a number"),
    (make_record(melody=[[False, 1, 60]]), "not a number"),
    (make_record(melody=[[0, math.inf, 60]]), "not finite"),
    (make_record(melody=[[0, 10**400, 60]]), "not finite"),
    (make_record(melody=[[math.nan, 1, 60]]), "not finite"),
    (make_record(melody=[[-0.5, 1, 60]]), "before beat 0"),
    (make_record(melody=[[1, 1, 60]]), "does not end after it starts"),
    (make_record(melody=[[2, 3, 60], [0, 1, 60]]), "not sorted"),
    (make_record(melody=[[0, 2, 60], [1, 3, 62]]), "overlap"),
    (make_record(melody=[[7, 8.5, 60]]), "after 'beats_total'"),
    (make_record(chords=[[0, 4, 12, [0, 4, 7], 0, "?"]]), "root"),
    (make_record(chords=[[0, 4, 0, [0, 4, 7], -1, "?"]]), "bass"),
    (make_record(chords=[[0, 4, 0, [4, 7], 0, "?"]]), "beginning with 0"),
    (make_record(chords=[[0, 4, 0, [], 0, "?"]]), "beginning with 0"),
    (make_record(chords=[[0, 4, 0, [0, 7, 4], 0, "?"]]), "ascend"),
    (make_record(chords=[[0, 4, 0, [0, 4, 4], 0, "?"]]), "ascend"),
    (make_record(chords=[[0, 4, 0, [0, 49], 0, "?"]]), "ascend"),
    (make_record(chords=[[0, 4, 0, [0, 4.5], 0, "?"]]), "whole numbers"),
    (make_record(chords=[[0, 4, 0, [0, 4, 7], 0, None]]), "symbol"),
    (make_record(chords=[[0, 9, 0, [0, 4, 7], 0, "C"]]), "'chords' goes on after"),
]


@pytest.mark.parametrize(("record", "reason"), FAULTS)
def test_each_fault_is_named(record: object, reason: str) -> None:
    with pytest.raises(BadSong, match=reason):
        parse_song(record)


def test_a_valid_record_is_read_whole() -> None:
    song = parse_song(make_record(title=None, pickup=1.5, extra="ignored"))
    assert (song.id, song.title, song.meter, song.pickup, song.beats_total) == (
        "set/1",
        None,
        (4, 4),
        1.5,
        8.0,
    )
    assert song.melody[1] == (1, 2, 61) and song.chords[1] == (4, 8, 4, (0, 4, 7), 4, "?")


def test_bad_lines_are_reported_with_their_number_and_the_rest_go_on(tmp_path: Path) -> None:
    deep = "[" * 100_000
    lines = [make_record("a"), "", "{broken", FAULTS[2][0], deep, make_record("a"), make_record("b")]
    items = list(read_songs(write_songs(tmp_path / "x.jsonl.gz", lines)))
    assert [item.id for item in items if isinstance(item, Song)] == ["a", "b"]
    rejected = [item for item in items if isinstance(item, Rejected)]
    assert [(item.file, item.line) for item in rejected] == [("x.jsonl.gz", n) for n in (3, 4, 5, 6)]
    assert "valid JSON" in rejected[0].reason and "valid JSON" in rejected[2].reason
    assert "'split'" in rejected[1].reason and "line 1" in rejected[3].reason


def test_files_without_gzip_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(make_record()))
    assert [item.id for item in read_songs(tmp_path / "x.jsonl") if isinstance(item, Song)] == ["set/1"]


def _damage_middle(data: bytes) -> bytes:
    return data[:60] + bytes(255 - byte for byte in data[60:90]) + data[90:]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no gzip at all", "damaged or truncated"),
        (gzip.compress(json.dumps(make_record(beats=60)).encode(), mtime=0)[:-30], "damaged or truncated"),
        (_damage_middle(gzip.compress(json.dumps(make_record(beats=60)).encode(), mtime=0)), "damaged or truncated"),
        (gzip.compress(b'{"id": "\xff\xfe"}\n', mtime=0), "not UTF-8"),
        (gzip.compress(b" " * (songs.MAX_LINE_BYTES + 2), mtime=0), "8 MiB"),
    ],
)
def test_an_unreadable_file_is_one_clear_sentence(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as error:
        list(read_songs(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(songs, "MAX_FILE_BYTES", 1000)
    path = write_songs(tmp_path / "x.jsonl.gz", [make_record(str(n)) for n in range(9)])
    with pytest.raises(UserError, match="more than"):
        list(read_songs(path))


def test_frames_by_hand() -> None:
    melody = [
        [0, 0.5, 60],  # frames 0, 1
        [0.5, 0.55, 62],  # shorter than a frame: frame 2
        [0.95, 1.4, 64],  # starts just before frame 4: rounded onto it, ends on 5.6 -> 6
        [1.4, 2, 65],  # 5.6 -> 6, to 8
        [2.125, 2.2, 67],  # 8.5 rounds up to 9, and lasts one frame
        [2.25, 2.5, 69],  # also starts in frame 9: the later one stays
    ]
    chords = [[0, 2, 0, [0, 4, 7], 0, "C"], [2.5, 3, 2, [0, 3, 7, 10, 14], 5, "Dm9/F"]]
    frames = to_frames(parse_song(make_record(melody=melody, chords=chords, beats_total=3)))
    assert frames.melody_pitch.tolist() == [60, 60, 62, -1, 64, 64, 65, 65, -1, 69, -1, -1]
    assert np.flatnonzero(frames.melody_onset).tolist() == [0, 2, 4, 6, 9]
    assert frames.chord_root.tolist() == [0] * 8 + [-1] * 2 + [2] * 2
    nine = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 7 | 1 << 10
    assert frames.chord_intervals.tolist() == [0b10010001] * 8 + [0] * 2 + [nine] * 2
    assert np.flatnonzero(frames.chord_onset).tolist() == [0, 10]
    assert [array.dtype for array in vars(frames).values()] == [np.int16, bool, np.int8, np.int16, bool]


def test_a_later_onset_cuts_an_event_that_overlaps_it() -> None:
    """No hold of the longer note comes back after the shorter one (a fault of the published code)."""
    song = parse_song(make_record())
    frames = to_frames(dataclasses.replace(song, melody=(Note(0, 3, 60), Note(1, 2, 72))))
    assert frames.melody_pitch.tolist() == [60] * 4 + [72] * 4 + [-1] * 24


def test_an_event_at_the_very_end_still_gets_its_frame() -> None:
    frames = to_frames(parse_song(make_record(melody=[[7.95, 8, 60]], beats_total=8)))
    assert len(frames) == 33 and frames.melody_pitch[-1] == 60 and frames.chord_root[-1] == -1


@pytest.mark.parametrize("mask", [0b1, 0b10010001, 0b111111111111])
def test_interval_masks_come_back(mask: int) -> None:
    assert songs.interval_mask(songs.mask_intervals(mask)) == mask


@st.composite
def valid_records(draw: st.DrawFn) -> dict:
    def spans(count: int) -> list[tuple[float, float]]:
        steps = draw(st.lists(st.integers(1, 900), min_size=2 * count, max_size=2 * count))
        points = np.cumsum(steps) / 250 - 1 / 250
        return list(zip(points[::2].tolist(), points[1::2].tolist(), strict=True))

    pitches = draw(st.lists(st.integers(0, 127), min_size=1, max_size=12))
    roots = draw(st.lists(st.integers(0, 11), min_size=1, max_size=6))
    shapes = [sorted({0, *draw(st.lists(st.integers(1, 21), max_size=5))}) for _ in roots]
    melody = [[a, b, pitch] for (a, b), pitch in zip(spans(len(pitches)), pitches, strict=True)]
    chords = [[a, b, r, q, r, "?"] for (a, b), r, q in zip(spans(len(roots)), roots, shapes, strict=True)]
    return make_record(melody=melody, chords=chords, beats_total=max(melody[-1][1], chords[-1][1]))


@settings(deadline=None, max_examples=150)
@given(valid_records())
def test_any_valid_song_gives_well_formed_frames(record: dict) -> None:
    song = parse_song(record)
    frames = to_frames(song)
    assert 0 <= len(frames) - math.floor(4 * song.beats_total + 0.5) <= 1
    assert ((frames.chord_root >= 0) == (frames.chord_intervals > 0)).all()
    assert (frames.chord_intervals[frames.chord_root >= 0] & 1 == 1).all()
    for value, onset in ((frames.melody_pitch, frames.melody_onset), (frames.chord_root, frames.chord_onset)):
        assert (value[onset] >= 0).all()
        held = np.flatnonzero((value >= 0) & ~onset)
        assert (held > 0).all() and (value[held] == value[held - 1]).all()
    starts = {math.floor(4 * note.onset + 0.5) for note in song.melody}
    assert set(np.flatnonzero(frames.melody_onset).tolist()) == starts
