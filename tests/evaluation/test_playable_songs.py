"""Intervals over seeds and songs, from what runs keep of each song."""

from types import SimpleNamespace

import numpy as np
import pytest

from gapt_jax.evaluation.songs import intervals
from gapt_jax.tasks.accompaniment.domain import DOMAIN

SYSTEMS = {arm: {"grammar/test": {}} for arm in ("gapt_lambda=0", "gapt_lambda=1")}


def run(arm: str, seed: int, hits, song=None):
    """A run of as many songs as `hits`, of 10 frames each."""
    hits = np.asarray(hits)
    arrays = {"song": np.arange(len(hits)) if song is None else np.asarray(song), "hits": hits}
    arrays["frames"] = np.full(len(hits), 10)
    return SimpleNamespace(arm=arm, seed=seed, songs={f"{arm}|grammar/test|{name}": x for name, x in arrays.items()})


def study(*runs):
    return SimpleNamespace(runs=runs, arms=list(SYSTEMS), baseline="gapt_lambda=0", domain=DOMAIN)


KEY = ("gapt_lambda=1", "grammar/test", "note_in_chord")


def test_a_difference_that_is_the_same_in_every_song_and_seed_is_certain():
    runs = [run(arm, seed, 40 * [5 + (arm[-1] == "1")]) for arm in SYSTEMS for seed in (1, 2, 3)]
    assert intervals(study(*runs), SYSTEMS)[KEY] == pytest.approx((0.1, 0.1))


def test_seeds_that_differ_widen_the_interval():
    runs = [run("gapt_lambda=0", seed, 40 * [5]) for seed in (1, 2, 3)]
    runs += [run("gapt_lambda=1", seed, 40 * [5 + seed]) for seed in (1, 2, 3)]
    low, high = intervals(study(*runs), SYSTEMS)[KEY]
    # Differences 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3), t(2) = 4.3027
    assert (low, high) == pytest.approx((0.2 - 0.24841, 0.2 + 0.24841), abs=1e-4)


def test_only_songs_that_all_have_played_are_compared():
    runs = [run("gapt_lambda=0", seed, [5, 5, 9], song=[0, 1, 2]) for seed in (1, 2)]
    runs += [run("gapt_lambda=1", seed, [6, 6], song=[0, 1]) for seed in (1, 2)]
    assert intervals(study(*runs), SYSTEMS)[KEY] == pytest.approx((0.1, 0.1))


def test_one_seed_or_runs_without_songs_give_none():
    one = [run(arm, 1, [5, 6]) for arm in SYSTEMS]
    bare = [SimpleNamespace(arm=arm, seed=seed, songs={}) for arm in SYSTEMS for seed in (1, 2)]
    assert intervals(study(*one), SYSTEMS) == {} == intervals(study(*bare), SYSTEMS)
