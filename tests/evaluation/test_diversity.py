"""Diversity of what was played: the songs that have an embedding, and none of the others."""

from types import SimpleNamespace

import numpy as np
import pytest

from gapt_jax.evaluation.evaluator import Evaluator, sounding
from gapt_jax.task import EOS, PAD

FRAMES = 6


class Embedded(Evaluator):
    """Gives each song a direction of its own."""

    def embed(self, encoder, context, actions):
        return np.eye(len(context)), np.full(len(context), 0.5)


def judged(context, actions):
    spec = SimpleNamespace(task=SimpleNamespace(measure=lambda *_: {}))
    return Embedded(spec, {"independent": None}, None).judge(context, actions, actions)[0]


def played(songs=12):
    return np.full((songs, FRAMES), 9), np.full((songs, FRAMES), 7)


def test_a_song_that_stops_at_once_has_no_embedding():
    context, actions = played()
    actions[0], actions[1] = PAD, [EOS, *[PAD] * (FRAMES - 1)]
    assert judged(context, actions)["vendi_independent"] == pytest.approx(10.0)


def test_padding_adds_no_song():
    context, actions = played()
    before = judged(context, actions)["vendi_independent"]
    wider = [np.pad(x, ((0, 5), (0, 3)), constant_values=PAD) for x in (context, actions)]
    assert judged(*wider)["vendi_independent"] == pytest.approx(before) == 12.0


def test_what_is_played_after_the_end_does_not_count():
    context, actions = played()
    context[3] = PAD
    assert not sounding(context, actions)[3] and judged(context, actions)["vendi_independent"] == pytest.approx(11.0)


def test_no_songs_at_all_is_nan_and_no_error():
    context, actions = played(2)
    assert np.isnan(judged(np.full_like(context, PAD), actions)["vendi_independent"])
