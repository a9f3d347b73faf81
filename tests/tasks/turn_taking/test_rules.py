"""Rules of turn-taking by hand, and that JAX's penalties and NumPy's shares judge alike."""

import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.task import EOS, PAD
from gapt_jax.tasks.turn_taking import rules, violations
from gapt_jax.tasks.turn_taking.stretches import heard
from gapt_jax.tasks.turn_taking.task import TurnTaking
from gapt_jax.tasks.turn_taking.tokens import (
    BACKCHANNEL_HOLD,
    BACKCHANNEL_ONSET,
    CONTEXT,
    REST,
    SIZE,
    TURN_HOLD,
    TURN_ONSET,
    VOCAL_HOLD,
    VOCAL_ONSET,
)

ONSETS = {TURN_ONSET, BACKCHANNEL_ONSET, VOCAL_ONSET}


@pytest.mark.parametrize(
    ("previous", "hold"),
    [(TURN_ONSET, TURN_HOLD), (TURN_HOLD, TURN_HOLD), (BACKCHANNEL_ONSET, BACKCHANNEL_HOLD), (VOCAL_HOLD, VOCAL_HOLD),
     (REST, None), (PAD, None), (CONTEXT, None)],
)  # fmt: skip
def test_a_hold_follows_its_own_onset_or_hold(previous, hold):
    valid = np.asarray(rules.valid_tokens(jnp.array([[previous]])))
    assert valid.shape == (1, 1, SIZE)
    assert set(np.flatnonzero(valid[0, 0])) == {REST, *ONSETS, hold} - {None}


def test_what_goes_on():
    going_on = TurnTaking().going_on
    assert [going_on[t] for t in (REST, TURN_ONSET, TURN_HOLD, VOCAL_ONSET)] == [REST, TURN_HOLD, TURN_HOLD, VOCAL_HOLD]
    assert going_on[CONTEXT:].tolist() == [CONTEXT + 4 * (n // 4) for n in range(16)]
    assert going_on[PAD] == PAD and going_on[EOS] == EOS


def rows(*actions):
    """Rows of equal length, filled up with REST."""
    length = max(map(len, actions))
    return np.array([[*row, *[REST] * (length - len(row))] for row in actions], np.int32)


def test_invalid():
    actions = rows([TURN_ONSET, TURN_HOLD, REST], [TURN_HOLD], [TURN_ONSET, BACKCHANNEL_HOLD], [EOS], [CONTEXT], [REST])
    expected = np.array([False, True, True, True, True, False])
    np.testing.assert_array_equal(rules.invalid(actions, np.ones(actions.shape)) < 0, expected)
    np.testing.assert_array_equal(violations.invalid(np.full_like(actions, CONTEXT), actions), expected)
    assert not rules.invalid(actions, np.zeros(actions.shape)).any()


def test_a_monologue_is_paid_from_the_limit_on():
    turn = [TURN_ONSET, *[TURN_HOLD] * (rules.TURN_LIMIT - 1)]
    actions = rows([*turn, TURN_HOLD, TURN_ONSET], turn, [*turn, REST, TURN_ONSET], [BACKCHANNEL_ONSET])
    paid = np.asarray(rules.monologue(actions, np.ones(actions.shape)))
    np.testing.assert_allclose(paid.sum(1), [-0.04, 0, 0, 0], atol=1e-6)  # an onset gives no leave to go on
    np.testing.assert_allclose(paid[0, -2:], -0.02)
    np.testing.assert_array_equal(violations.monologue(np.full_like(actions, CONTEXT), actions), [1, 0, 0, 0])


def test_chatter_is_paid_from_the_fifth_onset_in_ten_seconds():
    quick = [BACKCHANNEL_ONSET, REST] * 5
    slow = [*[TURN_ONSET, REST] * 4, *[REST] * (rules.WINDOW - 8), VOCAL_ONSET]
    actions = rows(quick, slow)
    paid = np.asarray(rules.chatter(actions, np.ones(actions.shape)))
    assert paid[0, 8] == np.float32(-0.1) and paid.sum() == np.float32(-0.1)
    context = np.full_like(actions, CONTEXT)
    np.testing.assert_array_equal(violations.chatter(heard(context, actions)), [True, False])


def test_who_says_nothing_is_mute():
    actions = rows([REST] * 3, [VOCAL_ONSET], [REST, BACKCHANNEL_ONSET])
    np.testing.assert_array_equal(rules.mute(actions, np.ones(actions.shape)), [-1, -1, 0])
    np.testing.assert_array_equal(rules.mute(actions, np.zeros(actions.shape))[2], -1)  # beyond the end


def test_terms_stand_where_they_should():
    actions = rows([REST, REST, REST, PAD])
    mask = jnp.array([[1.0, 1, 1, 0]])
    terms = TurnTaking().rule_terms(jnp.full((1, 4), CONTEXT), jnp.array(actions), mask)
    assert set(terms) == {"chatter", "invalid", "monologue", "mute"}
    np.testing.assert_array_equal(terms["mute"], [[0, 0, -1, 0]])
    assert not terms["invalid"].any() and TurnTaking().is_valid(jnp.array(actions), mask).all()
