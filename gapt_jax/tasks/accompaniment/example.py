"""A few songs of three chord qualities, to try the method on."""

from __future__ import annotations

import numpy as np

from gapt_jax.tasks.accompaniment.config import RewardsConfig
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.types import Batch
from gapt_jax.vocabulary import Vocabulary

SONGS, FRAMES = 8, 16
TASK = Accompaniment(Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7), (0, 4, 7, 10)]))
REWARDS = RewardsConfig()


def songs() -> Batch:
    draw, vocabulary = np.random.default_rng(0), TASK.vocabulary
    melody = draw.integers(132 + 60, 132 + 72, (SONGS, FRAMES), dtype=np.int32)
    chords = draw.integers(vocabulary.chord_onset, vocabulary.size, (SONGS, FRAMES), dtype=np.int32)
    return Batch(melody, chords, np.arange(SONGS, dtype=np.int32))
