"""Songs, and a network that only listens, for tests of losses."""

import jax
import numpy as np

from gapt_jax.types import Batch
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_ONSET, PAD, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
FRAMES = 8
KEY = jax.random.key(0)


def songs(rows: int, seed: int = 0, shortest: int = 3) -> Batch:
    rng = np.random.default_rng(seed)
    melody = rng.integers(NOTE_ONSET, NOTE_ONSET + 128, (rows, FRAMES))
    chords = rng.integers(CHORD_HOLD, VOCABULARY.size, (rows, FRAMES))
    ended = np.arange(FRAMES) >= rng.integers(shortest, FRAMES + 1, (rows, 1))
    melody[ended] = chords[ended] = PAD
    return Batch(*(x.astype(np.int32) for x in (melody, chords, np.arange(rows))))


class Spy:
    """Stands for every network: keeps what it is given, answers what it is told to."""

    def __init__(self, answer):
        self.answer, self.inputs = answer, None
        self.policy = self.anchor = self

    def __call__(self, params, *tokens_and_key):
        self.inputs = [np.asarray(x) for x in tokens_and_key[:-1]]
        return self.answer(*self.inputs)
