"""Accompaniment as the learner sees it."""

import jax.numpy as jnp
import numpy as np

from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import NOTE_ONSET, PAD, SILENCE


def test_rule_terms_are_placed(vocabulary):
    onset, hold = vocabulary.chord_onset, 260
    chords = jnp.array([[onset, hold, onset + 1, hold, SILENCE, PAD, PAD, PAD]])  # a hold of the wrong chord
    melody = jnp.array([[NOTE_ONSET] * 5 + [PAD] * 3])
    mask = (melody != PAD).astype(jnp.float32)
    terms = Accompaniment(vocabulary).rule_terms(melody, chords, mask)
    assert set(terms) == {"early_stop", "invalid", "long_note", "repetition", "silence"}
    np.testing.assert_array_equal(terms["invalid"], [[0, 0, 0, 0, -10, 0, 0, 0]])
    np.testing.assert_array_equal(terms["repetition"], [[0, 0, 0, 0, -1, 0, 0, 0]])
    np.testing.assert_array_equal(terms["early_stop"], np.zeros((1, 8)))
