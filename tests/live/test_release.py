"""The figures by which a policy is released: by hand, of the tune book, of the engine; and the tunes themselves."""

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gapt_jax.data_pipeline import hygiene
from gapt_jax.data_pipeline.songs import read_songs, to_frame
from gapt_jax.experiments.jam import jam
from gapt_jax.export import bundle
from gapt_jax.live import release
from gapt_jax.live.engine import Controls
from gapt_jax.live.play import play
from gapt_jax.live.release import Figures, Tune
from gapt_jax.live.songs import song_model
from gapt_jax.runtime.console import Console
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, SILENCE, Vocabulary
from tests.data_pipeline.song_records import REAL_SONGS
from tests.export.bundles import random_policy

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "jam_figures.py"
DEFINED = runpy.run_path(str(SCRIPT))
BOOK, tune_of, chords_of = DEFINED["BOOK"], DEFINED["tune_of"], DEFINED["chords_of"]
VOCABULARY = Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7)])
STRUCK = VOCABULARY.chord_onset
TITLES = ["Ode to Joy", "Amazing Grace", "Au clair de la lune", "Korobeiniki", "My Bonnie Lies over the Ocean"]
ALIKE = 8  # steps in pitch and time that no other song may have in a row


def tokens(*chords):
    """Chord tokens of (root of a major chord or None, frames), each struck anew."""
    found = []
    for root, frames in chords:
        found += [SILENCE] * frames if root is None else [STRUCK + root] + [CHORD_HOLD + root] * (frames - 1)
    return np.array(found, np.int32)


def book():
    return DEFINED["songs_of"](BOOK)


def middle_c(frames, bar=16):
    return Tune("C", np.array([NOTE_ONSET + 60] + [NOTE_HOLD + 60] * (frames - 1), np.int32), bar)


def test_figures_by_hand():
    chords = tokens((0, 8), (0, 8), (5, 6), (7, 6), (None, 4), (7, 8), (0, 8))  # C, F and G: C is in C and F
    found = release.measure(middle_c(48), chords, VOCABULARY.tables)
    assert (found.hits, found.frames) == (8 + 8 + 6 + 8, 44)
    assert found.chance == pytest.approx((3 * 44 - 30) / (11 * 44))
    assert (found.changes, found.on_beat) == (3, 2)  # F at 16, G at 22, C at 40; G at 32 is no change
    assert found.longest == 1 and found.chords == 3  # C over 16 frames, though struck twice
    assert release.measure(middle_c(48, 12), chords, VOCABULARY.tables).longest == pytest.approx(16 / 12)


def test_what_is_silent_or_never_changes_has_no_share():
    silent = release.measure(middle_c(8), tokens((None, 8)), VOCABULARY.tables)
    assert dataclasses.replace(silent, chance=0) == Figures(0, 0, 0, 0, 0, 0, 0) and np.isnan(silent.chance)
    one = release.measure(middle_c(8), tokens((0, 8)), VOCABULARY.tables)
    assert (one.changes, one.on_beat, one.longest, one.chords) == (0, 0, 0.5, 1)
    found = release.summary([silent], [silent])
    assert np.isnan(found["note_in_chord"]) and sum(release.criteria(found).values()) == 1  # nothing is held too long


def test_a_summary_pools_frames_and_takes_the_worst_tune():
    first, second = Figures(6, 10, 0.3, 4, 4, 1.5, 5), Figures(20, 30, 0.2, 4, 1, 5, 2)
    found = release.summary([first, second], [first, second])
    assert found == {
        "note_in_chord": pytest.approx(26 / 40),
        "note_in_chord_chance": pytest.approx((0.3 * 10 + 0.2 * 30) / 40),
        "changes_on_beat": 5 / 8,
        "longest_chord_bars": 5,
        "fewest_chords": 2,
    }


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, [True] * 4),
        ({"note_in_chord": 0.449}, [False, True, True, True]),
        ({"changes_on_beat": 0.59}, [True, False, True, True]),
        ({"longest_chord_bars": 4.25}, [True, True, False, True]),
        ({"fewest_chords": 3}, [True, True, True, False]),
        ({"changes_on_beat": float("nan")}, [True, False, True, True]),
    ],
)
def test_what_a_released_policy_must_reach(changed, met):
    found = {"note_in_chord": 0.5, "note_in_chord_chance": 0.3, "changes_on_beat": 0.6}
    found |= {"longest_chord_bars": 4, "fewest_chords": 4} | changed
    assert list(release.criteria(found).values()) == met


