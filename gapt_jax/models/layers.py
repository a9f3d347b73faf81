"""Transformer blocks (docs/method.md §2.1) that can read the released weights.

Pre-norm residual blocks: parameter-free RMS norm; attention with L2-normalised, gained queries and keys and a
constant factor 10; rotary positions on half of each head or a T5 relative bias; SwiGLU. Residual stream and
softmax in float32, matmuls in `dtype`.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gapt_jax import prng
from gapt_jax.config import TransformerConfig
from gapt_jax.models import fused

ATTENTION_FACTOR = 10.0
ROTARY_BASE = 10000.0
RELATIVE_BUCKETS, RELATIVE_MAX_DISTANCE = 32, 128
MOST_CAUSAL_BLOCKS, LEAST_CAUSAL_BLOCK = 4, 128  # of queries that attend to the keys up to their last one
_MASKED = -1e30

# Weights and biases uniform in ±1/sqrt(fan in), as PyTorch initialises linear layers.
_kernel_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """x in `dtype`, rounded in every program alike.

    A plain conversion of float32 to bfloat16 and back may be left out by XLA (`xla_allow_excess_precision`), here and
    not there: decoding and the full pass would then compute with different weights.
    """
    if x.dtype == dtype:
        return x
    kept = jnp.finfo(dtype)
    return jax.lax.reduce_precision(x, exponent_bits=kept.nexp, mantissa_bits=kept.nmant).astype(dtype)


def _rounded_factors(factors: Any, /, *, dtype: Any = None, inexact: bool = True) -> Any:
    """Inputs and kernel of a linear layer in the dtype of its products; the bias is added to their float32 sums."""
    inputs, kernel, bias = factors
    return rounded(inputs, dtype), rounded(kernel, dtype), bias


def linear(inputs: int, outputs: int, *, rngs: nnx.Rngs, dtype: Any, bias: bool = False) -> nnx.Linear:
    """Products of factors in `dtype`, summed in float32; so are the outputs."""
    limit = 1 / math.sqrt(inputs)

    def bias_init(key: jax.Array, shape: Any, dtype: Any, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        kernel_init=_kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        promote_dtype=_rounded_factors,
        preferred_element_type=jnp.float32,
        rngs=rngs,
    )


def embedding(size: int, dim: int, *, rngs: nnx.Rngs) -> nnx.Embed:
    return nnx.Embed(size, dim, embedding_init=nnx.initializers.normal(math.sqrt(2 / dim)), rngs=rngs)


def rms_norm(x: jax.Array) -> jax.Array:
    """sqrt(d) x / max(|x|, 1e-12) over the last axis; no learned gain."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)  # finite gradient at 0
    return x * (math.sqrt(x.shape[-1]) / jnp.maximum(norm, 1e-12))


def l2_normalise(x: jax.Array) -> jax.Array:
    """x / max(|x|, 1e-12) over the last axis, with a finite gradient at 0."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


def rotate(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary embedding of the first half of the last axis, interleaved pairs, base 10000.

    x: [..., L, d]; positions: [L] int32.
    """
    width = x.shape[-1] // 2
    frequencies = ROTARY_BASE ** (-jnp.arange(0, width, 2) / width)
    angles = positions[:, None] * frequencies  # [L, width / 2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    even, odd = x[..., 0:width:2], x[..., 1:width:2]
    rotated = jnp.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1)
    return jnp.concatenate([rotated.reshape(*x.shape[:-1], width), x[..., width:]], axis=-1)


def relative_bucket(distance: jax.Array, *, causal: bool) -> jax.Array:
    """T5 bucket of (query position - key position), int32 (docs/method.md §2.1)."""
    buckets = RELATIVE_BUCKETS if causal else RELATIVE_BUCKETS // 2
    offset = jnp.where(distance < 0, buckets, 0) if not causal else 0
    distance = jnp.maximum(distance, 0) if causal else jnp.abs(distance)
    exact = buckets // 2
    scaled = jnp.log(jnp.maximum(distance, 1) / exact) / math.log(RELATIVE_MAX_DISTANCE / exact)
    logarithmic = jnp.minimum(exact + (scaled * (buckets - exact)).astype(jnp.int32), buckets - 1)
    return offset + jnp.where(distance < exact, distance, logarithmic)


Keys = jax.Array | None  # [B] random keys, one per song, so that dropout does not depend on the device; None = off


def dropout(x: jax.Array, rate: float, keys: Keys) -> jax.Array:
    """Drops entries of x [B, ...], each song's by its own key."""
    if keys is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0.0)


def fold(keys: Keys, number: int) -> Keys:
    return None if keys is None else prng.fold_each(keys, number)


