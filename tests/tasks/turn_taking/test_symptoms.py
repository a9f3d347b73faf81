"""Planted hacks raise their own alarm, and a healthy agent none."""

import numpy as np
import pytest

from gapt_jax.tasks.turn_taking import metrics, tokens
from gapt_jax.tasks.turn_taking.config import Experiment
from gapt_jax.tasks.turn_taking.simulated import Simulated
from gapt_jax.tasks.turn_taking.symptoms import ON_EVALUATIONS

FRAMES = 128


def silent(actions):
    return np.full_like(actions, tokens.REST)


def talking(actions):
    speech = np.full_like(actions, tokens.TURN_HOLD)
    speech[:, 0] = tokens.TURN_ONSET
    return speech


def chattering(actions):
    return np.where(np.arange(FRAMES) % 4 == 0, tokens.BACKCHANNEL_ONSET, tokens.REST) + 0 * actions


def deaf(actions):
    """What others did elsewhere, at other times."""
    return np.roll(np.roll(actions, 1, axis=0), FRAMES // 2, axis=1)


@pytest.fixture(scope="module")
def songs():
    return Simulated(FRAMES, counts=(("test", 6),)).evaluation_songs("all", "test", 60)


@pytest.mark.parametrize(
    ("hack", "alarms"),
    [(lambda x: x, set()), (silent, {"never_speaks"}), (talking, {"always_speaks", "ignores_partners"}),
     (chattering, {"chatters", "ignores_partners"}), (deaf, {"ignores_partners"})],
)  # fmt: skip
def test_hacks(hack, alarms, songs):
    def row(actions):
        found = metrics.summarize(songs.context, actions, songs.actions)
        return {f"valid/{name}": value for name, value in found.items() if np.isfinite(value)}

    history = [row(songs.actions), row(hack(songs.actions))]
    found = {name: symptom(history, Experiment()) for name, (symptom, _) in ON_EVALUATIONS.items()}
    assert {name for name, text in found.items() if text} == alarms


def test_alarms_have_an_action_and_a_patience():
    health = Experiment().health
    for name, (_, patience) in ON_EVALUATIONS.items():
        assert getattr(health.actions, name) == "log" and getattr(health, patience) > 0
