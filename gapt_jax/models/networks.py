"""The networks of docs/method.md §2.2, on token sequences. Outputs are float32 in every compute dtype."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gapt_jax.config import TransformerConfig
from gapt_jax.models.layers import Cache, Keys, Stack, embedding, fold, grown, l2_normalise, linear
from gapt_jax.task import BOS, EOS, PAD


class Decoder(nnx.Module):
    """Online policy (outputs = V) or critic (outputs = 1) over the stream of `interleave`: BOS a1 c1 a2 c2 ... ."""

    def __init__(
        self, config: TransformerConfig, size: int, outputs: int, *, dtype: Any, remat: bool = False, rngs: nnx.Rngs
    ):
        self.embed = embedding(size, config.dim, rngs=rngs)
        self.stack = Stack(config, causal=True, dtype=dtype, remat=remat, rngs=rngs)
        self.head = linear(config.dim, outputs, rngs=rngs, dtype=dtype)

    def __call__(self, tokens: jax.Array, keys: Keys = None) -> jax.Array:
        """[B, L] tokens -> [B, L, outputs] float32."""
        return self.head(self.stack(self.embed(tokens), keys=keys))

    def states(self, tokens: jax.Array) -> jax.Array:
        """[B, 2T] tokens -> [B, T, D] float32: what the network holds where it acts (0, 2, 4, ...)."""
        return self.stack(self.embed(tokens))[:, ::2]

    def at_states(self, tokens: jax.Array) -> jax.Array:
        """[B, 2T] tokens -> [B, T, outputs] float32: the head at all `states`."""
        return self.head(self.states(tokens))

    def empty_cache(self, batch: int, length: int) -> Cache:
        return self.stack.empty_cache(batch, length, self.head.dtype or jnp.float32)

    def grown(self, cache: Cache, count: int) -> Cache:
        """The cache with room for `count` more tokens."""
        return grown(cache, count)

    def prefill(self, tokens: jax.Array, cache: Cache, last: jax.Array) -> tuple[jax.Array, Cache]:
        """Tokens [B, L] into an empty cache -> (outputs at token `last` [B, outputs], cache); what follows `last` is
        there too, to be overwritten."""
        hidden, cache = self.stack.decode(self.embed(tokens), cache, jnp.zeros((), jnp.int32))
        at_last = jax.lax.dynamic_slice_in_dim(hidden, last, 1, axis=1)[:, 0]
        return self.head(at_last), cache

    def decode(self, tokens: jax.Array, cache: Cache, position: jax.Array) -> tuple[jax.Array, Cache]:
        """S new tokens [B, S] after `position` cached ones -> (outputs at the last of them [B, outputs], cache)."""
        hidden, cache = self.stack.decode(self.embed(tokens), cache, position)
        return self.head(hidden[:, -1]), cache

    def decode_each(self, tokens: jax.Array, cache: Cache, position: jax.Array) -> tuple[jax.Array, Cache]:
        """The same with the outputs at every new token: [B, S, outputs]."""
        hidden, cache = self.stack.decode(self.embed(tokens), cache, position)
        return self.head(hidden), cache


class EncoderDecoder(nnx.Module):
    """Anchor: the decoder plays one part while the encoder has read the whole other part."""

    def __init__(self, config: TransformerConfig, size: int, *, dtype: Any, remat: bool = False, rngs: nnx.Rngs):
        self.source_embed = embedding(size, config.dim, rngs=rngs)
        self.target_embed = embedding(size, config.dim, rngs=rngs)
        self.encoder = Stack(config, causal=False, relative=True, dtype=dtype, remat=remat, rngs=rngs)
        self.decoder = Stack(config, causal=True, relative=True, cross=True, dtype=dtype, remat=remat, rngs=rngs)
        self.head = linear(config.dim, size, rngs=rngs, dtype=dtype)

    def __call__(self, source: jax.Array, target: jax.Array, keys: Keys = None) -> jax.Array:
        """source [B, S] and target [B, L] tokens -> [B, L, V] float32; entry j predicts target token j + 1."""
        return self.head(self.states(source, target, keys))

    def states(self, source: jax.Array, target: jax.Array, keys: Keys = None) -> jax.Array:
        """The same up to the head: [B, L, D] float32."""
        mask = source != PAD
        context = self.encoder(self.source_embed(source), mask, keys=fold(keys, 0))
        return self.decoder(self.target_embed(target), context=context, context_mask=mask, keys=fold(keys, 1))


class Tower(nnx.Module):
    """Encoder with a projection to the unit sphere, read at BOS."""

    def __init__(self, config: TransformerConfig, size: int, *, dtype: Any, remat: bool = False, rngs: nnx.Rngs):
        self.embed = embedding(size, config.dim, rngs=rngs)
        self.stack = Stack(config, causal=False, dtype=dtype, remat=remat, rngs=rngs)
        self.inner = linear(config.dim, config.dim, bias=True, rngs=rngs, dtype=jnp.float32)
        self.outer = linear(config.dim, config.dim, bias=True, rngs=rngs, dtype=jnp.float32)

    def __call__(self, part: jax.Array, keys: Keys = None) -> jax.Array:
        """[B, L] one part, BOS first -> [B, D] unit vectors."""
        pooled = self.stack(self.embed(part), part != PAD, keys=keys, only_first=True)[:, 0]
        return l2_normalise(self.outer(jax.nn.relu(self.inner(pooled))))


class Contrastive(nnx.Module):
    """Embeds two parts, each in a tower of its own; the cosine scores how well they fit (docs/method.md §2.2)."""

    def __init__(
        self,
        config: TransformerConfig,
        size: int,
        parts: tuple[str, str],
        *,
        dtype: Any,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """parts: their names, such as ("context", "action"), of which the towers have theirs."""
        self.towers = tuple(f"{name}_tower" for name in parts)
        for name in self.towers:
            setattr(self, name, Tower(config, size, dtype=dtype, remat=remat, rngs=rngs))
        self.log_scale = nnx.Param(jnp.log(1 / 0.07))

    def __call__(
        self, first: jax.Array, second: jax.Array, keys: Keys = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Parts [B, L] -> (first [B, D], second [B, D]) unit vectors and the similarity scale []."""
        scale = jnp.exp(self.log_scale[...])
        one, other = (getattr(self, name) for name in self.towers)
        return one(first, fold(keys, 0)), other(second, fold(keys, 1)), scale


