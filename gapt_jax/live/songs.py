"""Songs as they were written, in a policy's place: the condition that a listener may take for the ideal, though nobody
listens to the player."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.live.model import LiveModel
from gapt_jax.vocabulary import Vocabulary

SYSTEM = "data"
SESSION = 1 << 16  # frames after which the songs begin again
_MOST_FRAMES = 1 << 18


def song_model(path: Path, vocabulary: Vocabulary) -> LiveModel:
    """The songs of a file or folder, one after the other; chords that the vocabulary lacks become their nearest."""
    from data_pipeline import catalogue
    from data_pipeline.songs import Song, to_frames
    from data_pipeline.store import chord_tokens, melody_tokens

    songs, count = [], 0
    for song in catalogue.read(path):
        if isinstance(song, Song) and count < _MOST_FRAMES:
            songs.append(to_frames(song))
            count += len(songs[-1])
    if not songs:
        raise UserError(f"{path} has no song that could be played: 'gapt data check {path}' says why")
    chords = np.concatenate([chord_tokens(frames, vocabulary) for frames in songs])
    melody = np.concatenate([melody_tokens(frames) for frames in songs])
    functions: dict[str, Callable[..., Any]] = {
        "prefill": lambda weights, chords, notes, frames: (None, {"position": frames}),
        "commit_frame": lambda weights, chord, note, state: (None, {"position": state["position"] + 1}),
        "plan": functools.partial(_plan, np.stack([chords, melody])),
    }
    digest = hashlib.sha256(chords.tobytes() + melody.tobytes()).hexdigest()
    return LiveModel(path.resolve().name, SYSTEM, digest, vocabulary, SESSION, {}, functions)


def _plan(parts: np.ndarray, *arguments: Any) -> Any:
    """`plan` of a policy: parts [2, F] from the state's position on; chords that are decided stay."""
    *_, given, _, frames, _, _, state = arguments
    first = int(state["position"])
    chords, melody = parts[:, (first + np.arange(given.shape[1])) % parts.shape[1]]
    return np.where(given < 0, chords, given), melody[None], {"position": np.int32(first + frames - 1)}
