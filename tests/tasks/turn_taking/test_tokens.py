"""Tokens of turn-taking, by hand and there and back."""

from __future__ import annotations

import numpy as np
import pytest

from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.tasks.turn_taking.tokens import BACKCHANNEL, BEGUN, BOTH, CONTEXT, ENDED, NOTHING, TURN, VOCAL, Stretch


def frames(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text], bool)


def written(actions: np.ndarray) -> str:
    return "".join("_^$.TtBbVv"[token] for token in actions)


def actions_of(speech: str, vocal: str | None = None) -> str:
    return written(tokens.actions_of(frames(speech), frames(vocal or "." * len(speech))))


def test_there_is_a_name_for_every_token():
    names = tokens.names()
    assert len(names) == len(set(names)) == tokens.SIZE == 26
    assert names[tokens.REST] == "rest" and names[tokens.BACKCHANNEL_HOLD] == "backchannel hold"
    assert names[CONTEXT + 4 * 2 + ENDED] == "2 speak, one has ended" and names[-1].startswith("3 or more speak")


@pytest.mark.parametrize(
    ("speech", "expected"),
    [
        ("..xx.", "..Bb."),
        ("xxxxx", "Bbbbb"),  # the longest backchannel
        ("xxxxxx", "Tttttt"),
        ("xxxxxx....x", "Tttttt....T"),  # four frames after a turn: its last word
        ("xxxxxx.....x", "Tttttt.....B"),
        ("x....xxxxxx", "T....Tttttt"),
        ("x.....xxxxxx", "B.....Tttttt"),
        ("x.x.xxxxxx", "T.T.Tttttt"),  # near the turn, though another short one lies between
        ("xx.xx.xx.xx", "Bb.Bb.Bb.Bb"),  # short ones make no turn
        ("", ""),
    ],
)
def test_backchannels_by_hand(speech, expected):
    assert actions_of(speech) == expected


def test_vocal_sounds_are_heard_between_speech_and_touch_nothing():
    assert actions_of("..xx......", ".xxxx.xx..") == ".VBbV.Vv.."


def test_the_context_by_hand():
    others = np.stack([frames("x..xx.xx"), frames("x...xxx."), frames("....x...")])
    heard = [(2, BEGUN), (0, ENDED), (0, NOTHING), (1, BEGUN), (3, BEGUN), (1, ENDED), (2, BEGUN), (1, ENDED)]
    assert tokens.context_of(others).tolist() == [CONTEXT + 4 * number + change for number, change in heard]
    swapped = np.stack([frames("x."), frames(".x")])
    assert tokens.context_of(swapped).tolist()[1] == CONTEXT + 4 * 1 + BOTH
    crowd = np.ones((5, 1), bool)
    assert tokens.context_of(crowd).tolist() == [CONTEXT + 4 * tokens.MANY + BEGUN]
    assert tokens.context_of(np.zeros((0, 2), bool)).tolist() == [CONTEXT, CONTEXT]


@pytest.mark.parametrize("seed", range(5))
def test_what_is_encoded_is_decoded(seed):
    rng = np.random.default_rng(seed)
    speech = np.repeat(rng.random((4, 60)) < 0.3, 4, axis=1) & (rng.random((4, 240)) < 0.95)
    vocal = rng.random((4, 240)) < 0.1
    context, actions = tokens.encode(speech, vocal)
    assert context.shape == actions.shape == (4, 240) and context.dtype == actions.dtype == np.int32
    for agent in range(4):
        others = np.delete(speech, agent, axis=0)
        assert np.array_equal(context[agent], tokens.context_of(others))
        number, begun, ended = tokens.decode_context(context[agent])
        before = np.pad(others, ((0, 0), (1, 0)))[:, :-1]
        assert np.array_equal(number, others.sum(axis=0))
        assert np.array_equal(begun, (others & ~before).any(axis=0))
        assert np.array_equal(ended, (before & ~others).any(axis=0))
        found = np.zeros((3, 240), bool)
        for stretch in tokens.decode(actions[agent]):
            found[stretch.kind, stretch.start : stretch.end] = True
        said = found[TURN] | found[BACKCHANNEL]
        assert np.array_equal(said, speech[agent]) and np.array_equal(tokens.speaks(actions[agent]), said)
        assert np.array_equal(found[VOCAL], vocal[agent] & ~said)
        assert np.array_equal(tokens.actions_of(said, found[VOCAL]), actions[agent])


def test_what_a_policy_may_do_is_decoded_too():
    """A hold without an onset begins a stretch; a second onset does too; padding ends one."""
    actions = np.array([5, 5, 4, 7, 7, 3, 6, 8, 9, 0, 0])
    assert tokens.decode(actions) == [
        Stretch(0, 2, TURN),
        Stretch(2, 3, TURN),
        Stretch(3, 5, BACKCHANNEL),
        Stretch(6, 7, BACKCHANNEL),
        Stretch(7, 9, VOCAL),
    ]
    assert tokens.decode(np.zeros(0, np.int32)) == []
    assert tokens.kind_of(actions).tolist() == [0, 0, 0, 1, 1, -1, 1, 2, 2, -1, -1]
