"""The token stream: resumable, independent of batch size and hosts, closed under transposition."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gapt_jax.data_pipeline import loader, store
from gapt_jax.data_pipeline.loader import Corpus, choose_qualities, open_corpus, transposition_table
from gapt_jax.data_pipeline.songs import interval_mask
from gapt_jax.errors import UserError
from gapt_jax.types import Batch
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, PAD, SILENCE, Vocabulary
from tests.data_pipeline.song_records import make_record, numbered_records

Folders = Callable[..., Path]
NUMBERS = ("b28fbd124daf", "9bea5131fbdb", "a618a42a98f7")  # of crops of 32 beats
SMALL = Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7), (0, 4, 7, 10)])


def _open(songs: str | Path, data_dir: Path, mixture: list[tuple[str, float]], **changes: object) -> Corpus:
    settings = {"out_of_domain": [], "max_frames": 64, "chord_coverage": 1.0} | changes
    return open_corpus(songs=str(songs), mixture=mixture, data_dir=data_dir, **settings)  # type: ignore[arg-type]


def _take(corpus: Corpus, count: int, batch_size: int = 8, **changes: int) -> list[Batch]:
    settings = {"seed": 3, "transpose": True} | changes
    return list(itertools.islice(corpus.training_batches(batch_size=batch_size, **settings), count))


def _rows(batches: list[Batch], field: str) -> np.ndarray:
    return np.concatenate([getattr(batch, field) for batch in batches])


def _first_pitches(batches: list[Batch]) -> np.ndarray:
    """Pitch of the first frame of each crop, whether a note starts there or goes on."""
    return (_rows(batches, "context")[:, 0] - NOTE_HOLD) % 128


def _same(left: list[Batch], right: list[Batch]) -> bool:
    return all(np.array_equal(_rows(left, f), _rows(right, f)) for f in ("context", "actions", "index"))


def test_batches_have_the_stated_shapes(built_in: Corpus) -> None:
    (batch,) = _take(built_in, 1, batch_size=6)
    assert batch.context.shape == batch.actions.shape == (6, 128) and batch.index.tolist() == list(range(6))
    assert {batch.context.dtype, batch.actions.dtype, batch.index.dtype} == {np.dtype(np.int32)}
    melody, chords = built_in.vocabulary.tables.is_note, built_in.vocabulary.tables.is_chord
    assert (melody[batch.context] | (batch.context == SILENCE) | (batch.context == PAD)).all()
    assert (chords[batch.actions] | (batch.actions == SILENCE) | (batch.actions == PAD)).all()


def test_tokens_by_hand(song_folder: Folders, tmp_path: Path) -> None:
    song = {
        "melody": [[0, 0.5, 60], [0.75, 1, 61]],
        "chords": [[0, 0.75, 1, [0, 3, 7], 1, "?"]],
        "beats_total": 1.5,
    }
    records = [make_record(str(n), split, **song) for n, split in enumerate(("train", "valid", "test"))]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], max_frames=8, vocabulary=SMALL)
    tokens = corpus.evaluation_songs("a", "test", 5)
    minor = CHORD_HOLD + 12 + 1
    assert tokens.ids == ("2",) and tokens.index.tolist() == [0]
    assert tokens.context.tolist() == [
        [NOTE_ONSET + 60, NOTE_HOLD + 60, SILENCE, NOTE_ONSET + 61, SILENCE, SILENCE, 0, 0]
    ]
    assert tokens.actions.tolist() == [[minor + SMALL.num_chords, minor, minor, SILENCE, SILENCE, SILENCE, 0, 0]]


def test_resuming_anywhere_continues_bit_for_bit(built_in: Corpus) -> None:
    whole = _take(built_in, 12)
    for position in (0, 1, 7):
        assert _same(_take(built_in, 12 - position, start=position), whole[position:])
    iterator = built_in.training_batches(batch_size=8, seed=3, transpose=True, start=4)
    assert iterator.position == 4
    next(iterator)
    assert iterator.position == 5


def test_the_stream_does_not_depend_on_the_batch_size(built_in: Corpus) -> None:
    assert _same(_take(built_in, 6, batch_size=4), _take(built_in, 2, batch_size=12))


def test_two_hosts_share_the_batches_of_one(built_in: Corpus) -> None:
    parts = [_take(built_in, 3, rows=rows) for rows in np.split(np.arange(8), 2)]
    for whole, first, second in zip(_take(built_in, 3), *parts, strict=True):
        for field in ("context", "actions", "index"):
            halves = [getattr(first, field), getattr(second, field)]
            assert len(halves[0]) == 4 and np.array_equal(np.concatenate(halves), getattr(whole, field))


def test_a_host_without_rows_gets_empty_batches(built_in: Corpus) -> None:
    (batch,) = _take(built_in, 1, rows=np.arange(0))
    whole = _take(built_in, 1)[0]
    assert batch.context.shape == batch.actions.shape == (0, whole.context.shape[1]) and len(batch.index) == 0


def test_seed_and_epoch_change_the_stream(built_in: Corpus) -> None:
    assert not _same(_take(built_in, 1), _take(built_in, 1, seed=4))
    songs = len(built_in.split("grammar", "train").ids)
    assert not np.array_equal(_take(built_in, 1)[0].context, _take(built_in, 1, start=songs // 8)[0].context)


def test_every_song_is_seen_once_an_epoch(song_folder: Folders, tmp_path: Path) -> None:
    records = [make_record(f"{n}", "train", melody=[[0, 1, n]]) for n in range(30)]
    records += [make_record("v", "valid"), make_record("t", "test")]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)])
    batches = _take(corpus, 4, batch_size=15, transpose=False)
    first = _rows(batches, "context")[:, 0] - NOTE_ONSET
    assert sorted(first[:30]) == sorted(first[30:]) == list(range(30)) and list(first[:30]) != list(first[30:])


def test_mixture_proportions_hold_in_every_stretch(song_folder: Folders, tmp_path: Path) -> None:
    def low_or_high(pitch: int) -> list[dict]:
        return [
            make_record(f"{pitch}/{n}", split, melody=[[0, 8, pitch]])
            for n, split in enumerate(["train"] * 70 + ["valid", "test"])
        ]

    folder = song_folder(low=low_or_high(30), middle=low_or_high(60), high=low_or_high(90))
    mixture = [("low", 0.6), ("middle", 0.3), ("high", 0.1)]
    corpus = _open(folder, tmp_path / "d", mixture, max_frames=8)
    first = _first_pitches(_take(corpus, 20, batch_size=50, transpose=False))
    for part in np.split(first, 5):
        assert Counter(part.tolist()) == {30: 120, 60: 60, 90: 20}


def test_padding_is_only_at_the_end_and_in_both_parts_at_once(song_folder: Folders, tmp_path: Path) -> None:
    corpus = _open(song_folder(a=numbered_records(60, first_beats=4)), tmp_path / "d", [("a", 1.0)], max_frames=72)
    batches = _take(corpus, 8)
    pad = _rows(batches, "context") == PAD
    assert np.array_equal(pad, _rows(batches, "actions") == PAD)
    assert pad.any() and not pad.all(axis=1).any() and not pad[:, 0].any()
    assert (np.diff(pad.astype(int), axis=1) >= 0).all()


def test_crops_start_on_every_beat_and_only_there(song_folder: Folders, tmp_path: Path) -> None:
    """Every quarter note of these songs has its own pitch, so the first token tells where the crop began."""
    records = [
        make_record(f"{n}", s, 40, melody=[[beat, beat + 1, beat] for beat in range(40)])
        for n, s in enumerate(("train", "valid", "test"))
    ]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], max_frames=32)
    first = _rows(_take(corpus, 80, transpose=False), "context")[:, 0]
    assert set((first - NOTE_ONSET).tolist()) == set(range(40 - 8 + 1))


@pytest.mark.parametrize(
    ("meter", "pickup", "beats", "expected"),
    [
        ([4, 4], 0, 40, {0, 16, 32, 48, 64, 80, 96, 112, 128}),
        ([4, 4], 1.5, 40, {6, 22, 38, 54, 70, 86, 102, 118}),
        ([3, 4], 2, 23, {8, 20, 32, 44, 56}),
        ([6, 8], 0.5, 20, {2, 14, 26, 38}),
        ([2, 2], 0, 12.25, {0, 16}),
        ([7, 16], 0, 12, {0, 7, 14}),
        ([5, 32], 0, 9.5, {0, 3, 5}),
        ([4, 4], 1, 6, {4}),  # shorter than a crop: at its first bar line
        ([3, 4], 1, 8.25, {4}),  # longer, but not after its pickup
        ([4, 4], 9, 8, {0}),  # no bar line at all
    ],
)
def test_crops_begin_on_every_bar_line_and_only_there(
    song_folder: Folders, tmp_path: Path, meter: list[int], pickup: float, beats: float, expected: set[int]
) -> None:
    """Every sixteenth of these songs has its own pitch, or from the 128th on its own pitch under another chord: both
    tell where a crop began."""
    frames = int(4 * beats)
    melody = [[frame / 4, (frame + 1) / 4, frame % 128] for frame in range(frames)]
    first = pickup if pickup < beats else 0
    chords = [[first, min(32, beats), 0, [0, 4, 7], 0, "?"]] + [[32, beats, 1, [0, 4, 7], 1, "?"]] * (beats > 32)
    shape = {"melody": melody, "chords": chords, "beats_total": beats, "meter": meter, "pickup": pickup}
    records = [make_record(f"{n}", ("train", "train", "valid", "test")[n % 4], **shape) for n in range(160)]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], max_frames=32, crops_on="bars")
    root = corpus.vocabulary.tables.root
    for crops in ([corpus.evaluation_songs("a", "all", 160)], _take(corpus, 40, transpose=False)):
        pitch, second = _rows(crops, "context")[:, 0] - NOTE_ONSET, root[_rows(crops, "actions")[:, 0]] == 1
        assert set((pitch + 128 * second).tolist()) == expected


@pytest.mark.parametrize(
    ("meter", "pickup", "onsets", "expected"),
    [
        ([4, 4], 0, [2, 6, 10, 11], {8, 24, 40}),  # two beats late
        ([4, 4], 3, [2, 6, 10], {8, 24, 40}),  # the recorded bar line comes after the pickup
        ([3, 4], 0, [1, 4, 7], {4, 16, 28, 40}),
        ([4, 4], 0, [0, 2, 8, 10], {0, 16, 32}),  # as many here as there: as recorded
        ([4, 4], 0, [0, 1.5, 5.5, 9.5], {0, 16, 32}),  # no beat
    ],
)
def test_a_bar_line_that_few_chords_know_moves_to_where_most_begin(
    song_folder: Folders,
    tmp_path: Path,
    meter: list[int],
    pickup: float,
    onsets: list[float],
    expected: set[int],
) -> None:
    melody = [[frame / 4, (frame + 1) / 4, frame] for frame in range(56)]
    chords = [[a, b, 0, [0, 4, 7], 0, "?"] for a, b in itertools.pairwise([*onsets, 14])]
    shape = {"melody": melody, "chords": chords, "beats_total": 14, "meter": meter, "pickup": pickup}
    records = [make_record(f"{n}", ("train", "valid", "test")[n % 3], **shape) for n in range(120)]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], max_frames=16, crops_on="bars")
    for crops in ([corpus.evaluation_songs("a", "all", 120)], _take(corpus, 40, transpose=False)):
        assert set((_rows(crops, "context")[:, 0] - NOTE_ONSET).tolist()) == expected


def test_crops_on_bars_of_songs_in_several_metres(song_folder: Folders, tmp_path: Path) -> None:
    """Each song has its own bars, whatever stands before it in its split."""
    metres = {60: ([4, 4], 0), 61: ([3, 4], 1), 62: ([6, 8], 0.5)}
    records = [
        make_record(
            f"{pitch}/{n}",
            ("train", "valid", "test")[n % 3],
            24,
            meter=meter,
            pickup=pickup,
            melody=[[0, 24, pitch]],
            chords=[[beat / 4, (beat + 1) / 4, beat % 12, [0, 4, 7], beat % 12, "?"] for beat in range(96)],
        )
        for n in range(9)
        for pitch, (meter, pickup) in metres.items()
    ]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], max_frames=16, crops_on="bars")
    root, seen = corpus.vocabulary.tables.root, Counter[int]()
    for split in ("train", "all"):
        songs = corpus.evaluation_songs("a", split, 100)
        batches = [songs, *_take(corpus, 20, transpose=False)]
        for pitch, first in zip(_first_pitches(batches), root[_rows(batches, "actions")[:, 0]], strict=True):
            meter, pickup = metres[int(pitch)]
            bar = 16 * meter[0] // meter[1]
            assert first in {(int(4 * pickup) + bar * n) % 12 for n in range(12)}
            seen[int(pitch)] += 1
    assert set(seen) == set(metres)


def test_on_beats_bars_change_neither_crops_nor_fingerprint_and_on_bars_they_do(
    song_folder: Folders, tmp_path: Path
) -> None:
    songs = numbered_records(20, first_beats=20)
    folder = song_folder(a=songs, b=[record | {"meter": [3, 4], "pickup": 1} for record in songs])
    beats = [_open(folder, tmp_path / "d", [(name, 1.0)]) for name in "ab"]
    bars = [_open(folder, tmp_path / "d", [(name, 1.0)], crops_on="bars") for name in "ab"]
    plain, moved = ([c.evaluation_songs(*c.datasets, "all", 20).context for c in pair] for pair in (beats, bars))
    assert np.array_equal(*plain) and not np.array_equal(*moved)
    assert store.fingerprint(beats[0].datasets["a"]) == store.fingerprint(beats[1].datasets["b"])
    again = _open(folder, tmp_path / "d", [("a", 1.0)], crops_on="bars")
    assert again.fingerprint == bars[0].fingerprint and len({c.fingerprint for c in (*beats, *bars)}) == 4


def test_the_built_in_songs_keep_their_numbers(built_in: Corpus) -> None:
    """Of a version whose crops always began on beats."""
    (batch,) = _take(built_in, 1, batch_size=16)
    digest = hashlib.sha256(batch.context.tobytes() + batch.actions.tobytes()).hexdigest()[:12]
    songs = built_in.evaluation_songs("grammar", "test", 50)
    fixed = hashlib.sha256(songs.context.tobytes() + songs.actions.tobytes()).hexdigest()[:12]
    assert (built_in.fingerprint, digest, fixed) == NUMBERS


def test_transposition_is_uniform_over_thirteen_keys(song_folder: Folders, tmp_path: Path) -> None:
    records = [make_record(f"{n}", s, melody=[[0, 8, 60]]) for n, s in enumerate(("train", "valid", "test"))]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], max_frames=16)
    first = _first_pitches(_take(corpus, 50, batch_size=52))
    counts = Counter((first - 60).tolist())
    assert set(counts) == set(range(-6, 7)) and min(counts.values()) > 140 and max(counts.values()) < 260
    assert set(_first_pitches(_take(corpus, 5, transpose=False)).tolist()) == {60}


def _in_chord(vocabulary: Vocabulary, melody: np.ndarray, chords: np.ndarray) -> np.ndarray:
    classes = vocabulary.tables.pitch_classes
    return (classes[melody] & classes[chords]).any(-1)


def test_transposition_keeps_harmony_rhythm_and_quality(built_in: Corpus) -> None:
    plain, moved = _take(built_in, 6, transpose=False), _take(built_in, 6)
    tables = built_in.vocabulary.tables
    melodies, chords = ([_rows(batches, field) for batches in (plain, moved)] for field in ("context", "actions"))
    assert not np.array_equal(*melodies)
    assert np.array_equal(*(_in_chord(built_in.vocabulary, m, c) for m, c in zip(melodies, chords, strict=True)))
    for table in (tables.rhythm, tables.quality):
        assert np.array_equal(table[chords[0]], table[chords[1]])
    assert np.array_equal(tables.rhythm[melodies[0]], tables.rhythm[melodies[1]])
    shift = (tables.root[chords[1]] - tables.root[chords[0]]) % 12
    both = (tables.root[chords[0]] >= 0) & tables.is_note[melodies[0]]
    assert np.array_equal((tables.event[melodies[1]] - tables.event[melodies[0]])[both] % 12, shift[both])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, SMALL.size - 1), min_size=1, max_size=20), st.integers(0, 12))
def test_twelve_steps_of_one_semitone_give_the_song_back(tokens: list[int], row: int) -> None:
    """For pitches an octave away from the edges; at the edges the pitch class comes back."""
    table, start = transposition_table(SMALL), np.array(tokens)
    moved = start
    for _ in range(12):
        moved = table[loader.MAX_SHIFT + 1][moved]
    tables = SMALL.tables
    same = (moved == start) | tables.is_note[start]
    assert same.all() and np.array_equal(tables.pitch_classes[moved], tables.pitch_classes[start])
    middle = tables.is_note[start] & (tables.event[start] < 116)
    assert np.array_equal(moved[middle], start[middle] + 12)
    up_and_down = table[12 - row][table[row][start]]
    inside = ~tables.is_note[start] | ((tables.event[start] >= 6) & (tables.event[start] <= 121))
    assert np.array_equal(up_and_down[inside], start[inside])


def test_pitches_beyond_the_ends_come_back_by_an_octave() -> None:
    table = transposition_table(SMALL)
    assert table[0][NOTE_ONSET + 2] == NOTE_ONSET + 8 and table[12][NOTE_HOLD + 127] == NOTE_HOLD + 121
    assert np.array_equal(table[6], np.arange(SMALL.size)) and (table[:, :4] == np.arange(4)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 2047).map(lambda m: 2 * m + 1), st.integers(1, 50), min_size=1),
    st.floats(0.01, 1.0),
)
def test_the_chosen_qualities_are_the_fewest_that_cover(events: dict[int, int], coverage: float) -> None:
    chosen = [interval_mask(quality) for quality in choose_qualities(events, coverage)]
    total = sum(events.values())
    assert sum(events[mask] for mask in chosen) / total >= coverage - 1e-9
    assert sum(events[mask] for mask in chosen[:-1]) / total < coverage
    assert choose_qualities(dict(reversed(events.items())), coverage) == choose_qualities(events, coverage)


def test_a_chord_outside_the_vocabulary_keeps_its_root_and_is_counted(song_folder: Folders, tmp_path: Path) -> None:
    chords = [[beat, beat + 1, beat, [0, 4, 7], beat, "?"] for beat in range(6)] + [[6, 8, 9, [0, 3, 7, 14], 9, "?"]]
    records = [make_record(s, s, chords=chords) for s in ("train", "valid", "test")]
    corpus = _open(song_folder(a=records), tmp_path / "d", [("a", 1.0)], chord_coverage=0.8)
    assert corpus.vocabulary.num_chords == 12 and corpus.unlisted_chord_share == {"a": pytest.approx(1 / 7)}
    tokens = corpus.evaluation_songs("a", "test", 1).actions[0]
    assert corpus.vocabulary.describe(tokens[24]) == "chord onset A"
    full = _open(tmp_path / "songs", tmp_path / "d", [("a", 1.0)], chord_coverage=1.0)
    assert full.vocabulary.num_chords == 24 and full.unlisted_chord_share == {"a": 0.0}


def test_evaluation_crops_ignore_file_order_and_other_songs(song_folder: Folders, tmp_path: Path) -> None:
    records = numbered_records(40, first_beats=20)
    pools = {"a": records, "b": list(reversed(records)), "c": records[:35]}
    corpus = _open(song_folder(**pools), tmp_path / "d", [(n, 1.0) for n in pools], max_frames=64)
    a, b, c = (corpus.evaluation_songs(name, "all", 100) for name in "abc")
    assert a.ids == b.ids and np.array_equal(a.context, b.context) and np.array_equal(a.actions, b.actions)
    places = {song_id: n for n, song_id in enumerate(a.ids)}
    kept = [places[song_id] for song_id in c.ids]
    assert len(kept) == 35 and kept == sorted(kept) and np.array_equal(a.context[kept], c.context)
    few = corpus.evaluation_songs("a", "all", 7)
    assert few.ids == a.ids[:7] and few.index.tolist() == list(range(7)) and few.context.shape == (7, 64)
    assert len(set(a.ids)) == 40 and len(corpus.evaluation_songs("a", "train", 100).ids) == 24


def test_the_fingerprint_changes_with_the_data_only(song_folder: Folders, tmp_path: Path) -> None:
    folder = song_folder(a=numbered_records(5), b=numbered_records(10))
    first = _open(folder, tmp_path / "d", [("a", 1.0)])
    assert first.fingerprint == _open(folder, tmp_path / "other", [("a", 2.0)], max_frames=32).fingerprint
    assert first.fingerprint != _open(folder, tmp_path / "d", [("a", 1.0)], out_of_domain=["b"]).fingerprint
    assert len(first.fingerprint) == 12


def test_a_given_vocabulary_is_kept(song_folder: Folders, tmp_path: Path) -> None:
    corpus = _open(song_folder(a=numbered_records(5)), tmp_path / "d", [("a", 1.0)], vocabulary=SMALL)
    assert corpus.vocabulary is SMALL


def test_an_empty_split_of_a_training_set_is_an_error_but_not_of_another(song_folder: Folders, tmp_path: Path) -> None:
    lone = [make_record(f"{n}", "test") for n in range(3)]
    folder = song_folder(a=numbered_records(5), lone=lone)
    with pytest.raises(UserError, match=r"'lone' of data\.mixture has no songs in split train and valid"):
        _open(folder, tmp_path / "d", [("lone", 1.0)])
    with pytest.raises(UserError, match=r"\(3 in .*\): records say their split, so give some for each of train, valid"):
        _open(folder, tmp_path / "d", [("lone", 1.0)])
    corpus = _open(folder, tmp_path / "d", [("a", 1.0)], out_of_domain=["lone"])
    assert len(corpus.evaluation_songs("lone", "all", 9).ids) == 3
    with pytest.raises(UserError, match="no songs to evaluate in split valid"):
        corpus.evaluation_songs("lone", "valid", 9)


def test_one_imported_tune_is_told_how_many_are_needed(tmp_path: Path) -> None:
    (tmp_path / "songs" / "mine").mkdir(parents=True)
    (tmp_path / "songs" / "mine" / "tune.abc").write_text('X:1\nM:4/4\nL:1/4\nK:C\n"C"CDEF|"G"GABc|\n')
    with pytest.raises(
        UserError, match=r"\(1 in .*mine\): a hash of their melody puts 80, 10 and 10 .* give 40 or more"
    ):
        _open(tmp_path / "songs", tmp_path / "d", [("mine", 1.0)])


def test_wrong_requests_are_one_sentence(built_in: Corpus, song_folder: Folders, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'jazz' is not open"):
        built_in.evaluation_songs("jazz", "test", 5)
    with pytest.raises(UserError, match="no split 'tset'"):
        built_in.evaluation_songs("grammar", "tset", 5)
    with pytest.raises(UserError, match="names a dataset twice"):
        _open(song_folder(a=numbered_records(5)), tmp_path / "d", [("a", 1.0), ("a", 2.0)])


def test_example_numbers_stay_within_int32(built_in: Corpus) -> None:
    last = 2**31 // 8 - 1
    (batch,) = _take(built_in, 1, start=last)
    assert batch.index[-1] == 2**31 - 1
    with pytest.raises(UserError, match="its limit"):
        _take(built_in, 2, start=last)


def test_the_corpus_can_be_cut_to_another_length(built_in: Corpus) -> None:
    assert _take(dataclasses.replace(built_in, max_frames=32), 1)[0].context.shape == (8, 32)


def test_a_melody_agent_gets_the_same_songs_with_the_parts_exchanged(built_in):
    agent = dataclasses.replace(built_in, part="melody")
    batches = [next(c.training_batches(batch_size=4, seed=0, transpose=True)) for c in (built_in, agent)]
    songs = [c.evaluation_songs("grammar", "test", 4) for c in (built_in, agent)]
    for ours, theirs in (batches, songs):
        np.testing.assert_array_equal(theirs.context, ours.actions)
        np.testing.assert_array_equal(theirs.actions, ours.context)
        np.testing.assert_array_equal(theirs.index, ours.index)
    tables = built_in.vocabulary.tables_for("melody")
    assert not tables.is_note[batches[1].actions].any() and tables.is_chord[batches[1].actions].any()


def test_what_training_hears_too_is_known(song_folder: Folders, tmp_path: Path) -> None:
    """By the mixture's train splits alone, of any set, whatever the crop holds."""
    rng = np.random.default_rng(1)
    tunes = [[[b, b + 1, int(p)] for b, p in enumerate(rng.integers(50, 80, 40))] for _ in range(4)]

    def record(name: str, split: str, tune: int, shift: int = 0) -> dict:
        melody = [[on, off, pitch + shift] for on, off, pitch in tunes[tune]]
        return make_record(name, split, 40, melody=melody)

    known = [
        record("a/0", "train", 0),
        record("a/1", "valid", 1),
        record("a/2", "test", 0, 5),
        record("a/3", "test", 2),
    ]
    foreign = [
        record("b/0", "train", 3),
        record("b/1", "test", 3),
        record("b/2", "test", 0, -5),
        record("b/3", "test", 1),
    ]
    corpus = _open(song_folder(a=known, b=foreign), tmp_path / "d", [("a", 1.0)], out_of_domain=["b"], max_frames=16)

    def seen(dataset: str, split: str) -> dict[str, bool]:
        songs = corpus.evaluation_songs(dataset, split, 9)
        return dict(sorted(zip(songs.ids, songs.seen.tolist(), strict=True)))

    assert seen("a", "test") == {"a/2": True, "a/3": False} and seen("a", "train") == {"a/0": True}
    assert seen("b", "all") == {"b/0": False, "b/1": False, "b/2": True, "b/3": False}
