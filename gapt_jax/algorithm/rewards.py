"""Reward terms of one rollout, each named and kept apart (method.md §3)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gapt_jax import masked
from gapt_jax.algorithm import rules
from gapt_jax.models import REWARD_KINDS, Model, Models
from gapt_jax.models.networks import pair, part
from gapt_jax.types import Params, Trajectory
from gapt_jax.vocabulary import TokenTables


def weighted(weight: jax.Array, term: jax.Array) -> jax.Array:
    """weight [] times term [B, T]. A weight of 0 gives 0 whatever the term holds, NaN included."""
    return jnp.where(weight == 0, 0.0, weight * term)


def weighted_sum(weights: Mapping[str, jax.Array], terms: Mapping[str, jax.Array]) -> jax.Array:
    """The terms [B, T], each times its weight, summed in their order; 0 where there is none."""
    return sum((weighted(weights[name], term) for name, term in terms.items()), jnp.float32(0))


def at_last(values: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] -> [B, T]: each value on the last frame of its song, 0 elsewhere; nothing for an empty song."""
    is_last = (jnp.cumsum(mask, axis=1) == jnp.sum(mask, axis=1, keepdims=True)) & (mask > 0)
    return jnp.where(is_last, values[:, None], 0.0)


def combine(scores: jax.Array, ensemble: str, std_weight: jax.Array | float | None = 1.0) -> jax.Array:
    """[members, B] -> [B]: sum (released code), mean (paper's text), min (worst case), or mean - k deviations, with
    k = `std_weight` (uncertainty-weighted; both of Coste et al. 2024)."""
    match ensemble:
        case "sum":
            return jnp.sum(scores, axis=0)
        case "mean":
            return jnp.mean(scores, axis=0)
        case "min":
            return jnp.min(scores, axis=0)
        case "mean_minus_std":
            assert std_weight is not None
            return jnp.mean(scores, axis=0) - std_weight * jnp.std(scores, axis=0)
    raise ValueError(ensemble)


def score(model: Model, kind: str, params: Params, melody: jax.Array, chords: jax.Array) -> jax.Array:
    """One member's score of each pair, [B]: cosine in [-1, 1] (contrastive) or P(genuine pair) in [0, 1]."""
    if kind.endswith("contrastive"):
        melody_embedding, chord_embedding, _ = model(params, part(melody), part(chords))
        return jnp.sum(melody_embedding * chord_embedding, axis=-1)
    return jax.nn.sigmoid(model(params, pair(melody, chords)))


def coherence_scores(
    models: Models, members: Mapping[str, Params], melody: jax.Array, chords: jax.Array, tables: TokenTables
) -> dict[str, jax.Array]:
    """Scores of every fitted kind, [members, B] each; `members` holds stacked parameters by kind."""
    rhythm = jnp.asarray(tables.rhythm)
    scores = {}
    for kind in (k for k in REWARD_KINDS if k in members):
        parts = (rhythm[melody], rhythm[chords]) if kind.startswith("rhythm") else (melody, chords)
        scores[kind] = jax.vmap(score, (None, None, 0, None, None))(models.reward(kind), kind, members[kind], *parts)
    return scores


def spread(values: jax.Array, is_song: jax.Array) -> jax.Array:
    """Standard deviation over the songs of a rollout, [B] -> []."""
    return jnp.sqrt(masked.mean(jnp.square(values - masked.mean(values, is_song)), is_song))


def rule_terms(trajectory: Trajectory, tables: TokenTables) -> dict[str, jax.Array]:
    """Rule penalties [B, T]: silence per frame, the others on the last frame."""
    chords, mask = trajectory.actions, trajectory.mask
    terminal = {
        "early_stop": rules.early_stop(chords, mask),
        "invalid": rules.invalid_output(chords, mask, tables),
        "long_note": rules.long_note(chords, mask),
        "repetition": rules.repetition(chords, mask, tables),
    }
    return {name: at_last(value, mask) for name, value in terminal.items()} | {
        "silence": rules.silence(chords, trajectory.context, mask)
    }
