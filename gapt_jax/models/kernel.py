"""Decoding by a compiled kernel, runtime/decode.cc: what rollouts on a CPU use where `models.build` is told of it.

It computes what `Decoder.decode` does, in another order of additions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gapt_jax.config import TransformerConfig
from gapt_jax.models.layers import ROTARY_BASE, Block
from gapt_jax.models.networks import Decoder

TARGET = "gapt_decode"  # its name, in the library and in compiled programs
LANES = 16  # outputs of one panel of weights, positions of one block of keys
HEAD_WIDTHS = (16, 32, 64, 128)

Cache = tuple[jax.Array, jax.Array]  # keys and values of all layers, laid out as decode.cc says


def register(function: object) -> None:
    """Makes the compiled kernel known to XLA."""
    jax.ffi.register_ffi_target(TARGET, function, platform="cpu")


def suits(config: TransformerConfig, dtype: Any) -> bool:
    """Whether the kernel supports these sizes and this dtype."""
    return config.dim % LANES == 0 and config.head_dim in HEAD_WIDTHS and jnp.dtype(dtype) == jnp.float32


class Kernel:
    """A policy with its weights packed for the kernel: what `Decoder` offers to a rollout, with a cache of its own."""

    def __init__(self, decoder: Decoder):
        blocks: list[Block] = list(decoder.stack.blocks)

        def stacked(of_block: Callable[[Block], jax.Array]) -> jax.Array:
            return jnp.stack([of_block(block) for block in blocks])

        self._config = decoder.stack.config
        self._embed = decoder.embed
        self._size = decoder.head.out_features
        self._weights = (
            stacked(lambda block: _panels(_queries_keys_values(block))),
            stacked(lambda block: _panels(block.attention.out.kernel[...])),
            stacked(lambda block: _panels(_paired(block.feed_forward.inner.kernel[...]))),
            stacked(lambda block: _paired(_bias(block.feed_forward.inner))),
            stacked(lambda block: _panels(block.feed_forward.outer.kernel[...])),
            stacked(lambda block: _bias(block.feed_forward.outer)),
            stacked(lambda block: block.attention.query_gain[...]),
            stacked(lambda block: block.attention.key_gain[...]),
            _panels(decoder.head.kernel[...]),
        )

    def empty_cache(self, batch: int, length: int) -> Cache:
        """Room for `length` tokens of each song."""
        config, blocks = self._config, -(-length // LANES)
        shape = config.depth, batch, config.heads, blocks * LANES, config.head_dim
        return jnp.zeros((*shape[:3], blocks, config.head_dim, LANES)), jnp.zeros(shape)

    def grown(self, cache: Cache, count: int) -> Cache:
        """The cache with room for `count` more tokens."""
        keys, values = cache
        blocks = -(-count // LANES)
        room = jnp.zeros((*keys.shape[:3], blocks, *keys.shape[4:]))
        more = jnp.zeros((*values.shape[:3], blocks * LANES, values.shape[4]))
        return jnp.concatenate([keys, room], axis=3), jnp.concatenate([values, more], axis=3)

    def decode(self, tokens: jax.Array, cache: Cache, position: jax.Array) -> tuple[jax.Array, Cache]:
        """S new tokens [B, S] after `position` cached ones -> (outputs at the last of them [B, V], cache)."""
        half = self._config.head_dim // 2
        places = position + jnp.arange(tokens.shape[1])
        angles = places[:, None] * ROTARY_BASE ** (-jnp.arange(0, half, 2) / half)
        result = jax.ShapeDtypeStruct((len(tokens), self._size), jnp.float32)
        first = 4 + len(self._weights)  # of the cache among the arguments, whose memory the results take over
        call = jax.ffi.ffi_call(
            TARGET,
            (result, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cache)),
            input_output_aliases={first: 1, first + 1: 2},
        )
        inputs = self._embed(tokens), jnp.int32(position), jnp.cos(angles), jnp.sin(angles)
        around = jax.sharding.get_abstract_mesh()  # of a `shard_map`, whose devices are all at work at once
        devices = 1 if around.empty else around.size // jax.process_count()
        logits, keys, values = call(*inputs, *self._weights, *cache, devices=np.int64(devices))
        return logits, (keys, values)


def work(shapes: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """Counts (FLOPs of matrix products, bytes read and written) of one call, from its arguments' shapes.

    Of the cache half is counted: what the passes of a rollout that fills it read on average.
    """
    (songs, steps, _), *weights, keys, values = shapes[0], *shapes[4:]
    qkv, out, inner, _, outer, *_, head = map(math.prod, weights)
    layers, _, heads, room, width = values
    per_song = steps * (qkv + out + inner + outer) + head + steps * layers * heads * room * width  # both products
    written = 2 * songs * steps * layers * heads * width + songs * head // shapes[0][2]
    read = sum(map(math.prod, (shapes[0], *weights))) + (math.prod(keys) + math.prod(values)) // 2
    return 2.0 * songs * per_song, 4.0 * (read + written)


def _bias(layer: nnx.Linear) -> jax.Array:
    assert layer.bias is not None
    return layer.bias[...]


def _queries_keys_values(block: Block) -> jax.Array:
    attention = block.attention
    return jnp.concatenate([part.kernel[...] for part in (attention.query, attention.key, attention.value)], axis=1)


def _panels(kernel: jax.Array) -> jax.Array:
    """[in, out] -> [out / LANES, in, LANES], filled up with outputs of 0."""
    inputs, outputs = kernel.shape
    whole = jnp.pad(kernel, ((0, 0), (0, -outputs % LANES)))
    return whole.reshape(inputs, -1, LANES).swapaxes(0, 1)


def _paired(inner: jax.Array) -> jax.Array:
    """[..., 2 F] values and then gates -> [..., 2 F]: LANES values, their LANES gates, the next values, ..."""
    halves = inner.reshape(*inner.shape[:-1], 2, -1, LANES)
    return halves.swapaxes(-2, -3).reshape(inner.shape)
