"""How well chords and melody fit: scores of the fitted reward models (docs/method.md §5.2)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gapt_jax.models import REWARD_KINDS, Model, Models
from gapt_jax.models.networks import pair, part
from gapt_jax.types import Params
from gapt_jax.vocabulary import TokenTables


def score(model: Model, kind: str, params: Params, melody: jax.Array, chords: jax.Array) -> jax.Array:
    """One member's score of each pair, [B]: cosine in [-1, 1] (contrastive) or P(genuine pair) in [0, 1]."""
    if kind.endswith("contrastive"):
        melody_embedding, chord_embedding, _ = model(params, part(melody), part(chords))
        return jnp.sum(melody_embedding * chord_embedding, axis=-1)
    return jax.nn.sigmoid(model(params, pair(melody, chords)))


def scores(
    models: Models, members: Mapping[str, Params], melody: jax.Array, chords: jax.Array, tables: TokenTables
) -> dict[str, jax.Array]:
    """Scores of every fitted kind, [members, B] each; `members` holds stacked parameters by kind."""
    rhythm = jnp.asarray(tables.rhythm)
    found = {}
    for kind in (k for k in REWARD_KINDS if k in members):
        parts = (rhythm[melody], rhythm[chords]) if kind.startswith("rhythm") else (melody, chords)
        found[kind] = jax.vmap(score, (None, None, 0, None, None))(models.reward(kind), kind, members[kind], *parts)
    return found
