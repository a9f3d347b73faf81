"""Plays held-out songs with a policy and measures what comes out."""

from __future__ import annotations

import dataclasses
import functools

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
def _play(spec: Spec, params: Params, melody, index, key, *, validity_mask: bool) -> jax.Array:
    tables = spec.vocabulary.tables
    return rollout(spec.models.policy, params, melody, index, key, tables, validity_mask=validity_mask).chords


@functools.partial(jax.jit, static_argnames="spec")
def _embed(spec: Spec, params: Params, chords: jax.Array) -> jax.Array:
    return spec.models.contrastive.method(params, "embed_chords", part(chords))


def _in_batches(fn, size: int, *arrays: np.ndarray) -> np.ndarray:
    """Applies `fn` to `size` rows at a time (the last batch is filled up with row 0, so that shapes stay fixed)."""
    rows, out = len(arrays[0]), []
    for start in range(0, rows, size):
        chosen = np.arange(start, start + size)
        out.append(fn(*(jnp.asarray(x[np.where(chosen < rows, chosen, 0)]) for x in arrays)))
    return np.concatenate(jax.device_get(out))[:rows]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Fixed songs, fixed random numbers, fixed encoders: the same policy always gets the same numbers."""

    spec: Spec
    encoders: dict[str, Params]  # chord encoders of the Vendi score, by name
    config: EvaluationConfig

    def play(
        self, policy: Params, melody: np.ndarray, index: np.ndarray, *, sampling: str, seed: int = 0
    ) -> np.ndarray:
        """[N, T] chords of `policy` over `melody`, T = 1, over all tokens or (sampling = masked) the valid ones."""
        key = prng.stream(jax.random.key(self.config.seed), seed, "evaluation")
        play = functools.partial(_play, validity_mask=sampling == "masked")
        return _in_batches(lambda m, i: play(self.spec, policy, m, i, key), self.config.batch_size, melody, index)

    def measure(self, melody: np.ndarray, chords: np.ndarray, data_chords: np.ndarray) -> dict[str, float]:
        """All metrics of method.md §6 (first part)."""
        embeddings = {
            name: _in_batches(lambda c, p=params: _embed(self.spec, p, c), self.config.batch_size, chords)
            for name, params in self.encoders.items()
        }
        return summarize(melody, chords, data_chords, self.spec.vocabulary, embeddings)