def test_a_pickup_ends_the_first_bar():
    melody = np.array([NOTE_ONSET + 60] * 20, np.int32)
    for pickup, bar, rests in ((0, 16, 0), (4, 12, 8), (2, 12, 10), (16, 16, 0), (20, 16, 12)):
        moved = release.from_bar_line(melody, pickup, bar)
        assert len(moved) == 20 + rests and (moved[:rests] == SILENCE).all() and (moved[rests:] == melody).all()
        assert (rests + pickup) % bar == 0


def test_the_book_has_five_tunes_of_sixteen_bars_and_says_why_they_are_free():
    songs = book()
    assert [song.title for song in songs] == TITLES
    for song in songs:
        bar = 4 * song.meter[0] / song.meter[1]
        tune = tune_of(song)
        assert song.beats_total / bar > 15.6 and len(tune.melody) / tune.bar > 15.6
        assert (song.pickup > 0) == (song.meter == (3, 4))
    assert BOOK.read_text().count("\nN:Public domain: ") == 5


def test_the_chords_of_the_book_meet_every_demand_but_for_its_simplest_tunes():
    """A check of book and figures together: the tunes fit their chords far above chance, and chords change on beats."""
    tables, found = VOCABULARY.tables, []
    for song in book():
        one = release.measure(tune_of(song), chords_of(song, VOCABULARY), tables)
        assert one.on_beat == one.changes >= 6 and one.hits / one.frames > one.chance + 0.4, song.title
        found.append(one)
    met = release.criteria(release.summary(found, found))
    assert list(met.values()) == [True, True, True, False] and min(one.chords for one in found) == 3


def test_the_engine_plays_a_tune_as_gapt_play_does(make_model):
    model, tune = make_model(), tune_of(book()[0])
    chords = release.accompanied(model, tune, 1, 1.0)
    controls = Controls(seed=1, intro_frames=0, lookahead_frames=model.most_ahead)
    engine, _ = play(model, controls, tune.melody.tolist(), realtime=False)
    assert chords.tolist() == engine.decided[: len(tune.melody)] and len(chords) == 256
    assert engine.heard[:256] == tune.melody.tolist()
    assert chords.tolist() != release.accompanied(model, tune, 2, 1.0).tolist()
    likeliest = [release.accompanied(model, tune, seed, 0.0).tolist() for seed in (1, 2)]
    assert likeliest[0] == likeliest[1] != chords.tolist()


def test_songs_in_a_policys_place_are_measured_as_they_were_written():
    song = book()[3]
    chords, tune = chords_of(song, VOCABULARY), tune_of(song)
    model = song_model("book", chords, tune.melody, VOCABULARY)
    found = release.of_policy(model, [tune], seeds=(0,))
    written = release.measure(tune, chords, VOCABULARY.tables)
    assert found["tunes"]["Korobeiniki"]["seeds"] == [dataclasses.asdict(written)]
    assert found["fewest_chords"] == written.chords and all(found["criteria"].values())


def test_the_script_prints_and_writes_the_figures(tmp_path):
    bundle.write(random_policy(), tmp_path / "band", Console(), with_onnx=False)
    command = [sys.executable, SCRIPT, tmp_path / "band", "--out", tmp_path / "figures.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "band: more than 3 chords a tune at temperature 0: " in done.stdout
    written = json.loads((tmp_path / "figures.json").read_text())
    band = written["systems"]["band"]
    assert list(band["tunes"]) == TITLES and all(len(tune["seeds"]) == 3 for tune in band["tunes"].values())
    assert written["systems"]["tune book"]["changes_on_beat"] == 1 and len(band["criteria"]) == 4
    assert set(written["policies"]) == {"band"} and len(written["policies"]["band"]["weights_sha256"]) == 64


@pytest.mark.real_data
def test_no_tune_is_in_a_training_set():
    """Neither as a whole, in any key, nor so many of its steps in a row."""

    def steps(song):
        onsets = to_frame(np.array([note.onset for note in song.melody]))
        found = np.stack([np.diff([note.pitch for note in song.melody]), np.diff(onsets)], axis=1).tolist()
        return {str(found[place : place + ALIKE]) for place in range(len(found) - ALIKE + 1)}

    tunes = book()
    keys, rows = {hygiene.melody_key(tune.melody) for tune in tunes}, set.union(*map(steps, tunes))
    assert len(keys) == 5 and None not in keys
    for name, _ in jam().data.mixture:
        for song in read_songs(REAL_SONGS / f"{name}.jsonl.gz"):
            assert hygiene.melody_key(song.melody) not in keys and not rows & steps(song), song.title
