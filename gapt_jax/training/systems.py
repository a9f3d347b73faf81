"""Plays held-out songs with a policy and measures what comes out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import prng
from gapt_jax.algorithm.rollout import rollout
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import EvaluationConfig
from gapt_jax.evaluation.metrics import summarize
from gapt_jax.models.networks import part
from gapt_jax.types import Params


@functools.partial(jax.jit, static_argnames=("spec", "validity_mask"))
def _play(spec: Spec, params: Params, songs, key, *, validity_mask: bool) -> jax.Array:
    tables, policy = spec.vocabulary.tables, spec.models.policy

    def accompany(params, rows):
        melody, index = rows
        return rollout(policy, params, melody, index, key, tables, validity_mask=validity_mask).chords

    return spec.layout.everywhere(spec.layout.each(accompany, params, songs))


@functools.partial(jax.jit, static_argnames="spec")
def _embed(spec: Spec, params: Params, songs) -> tuple[jax.Array, jax.Array]:
    """[B, D] embeddings of the chords, and [B] their similarity to the melody."""

    def embedded(params, rows):
        melody, chords, _ = spec.models.contrastive(params, *map(part, rows))
        return chords, jnp.sum(melody * chords, axis=-1)

    return spec.layout.everywhere(spec.layout.each(embedded, params, songs))


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Fixed songs, fixed random numbers, fixed encoders: the same policy always gets the same numbers."""

    spec: Spec
    encoders: dict[str, Params]  # chord encoders of the Vendi score, by name
    config: EvaluationConfig
    before_batch: Callable[[], None] = lambda: None  # may raise to end the evaluation

    def play(
        self, policy: Params, melody: np.ndarray, index: np.ndarray, *, sampling: str, seed: int = 0
    ) -> np.ndarray:
        """[N, T] chords of `policy` over `melody`, T = 1, over all tokens or (sampling = masked) the valid ones."""
        key = prng.stream(jax.random.key(self.config.seed), seed, "evaluation")
        play = functools.partial(_play, validity_mask=sampling == "masked")
        return self._in_batches(lambda songs: play(self.spec, policy, songs, key), melody, index)

    def measure(self, melody: np.ndarray, chords: np.ndarray, data_chords: np.ndarray) -> dict[str, float]:
        """All metrics of method.md §6 (first part), and what a reward model that no policy saw thinks of the pairs."""
        embeddings, similarity = {}, {}
        for name, params in self.encoders.items():
            embed = functools.partial(_embed, self.spec, params)
            embeddings[name], similarity[name] = self._in_batches(embed, melody, chords)
        measured = summarize(melody, chords, data_chords, self.spec.vocabulary, embeddings)
        if "independent" in similarity:
            measured["held_out_coherence"] = float(similarity["independent"].mean())
        return measured

    def _in_batches(self, fn: Any, *arrays: np.ndarray) -> Any:
        """Applies `fn` to some rows at a time (the last batch is filled up with row 0, so that shapes stay fixed)."""
        rows, size, out = len(arrays[0]), self.config.batch_size, []
        for start in range(0, rows, size):
            self.before_batch()
            chosen = np.arange(start, start + size)
            songs = tuple(x[np.where(chosen < rows, chosen, 0)] for x in arrays)
            out.append(fn(self.spec.layout.place(songs, size)))
        return jax.tree.map(lambda *parts: np.concatenate([np.asarray(p)[:size] for p in parts])[:rows], *out)
