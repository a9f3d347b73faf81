"""What `gapt data` reports, and the same figures on the real songs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.data_pipeline import catalogue
from gapt_jax.data_pipeline.loader import Corpus, build_vocabulary, open_corpus
from gapt_jax.data_pipeline.songs import parse_song, to_frames
from gapt_jax.data_pipeline.upstream import UPSTREAM
from gapt_jax.errors import UserError
from gapt_jax.vocabulary import PAD
from tests.data_pipeline.song_records import make_record, numbered_records

Folders = Callable[..., Path]
IN_DOMAIN = [("hooktheory", 0.6), ("pop909", 0.3), ("nottingham", 0.1)]


def test_list_names_files_and_built_in_sets(song_folder: Folders, tmp_path: Path) -> None:
    folder = song_folder(airs=numbered_records(5))
    catalogue.stats("airs", folder, tmp_path / "data")
    rows = {row["name"]: row for row in catalogue.list_datasets(folder, tmp_path / "data")}
    assert list(rows) == ["airs", *UPSTREAM, "grammar", "grammar_c", "grammar_modal"]
    assert rows["airs"]["prepared"] and not rows["grammar"]["prepared"]
    assert rows["airs"]["bytes"] == (folder / "airs.jsonl.gz").stat().st_size
    assert [row["name"] for row in catalogue.list_datasets("grammar")] == ["grammar", "grammar_c", "grammar_modal"]
    with pytest.raises(UserError, match="there is no folder"):
        catalogue.list_datasets(tmp_path / "nowhere")


def test_check_lists_faults_counts_and_groups_in_two_splits(song_folder: Folders, tmp_path: Path) -> None:
    torn = [make_record("x", "train", group="g"), make_record("y", "test", group="g")]
    folder = song_folder(a=[*numbered_records(5), "{"], b=[make_record(split="?"), *torn])
    result = catalogue.check(folder)
    assert [(fault["file"], fault["line"]) for fault in result.faults] == [
        ("a.jsonl.gz", 6),
        ("b.jsonl.gz", 1),
    ]
    assert result.files[0] == {"file": "a.jsonl.gz", "train": 3, "valid": 1, "test": 1, "rejected": 1}
    assert result.leaks == ["g"] and catalogue.check(folder / "a.jsonl.gz").leaks == []
    with pytest.raises(UserError, match="no file or folder"):
        catalogue.check(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="to check"):
        catalogue.check(tmp_path / "empty")


def test_what_holds_no_song_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "blank.jsonl").write_text("\n\n")
    for name in ("a.jsonl", "b.jsonl.gz", "c.abc", "d.json", "e.musicxml"):
        (tmp_path / name).write_bytes(b"")
        (fault,) = catalogue.check(tmp_path / name).faults
        assert fault == {"file": name, "line": 1, "reason": "it is empty"}
    (fault,) = catalogue.check(tmp_path / "blank.jsonl").faults
    assert fault["reason"] == "it has no song"
    (tmp_path / "none.json").write_text("{}")
    (fault,) = catalogue.check(tmp_path / "none.json").faults
    assert fault["reason"] == "it has no song"
    assert len(catalogue.check(tmp_path).faults) == 3, "the files of records"


def test_convert_says_why_there_is_no_song(tmp_path: Path) -> None:
    for name, content, reason in (("a.json", "{}", "it has no song"), ("b.jsonl", "", "it is empty")):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=rf"(cannot be used: |no song that can be used \(){reason}"):
            catalogue.convert(tmp_path / name, tmp_path / "out.jsonl")


@pytest.mark.parametrize("name", ["tunes.xyz", "tunes.mid", "tunes.json", "tunes.jsonl.bz2", "tunes.gz"])
def test_an_unknown_ending_makes_no_folder(song_folder: Folders, tmp_path: Path, name: str) -> None:
    folder = song_folder(a=numbered_records(2))
    with pytest.raises(UserError, match=r"none of \.jsonl\.gz, \.jsonl, \.abc: .* without an ending"):
        catalogue.convert(folder, tmp_path / name)
    assert not (tmp_path / name).exists()
    catalogue.convert(folder, tmp_path / "tunes")
    assert len(list((tmp_path / "tunes").glob("*.mid"))) == 2


def _off_bars(identity: str, first: int) -> dict:
    """Twelve chords, each a bar after the other; `first` beats before the first."""
    chords = [[first + 4 * n, first + 4 * n + 2, n, [0, 4, 7], n, "?"] for n in range(12)]
    return make_record(identity, beats=60, chords=chords)


def test_chords_that_seldom_begin_on_a_bar_line_are_a_hint_and_no_fault(song_folder: Folders, tmp_path: Path) -> None:
    records = [_off_bars("set/1", 1), _off_bars("set/2", 2), _off_bars("set/3", 0), make_record("set/4", "valid")]
    folder = song_folder(a=records, b=[_off_bars("set/5", 4)])
    result = catalogue.check(folder)
    assert result.faults == [] and len(result.hints) == 1
    assert result.hints[0].startswith("hint: in 2 of the 4 songs of a.jsonl.gz under a tenth of the chord changes lie")
    summary, _ = catalogue.stats("a", folder, tmp_path / "data")
    assert summary["off_bars"] == 2 and catalogue.stats("b", folder, tmp_path / "data")[0]["off_bars"] == 0


@pytest.mark.real_data
def test_some_songs_of_pop909_have_their_bar_lines_elsewhere(real_songs: Path) -> None:
    (hint,) = catalogue.check(real_songs / "pop909.jsonl.gz").hints
    assert "in 93 of the 908 songs" in hint


def test_note_in_chord_by_hand() -> None:
    """Two beats C under C major, one beat C sharp, one beat without a chord."""
    melody, chords = [[0, 2, 60], [2, 3, 61], [3, 4, 62]], [[0, 3, 0, [0, 4, 7], 0, "C"]]
    frames = to_frames(parse_song(make_record(melody=melody, chords=chords)))
    assert catalogue.note_in_chord(frames) == pytest.approx(2 / 3)
    assert catalogue.note_in_chord(frames, 4) == pytest.approx(2 / 3)
    assert catalogue.note_in_chord(frames, 3) == pytest.approx(1 / 3)
    alone = to_frames(parse_song(make_record(melody=[[5, 6, 60]], chords=chords)))
    assert np.isnan(catalogue.note_in_chord(alone))


def test_stats_count_songs_beats_qualities_and_notes_off_the_grid(song_folder: Folders, tmp_path: Path) -> None:
    records = [*numbered_records(4), make_record("set/x", "test", melody=[[0.1, 1, 60], [1, 2, 62]])]
    summary, rows = catalogue.stats("a", song_folder(a=records), tmp_path / "data")
    assert summary["songs"] == {"train": 3, "valid": 1, "test": 1}
    assert summary["notes"] == 8 + 9 + 10 + 11 + 2 and summary["off_grid_share"] == pytest.approx(1 / 40)
    assert [row["split"] for row in rows] == ["train", "valid", "test"] and rows[0]["beats"] == 27
    assert [row["seen"] for row in rows] == [None, 0, 0]  # too short to say
    assert (
        rows[0]["qualities_for"] == {"90%": 1, "99%": 1, "100%": 1}
        and rows[0]["commonest"] == ["maj"]
        and rows[0]["chords"] == 2 + 3 + 3
    )


@pytest.fixture(scope="module")
def real(real_songs: Path, data_dir: Path) -> Corpus:
    """The three smaller sets only: Hooktheory takes twelve seconds to prepare, see the slow test."""
    return open_corpus(
        songs=str(real_songs),
        mixture=[("nottingham", 1.0)],
        out_of_domain=["openewld", "lily_pd"],
        max_frames=256,
        chord_coverage=0.999,
        data_dir=data_dir,
    )


def _published(real_songs: Path) -> dict:
    return json.loads((real_songs.parent / "stats.json").read_text())


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["nottingham", "openewld", "lily_pd"])
def test_real_harmony_agrees_with_the_figures_of_the_data(name: str, real: Corpus, real_songs: Path) -> None:
    """Theirs counts the bass as a note of the chord and knows no grid: the difference stays below 0.02."""
    frames, figures = real.datasets[name]["train"].frames, _published(real_songs)[name]
    assert catalogue.note_in_chord(frames) == pytest.approx(figures["note_in_chord"], abs=0.02)
    chance = np.mean([catalogue.note_in_chord(frames, shift) for shift in range(1, 12)])
    assert chance == pytest.approx(figures["chance_transposed"], abs=0.02)
    assert len(real.datasets[name]["train"]) == figures["train"]


@pytest.mark.real_data
def test_real_songs_have_no_faults_and_no_leaks(real_songs: Path) -> None:
    result = catalogue.check(real_songs / "openewld.jsonl.gz")
    assert result.faults == [] and result.leaks == [] and result.files[0]["train"] == 405


@pytest.mark.real_data
def test_real_evaluation_crops_are_full_of_music(real: Corpus) -> None:
    songs = real.evaluation_songs("openewld", "all", 512)
    assert songs.context.shape == (502, 256)
    assert 0.2 < real.unlisted_chord_share["openewld"] < 0.3  # Nottingham alone has nine qualities
    tables = real.vocabulary.tables
    both = tables.is_note[songs.context] & tables.is_chord[songs.actions]
    inside = (tables.pitch_classes[songs.context] & tables.pitch_classes[songs.actions]).any(-1)
    assert both.sum() / (songs.context != PAD).sum() > 0.85 and 0.7 < inside[both].mean() < 0.82


@pytest.mark.real_data
@pytest.mark.slow
def test_the_published_mixture_opens_quickly_and_streams_fast(real_songs: Path, data_dir: Path) -> None:
    settings = {
        "songs": str(real_songs),
        "mixture": IN_DOMAIN,
        "out_of_domain": ["openewld"],
        "max_frames": 64,
    }
    corpus = open_corpus(**settings, chord_coverage=0.999, data_dir=data_dir)
    start = time.process_time()
    open_corpus(**settings, chord_coverage=0.999, data_dir=data_dir)
    assert time.process_time() - start < 5
    trained = [corpus.datasets[name]["train"] for name, _ in IN_DOMAIN]
    sizes = [build_vocabulary(trained, coverage).num_chords // 12 for coverage in (0.96, 0.99, 0.999)]
    assert sizes == [11, 26, 107]
    for name, _ in IN_DOMAIN:
        assert corpus.unlisted_chord_share[name] < 0.002
        figures = _published(real_songs)[name]
        share = catalogue.note_in_chord(corpus.datasets[name]["train"].frames)
        assert share == pytest.approx(figures["note_in_chord"], abs=0.02)
    batches = corpus.training_batches(batch_size=100, seed=0, transpose=True)
    next(batches)
    start = time.process_time()  # the loader's threads included; a busy machine counts for nothing
    for _ in range(20):
        next(batches)
    assert 2000 / (time.process_time() - start) > 2000
