"""A bundle that plays: sessions with a state each, and whole melodies at once. Knows no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax.export.functions import allowed, drawn
from gapt_jax.export.proof import open_bundle
from gapt_jax.export.verify import past
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, SILENCE, read_vocabulary


class Sampling(NamedTuple):
    """How chords are drawn; `temperature` 0 takes the likeliest."""

    seed: int = 0
    temperature: float = 1.0
    is_masked: bool = True


class Session:
    """One accompaniment under way: `chord` of the next frame is drawn, its note not heard yet."""

    def __init__(self, sampling: Sampling, logits: Any, state: dict[str, Any], uniforms: np.ndarray) -> None:
        self.sampling, self.logits, self.state, self.uniforms = sampling, logits, state, uniforms
        self.frame = 0
        self.chord = SILENCE


class Player:
    """The functions of one bundle on this device. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        self.bundle = open_bundle(folder)
        manifest = self.bundle.manifest
        self.name, self.frames = folder.resolve().name, int(manifest["max_frames"])
        self.vocabulary = read_vocabulary(folder / "vocabulary.json")
        self._weights = jax.device_put(self.bundle.weights)
        self.bundle.weights = self._weights
        tables = self.vocabulary.tables

        def draw(logits: Any, previous: Any, uniform: Any, temperature: Any, is_masked: Any) -> jax.Array:
            return drawn(logits, allowed(previous, is_masked, tables), uniform, temperature)

        self._draw = jax.jit(draw)
        self._empty = self.bundle.start(1)

    def warm_up(self) -> None:
        """Compiles what a session needs."""
        session = self.begin(Sampling())
        self.advance(session, SILENCE)

    def begin(self, sampling: Sampling) -> Session:
        """A session at frame 0, with its first chord."""
        logits, state = self._empty
        own = {name: jnp.array(array) for name, array in state.items()}  # the functions use up what they get
        session = Session(sampling, logits, own, _uniforms(sampling.seed, 0, self.frames))
        self._next_chord(session)
        return session

    def advance(self, session: Session, note: int) -> None:
        """Hears the note of the frame under way, and draws the chord of the next one."""
        commit = self.bundle.function("commit_frame")
        chord, heard = np.array([session.chord], np.int32), np.array([note], np.int32)
        session.logits, state = commit(self._weights, chord, heard, session.state)
        session.state = past(state)
        session.frame += 1
        if session.frame < self.frames:
            self._next_chord(session)

    def _next_chord(self, session: Session) -> None:
        sampling, uniform = session.sampling, session.uniforms[session.frame : session.frame + 1]
        chords = self._choose(session.logits, np.array([session.chord], np.int32), uniform, sampling)
        session.chord = int(chords[0])

    def accompany(self, melody: np.ndarray, sampling: Sampling) -> np.ndarray:
        """Chords [B, T] int32 for melodies [B, T]; song b alone would get what it gets in the batch."""
        count, frames = melody.shape
        batch = 1 << (count - 1).bit_length()  # few shapes to compile for
        heard = np.pad(melody, ((0, batch - count), (0, 0)), constant_values=SILENCE)
        uniforms = np.stack([_uniforms(sampling.seed, row, self.frames) for row in range(batch)])
        commit, (logits, state) = self.bundle.function("commit_frame"), self.bundle.start(batch)
        previous, chords = np.full(batch, SILENCE, np.int32), np.empty((batch, frames), np.int32)
        for frame in range(frames):
            previous = chords[:, frame] = self._choose(logits, previous, uniforms[:, frame], sampling)
            logits, state = commit(self._weights, previous, heard[:, frame], state)
            state = past(state)
        return chords[:count]

    def _choose(self, logits: Any, previous: np.ndarray, uniform: np.ndarray, sampling: Sampling) -> np.ndarray:
        temperature, is_masked = np.float32(sampling.temperature), np.bool_(sampling.is_masked)
        return np.asarray(self._draw(logits, previous, uniform, temperature, is_masked))

    def symbols(self, chords: np.ndarray) -> list[str]:
        """Names of chord tokens, "" where silent; those of a HOLD in parentheses."""
        names, first_onset = self.vocabulary.names, self.vocabulary.chord_onset

        def name(token: int) -> str:
            if token < CHORD_HOLD:
                return ""
            return names[token - first_onset] if token >= first_onset else f"({names[token - CHORD_HOLD]})"

        return [name(int(token)) for token in chords.reshape(-1)]


def is_note(tokens: np.ndarray) -> np.ndarray:
    """Which tokens a melody may hold: SILENCE, and holds and onsets of notes."""
    return (tokens == SILENCE) | ((tokens >= NOTE_HOLD) & (tokens < CHORD_HOLD))


def _uniforms(seed: int, row: int, frames: int) -> np.ndarray:
    return np.random.default_rng((seed, row)).random(frames, np.float32)