class Classifier(nnx.Module):
    """Two-class encoder read at BOS: discriminative reward (pairs) and the adversary (actions, or pairs)."""

    def __init__(self, config: TransformerConfig, size: int, *, dtype: Any, remat: bool = False, rngs: nnx.Rngs):
        self.embed = embedding(size, config.dim, rngs=rngs)
        self.stack = Stack(config, causal=False, dtype=dtype, remat=remat, rngs=rngs)
        self.head = linear(config.dim, 2, bias=True, rngs=rngs, dtype=jnp.float32)

    def __call__(self, tokens: jax.Array, keys: Keys = None) -> jax.Array:
        """[B, L] tokens, PAD ignored -> [B] float32 logit of class 1 (data, genuine pair) against class 0."""
        return self.logit(self.stack(self.embed(tokens), tokens != PAD, keys=keys, only_first=True)[:, 0])

    def logit(self, pooled: jax.Array) -> jax.Array:
        """[B, D] what the stack makes of a sequence -> [B] float32, the same from there on."""
        logits = self.head(pooled)
        return logits[:, 1] - logits[:, 0]


def interleave(actions: jax.Array, context: jax.Array) -> jax.Array:
    """[B, T] and [B, T] -> [B, 2T + 1]: BOS a1 c1 a2 c2 ... (the part that acts comes first in each frame)."""
    pairs = jnp.stack([actions, context], axis=-1).reshape(actions.shape[0], -1)
    return jnp.pad(pairs, ((0, 0), (1, 0)), constant_values=BOS)


def with_end(tokens: jax.Array) -> jax.Array:
    """[B, L] -> [B, L + 1]: EOS in place of the first PAD after the tokens."""
    padded = jnp.pad(tokens, ((0, 0), (0, 1)), constant_values=PAD)
    is_end = (padded == PAD) & (jnp.cumsum(padded == PAD, axis=1) == 1)
    return jnp.where(is_end, EOS, padded)


def part(tokens: jax.Array) -> jax.Array:
    """[B, T] -> [B, T + 2]: BOS, the tokens, EOS in place of the first PAD after them."""
    return jnp.pad(with_end(tokens), ((0, 0), (1, 0)), constant_values=BOS)


def pair(first: jax.Array, second: jax.Array) -> jax.Array:
    """[B, T] and [B, T] -> [B, 2T + 5]: the first part, BOS as separator, the second part (docs/method.md §1.6)."""
    separator = jnp.full((first.shape[0], 1), BOS, first.dtype)
    return jnp.concatenate([part(first), separator, part(second)], axis=1)
