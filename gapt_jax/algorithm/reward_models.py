"""The two kinds of learned reward (docs/method.md §2.2, §3.5, §5.2): do these two parts belong together?

Both implement `gapt_jax.task.RewardModel`; a task has as many of them as it likes, each with its own view of a pair.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax import masked, prng
from gapt_jax.algorithm.supervised import Loss, Ratios
from gapt_jax.config import TransformerConfig
from gapt_jax.models import Model, Models
from gapt_jax.models.layers import Keys
from gapt_jax.models.networks import Classifier, Contrastive, pair, part
from gapt_jax.task import PAD, Encoder, RewardModel
from gapt_jax.types import Batch, Params

Pair = tuple[jax.Array, jax.Array]  # two parts, [B, T] int32 each
View = Callable[[jax.Array, jax.Array], Pair]  # context and actions -> the parts as a reward model reads them


def as_they_are(context: jax.Array, actions: jax.Array) -> Pair:
    return context, actions


@dataclasses.dataclass(frozen=True, eq=False)
class ContrastiveReward:
    """Embeds both parts; its score is their cosine, in [-1, 1]."""

    size: int  # different tokens
    parts: tuple[str, str] = ("context", "action")  # the names of its towers
    view: View = as_they_are
    acts: int = 1  # which of the two parts the agent plays
    augmented: bool = True

    def network(self, config: TransformerConfig, **settings: Any) -> Contrastive:
        return Contrastive(config, self.size, self.parts, **settings)

    def guessing(self, examples: int) -> float:
        """The loss of one who guesses: one of the examples."""
        return math.log(examples)

    def loss(self, model: Model) -> Loss:
        """Symmetric InfoNCE over the batch; accuracy is retrieval at rank 1, from the first part to the second."""

        def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
            first, second = self.view(batch.context, batch.actions)
            first_embedding, second_embedding, scale = model(params, part(first), part(second), dropout_keys)
            similarity = scale * first_embedding @ second_embedding.T
            rows, columns = jax.nn.log_softmax(similarity, axis=1), jax.nn.log_softmax(similarity, axis=0)
            hits = (jnp.argmax(similarity, axis=1) == jnp.arange(len(similarity))).astype(jnp.float32)
            every = jnp.ones_like(hits)
            losses = -0.5 * (jnp.diagonal(rows) + jnp.diagonal(columns))
            return masked.ratio(losses, every), {"accuracy": masked.ratio(hits, every)}

        return loss

    def score(self, model: Model, params: Params, context: jax.Array, actions: jax.Array) -> jax.Array:
        return self.embed(model, params, context, actions)[1]

    def embed(self, model: Model, params: Params, context: jax.Array, actions: jax.Array) -> Pair:
        """([B, D] embedding of the actions, [B] its similarity to that of the context)."""
        first, second = self.embed_both(model, params, context, actions)
        return (first, second)[self.acts], jnp.sum(first * second, axis=-1)

    def embed_both(self, model: Model, params: Params, context: jax.Array, actions: jax.Array) -> Pair:
        """[B, D] unit vectors of each of the `parts`."""
        first, second, _ = model(params, *map(part, self.view(context, actions)))
        return first, second


@dataclasses.dataclass(frozen=True, eq=False)
class DiscriminativeReward:
    """Reads both parts at once; its score is P(genuine pair), in [0, 1]."""

    size: int  # different tokens
    view: View = as_they_are
    # (key, first, second) -> a pair that is false in another way than by its partner: half of the negatives.
    misalign: Callable[[jax.Array, jax.Array, jax.Array], Pair] | None = None
    augmented: bool = True

    def network(self, config: TransformerConfig, **settings: Any) -> Classifier:
        return Classifier(config, self.size, **settings)

    def guessing(self, examples: int) -> float:
        """The loss of one who guesses: yes or no."""
        return math.log(2)

    def loss(self, model: Model) -> Loss:
        """Genuine pairs against re-paired ones, and half of the time against those of `misalign`."""

        def loss(params: Params, batch: Batch, key: jax.Array, dropout_keys: Keys) -> Ratios:
            tokens = jnp.concatenate(self.examples(key, batch.context, batch.actions))
            keys = None if dropout_keys is None else jnp.concatenate([prng.fold_each(dropout_keys, n) for n in (0, 1)])
            positive, negative = jnp.split(model(params, tokens, keys), 2)
            every = jnp.ones_like(positive)
            losses = 0.5 * (jax.nn.softplus(-positive) + jax.nn.softplus(negative))
            hits = 0.5 * ((positive > 0).astype(jnp.float32) + (negative <= 0))
            return masked.ratio(losses, every), {"accuracy": masked.ratio(hits, every)}

        return loss

    def examples(self, key: jax.Array, context: jax.Array, actions: jax.Array) -> Pair:
        """Tokens [B, L] of the genuine pairs of a batch, and of as many false ones."""
        first, second = self.view(context, actions)
        partner_key, choice_key, misalign_key = jax.random.split(key, 3)
        false_first, false_second = first[derangement(partner_key, len(first))], second
        if self.misalign:
            moved_first, moved_second = self.misalign(misalign_key, first, second)
            is_moved = jax.random.bernoulli(choice_key, 0.5, (len(first), 1))
            false_first = jnp.where(is_moved, moved_first, false_first)
            false_second = jnp.where(is_moved, moved_second, false_second)
        # Genuine and false pairs of a row end on the same frame, so that length gives nothing away.
        ended = (false_first == PAD) | (false_second == PAD)
        cut = [jnp.where(ended, PAD, x) for x in (first, second, false_first, false_second)]
        return pair(cut[0], cut[1]), pair(cut[2], cut[3])

    def score(self, model: Model, params: Params, context: jax.Array, actions: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(model(params, pair(*self.view(context, actions))))


def derangement(key: jax.Array, size: int) -> jax.Array:
    """[size] a random single cycle: no row is its own partner (size 1 has none)."""
    order = jax.random.permutation(key, size)
    return jnp.zeros(size, jnp.int32).at[order].set(jnp.roll(order, 1))


def scores(
    rewards: Mapping[str, RewardModel],
    models: Models,
    seeds: Mapping[str, Params],
    context: jax.Array,
    actions: jax.Array,
) -> dict[str, jax.Array]:
    """[seeds, B] float32 by name: the scores of every reward model that has parameters in `seeds`; these have a leading
    axis [seeds]."""

    def score(name: str, params: Params) -> jax.Array:
        return rewards[name].score(models.rewards[name], params, context, actions)

    return {name: jax.vmap(functools.partial(score, name))(seeds[name]) for name in rewards if name in seeds}


def embed(
    rewards: Mapping[str, RewardModel],
    models: Models,
    name: str,
    params: Params,
    context: jax.Array,
    actions: jax.Array,
) -> Pair:
    """`Encoder.embed` of the reward model `name`."""
    encoder = rewards[name]
    assert isinstance(encoder, Encoder), f"the reward model '{name}' embeds nothing"
    return encoder.embed(models.rewards[name], params, context, actions)
