"""Songs as they were written, in a policy's place: the condition that a listener may take for the ideal, though nobody
listens to the player."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gapt_jax.live.model import LiveModel
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import Vocabulary

SYSTEM = "data"
SESSION = 1 << 16  # frames after which the songs begin again


def song_model(name: str, chords: np.ndarray, melody: np.ndarray, vocabulary: Vocabulary) -> LiveModel:
    """Songs, one after the other, as tokens of the vocabulary: chords [F] and melody [F]."""
    functions: dict[str, Callable[..., Any]] = {
        "prefill": lambda weights, chords, notes, frames: (None, {"position": frames}),
        "commit_frame": lambda weights, chord, note, state: (None, {"position": state["position"] + 1}),
        "plan": functools.partial(_plan, np.stack([chords, melody])),
    }
    digest = hashlib.sha256(chords.tobytes() + melody.tobytes()).hexdigest()
    return LiveModel(name, SYSTEM, digest, Accompaniment(vocabulary), SESSION, {}, functions)


def _plan(parts: np.ndarray, *arguments: Any) -> Any:
    """`plan` of a policy: parts [2, F] from the state's position on; chords that are decided stay."""
    *_, given, _, frames, _, _, state = arguments
    first = int(state["position"])
    chords, melody = parts[:, (first + np.arange(given.shape[1])) % parts.shape[1]]
    return np.where(given < 0, chords, given), melody[None], {"position": np.int32(first + frames - 1)}