class Attention(nnx.Module):
    """Multi-head attention of `x` [B, L, D] over `context` [B, S, D]."""

    def __init__(self, config: TransformerConfig, *, rotary: bool, dtype: Any, rngs: nnx.Rngs):
        self.config, self.rotary = config, rotary
        inner = config.heads * config.head_dim
        self.query = linear(config.dim, inner, rngs=rngs, dtype=dtype)
        self.key = linear(config.dim, inner, rngs=rngs, dtype=dtype)
        self.value = linear(config.dim, inner, rngs=rngs, dtype=dtype)
        self.out = linear(inner, config.dim, rngs=rngs, dtype=dtype)
        self.query_gain = nnx.Param(jnp.ones((config.heads, 1, config.head_dim)))
        self.key_gain = nnx.Param(jnp.ones((config.heads, 1, config.head_dim)))

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.config.heads, self.config.head_dim).swapaxes(1, 2)

    def queries(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, H, L, d]."""
        return self._rounded(l2_normalise(self._heads(self.query(x))) * self.query_gain[...], positions)

    def keys_values(self, x: jax.Array, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, S, D] -> keys [B, H, d, S] and values [B, H, S, d]."""
        k = self._rounded(l2_normalise(self._heads(self.key(x))) * self.key_gain[...], positions)
        return k.swapaxes(-1, -2), rounded(self._heads(self.value(x)), self.value.dtype)

    def _rounded(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        """Rotated where positions are rotary, in the dtype of the products: what a cache holds is what is used."""
        return rounded(rotate(x, positions) if self.rotary else x, self.query.dtype)

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, *, bias: jax.Array, keys: Keys = None) -> jax.Array:
        """softmax(10 q k + bias) v, projected: [B, L, D]; bias broadcasts to [B, H, L, S]."""
        return self.projected(self._mixed(q, k, v, bias, keys))

    def attend_causally(
        self, q: jax.Array, k: jax.Array, v: jax.Array, *, bias: jax.Array, keys: Keys = None
    ) -> jax.Array:
        """The same for queries of which the bias hides all later keys: of long ones, most of these are not computed."""
        length = q.shape[2]
        count = max(1, min(MOST_CAUSAL_BLOCKS, length // LEAST_CAUSAL_BLOCK))
        parts = []
        for number, (start, stop) in enumerate(itertools.pairwise(length * n // count for n in range(count + 1))):
            shown = k[..., :stop], v[:, :, :stop], bias[..., start:stop, :stop]
            parts.append(self._mixed(q[:, :, start:stop], *shown, fold(keys, number)))
        return self.projected(jnp.concatenate(parts, axis=2))

    def _mixed(self, q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array, keys: Keys) -> jax.Array:
        products = jnp.einsum("bhld,bhds->bhls", q, k, preferred_element_type=jnp.float32)
        weights = dropout(jax.nn.softmax(ATTENTION_FACTOR * products + bias, axis=-1), self.config.dropout, keys)
        return jnp.einsum("bhls,bhsd->bhld", rounded(weights, v.dtype), v, preferred_element_type=jnp.float32)

    def projected(self, mixed: jax.Array) -> jax.Array:
        """[B, H, L, d] -> [B, L, D]."""
        return self.out(mixed.swapaxes(1, 2).reshape(mixed.shape[0], mixed.shape[2], -1))


class FeedForward(nnx.Module):
    """SwiGLU: (v, g) = split(W1 x + b1); W2 (v silu(g)) + b2."""

    def __init__(self, config: TransformerConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.config = config
        inner = config.dim * config.ff_mult
        self.inner = linear(config.dim, 2 * inner, bias=True, rngs=rngs, dtype=dtype)
        self.outer = linear(inner, config.dim, bias=True, rngs=rngs, dtype=dtype)

    def __call__(self, x: jax.Array, keys: Keys = None) -> jax.Array:
        value, gate = jnp.split(rounded(self.inner(x), self.inner.dtype).astype(jnp.float32), 2, axis=-1)
        return self.outer(dropout(value * jax.nn.silu(gate), self.config.dropout, keys))


class Block(nnx.Module):
    """Self-attention, optional cross-attention, feed-forward, each with its residual."""

    def __init__(self, config: TransformerConfig, *, rotary: bool, cross: bool, dtype: Any, rngs: nnx.Rngs):
        self.attention = Attention(config, rotary=rotary, dtype=dtype, rngs=rngs)
        self.cross = Attention(config, rotary=False, dtype=dtype, rngs=rngs) if cross else None
        self.feed_forward = FeedForward(config, dtype=dtype, rngs=rngs)


Cache = list[tuple[jax.Array, jax.Array]]  # per layer: keys [B, H, d, S], values [B, H, S, d]


def grown(cache: Cache, count: int) -> Cache:
    """The cache with room for `count` more positions."""
    room = (0, count)
    return [
        (jnp.pad(keys, ((0, 0), (0, 0), (0, 0), room)), jnp.pad(values, ((0, 0), (0, 0), room, (0, 0))))
        for keys, values in cache
    ]


class Stack(nnx.Module):
    """A stack of blocks with a final norm; `causal` hides later positions; `relative` uses T5 bias, else rotary."""

    kernel = fused.XLA  # what computes attention in full passes without dropout: `fused.implementation`

    def __init__(
        self,
        config: TransformerConfig,
        *,
        causal: bool,
        relative: bool = False,
        cross: bool = False,
        dtype: Any = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config, self.causal, self.remat = config, causal, remat
        self.blocks = nnx.List(
            [Block(config, rotary=not relative, cross=cross, dtype=dtype, rngs=rngs) for _ in range(config.depth)]
        )
        self.relative = (
            nnx.Param(jax.random.normal(rngs.params(), (RELATIVE_BUCKETS, config.heads))) if relative else None
        )

    def _position_bias(self, length: int) -> jax.Array:
        """[1, H or 1, L, L]: relative bias and causal mask."""
        positions = jnp.arange(length)
        distance = positions[:, None] - positions[None, :]
        bias = jnp.where(distance < 0, _MASKED, 0.0)[None] if self.causal else jnp.zeros((1, length, length))
        if self.relative is not None:
            table = self.relative[...] * math.sqrt(self.config.head_dim)
            bias = bias + table[relative_bucket(distance, causal=self.causal)].transpose(2, 0, 1)
        return bias[None]

    def __call__(
        self,
        h: jax.Array,
        mask: jax.Array | None = None,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        keys: Keys = None,
        only_first: bool = False,
    ) -> jax.Array:
        """[B, L, D] -> [B, L, D] ([B, 1, D] with `only_first`, which spares the last block the other positions).

        mask: [B, L] bool, True = attend; context: [B, S, D] for cross-attention; keys [B]: dropout, None = none.
        """
        positions = jnp.arange(h.shape[1])
        bias = self._position_bias(h.shape[1])
        if mask is not None:
            bias = bias + jnp.where(mask, 0.0, _MASKED)[:, None, None, :]
        seen = jnp.ones((1, 1), bool) if context_mask is None else context_mask
        context_bias = jnp.where(seen, 0.0, _MASKED)[:, None, None, :]
        is_fused = fused.is_here(self.kernel) and (keys is None or self.config.dropout == 0)

        def through(block: Block, h: jax.Array, context: jax.Array | None, block_keys: Keys, count: int) -> jax.Array:
            """`count` first positions of the block's output; later blocks do not see the others."""
            normed = rms_norm(h)
            k, v = block.attention.keys_values(normed, positions)
            h, normed, places = h[:, :count], normed[:, :count], positions[:count]
            q = block.attention.queries(normed, places)
            if is_fused and self.relative is None and count == len(positions):
                h = h + block.attention.projected(fused.attend(self.kernel, q, k, v, mask, causal=self.causal))
            else:
                attend = block.attention.attend_causally if self.causal else block.attention.attend
                h = h + attend(q, k, v, bias=bias[:, :, :count], keys=fold(block_keys, 0))
            if block.cross is not None and context is not None:
                k, v = block.cross.keys_values(context, positions)
                q = block.cross.queries(rms_norm(h), places)
                if is_fused:
                    mixed = fused.attend(self.kernel, q, k, v, context_mask, causal=False)
                    h = h + block.cross.projected(mixed)
                else:
                    h = h + block.cross.attend(q, k, v, bias=context_bias, keys=fold(block_keys, 1))
            return h + block.feed_forward(rms_norm(h), fold(block_keys, 2))

        for number, block in enumerate(self.blocks):
            count = 1 if only_first and number == len(self.blocks) - 1 else h.shape[1]
            apply = functools.partial(through, block, count=count)
            h = (jax.checkpoint(apply) if self.remat else apply)(h, context, fold(keys, number))
        return rms_norm(h)

    def empty_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Cache:
        heads, width = self.config.heads, self.config.head_dim
        return [
            (jnp.zeros((batch, heads, width, length), dtype), jnp.zeros((batch, heads, length, width), dtype))
            for _ in self.blocks
        ]

    def decode(self, h: jax.Array, cache: Cache, position: jax.Array) -> tuple[jax.Array, Cache]:
        """Causal pass over S new positions [B, S, D] that follow `position` cached ones; returns the grown cache."""
        positions = position + jnp.arange(h.shape[1])
        length = cache[0][0].shape[-1]
        bias = jnp.where(jnp.arange(length) <= positions[:, None], 0.0, _MASKED)
        grown: Cache = []
        for block, (keys, values) in zip(self.blocks, cache, strict=True):
            normed = rms_norm(h)
            k, v = block.attention.keys_values(normed, positions)
            keys = jax.lax.dynamic_update_slice(keys, k, (0, 0, 0, position))
            values = jax.lax.dynamic_update_slice(values, v, (0, 0, position, 0))
            grown.append((keys, values))
            h = h + block.attention.attend(block.attention.queries(normed, positions), keys, values, bias=bias)
            h = h + block.feed_forward(rms_norm(h))
        return rms_norm(h), grown
