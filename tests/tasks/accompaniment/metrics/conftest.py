"""Songs in words, as tokens of a small vocabulary."""

import numpy as np
import pytest

from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, SILENCE, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7), (0, 4, 7, 10), (0, 3, 7, 10)])


@pytest.fixture
def vocabulary() -> Vocabulary:
    return VOCABULARY


@pytest.fixture
def song(vocabulary: Vocabulary):
    return lambda *parts: tokens(vocabulary, *parts)


def tokens(vocabulary: Vocabulary, *parts: tuple[str | int | None, int]) -> np.ndarray:
    """[1, T] tokens of (chord name, pitch or None for silence, frames): ONSET, then HOLDs."""
    rows = []
    for what, frames in parts:
        if what is None:
            rows += [SILENCE] * frames
        elif isinstance(what, str):
            index = vocabulary.names.index(what)
            rows += [vocabulary.chord_onset + index] + [CHORD_HOLD + index] * (frames - 1)
        else:
            rows += [NOTE_ONSET + what] + [NOTE_HOLD + what] * (frames - 1)
    return np.array([rows], np.int32)
