"""Vectorised rollouts: in each frame the policy plays one token before it hears its context (docs/method.md §1)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from gapt_jax import prng
from gapt_jax.models import Model
from gapt_jax.task import BOS, PAD, Task
from gapt_jax.types import Params, Trajectory

MASKED_LOGIT = -1e30
BLOCK = 64  # tokens that `sample` sums at a time
MOST_CHUNKS, LEAST_FRAMES = 4, 64  # of a rollout, whose chunks are compiled one by one; of a chunk


def distribution(logits: jax.Array, valid: jax.Array | None) -> jax.Array:
    """[..., V] float32 log-probabilities at temperature 1, over the valid tokens where a mask is given.

    This is the one definition of the policy's probabilities: sampling, ratios, KL and entropy all use it.
    """
    chex.assert_type(logits, jnp.float32)
    return jax.nn.log_softmax(logits if valid is None else jnp.where(valid, logits, MASKED_LOGIT), axis=-1)


class Truncation(NamedTuple):
    """Limits what evaluation draws to a part of the distribution (docs/method.md §12.1); training draws from all."""

    top_k: float = 1.0  # share of the V tokens: the likeliest of them, rounded up
    top_p: float = 1.0  # the fewest likeliest tokens that have this probability together

    def tokens(self, size: int) -> int:
        """How many of `size` tokens `top_k` leaves."""
        return min(size, math.ceil(self.top_k * size))

    def of(self, log_probs: jax.Array) -> jax.Array:
        """[..., V] log-probabilities of the tokens that are left, which sum to 1; equal ones stay or go together.

        `top_p` counts what `top_k` has left (Holtzman et al. 2020, arXiv:1904.09751, §3.1). Unchanged where both are 1.
        """
        count = self.tokens(log_probs.shape[-1])
        if count < log_probs.shape[-1]:
            log_probs = _at_least(log_probs, jax.lax.top_k(log_probs, count)[0][..., -1:])
        if self.top_p < 1:
            ordered = jnp.flip(jnp.sort(log_probs, axis=-1), axis=-1)
            reached = jnp.cumsum(jnp.exp(ordered), axis=-1)
            last = jnp.sum(reached < self.top_p, axis=-1, keepdims=True)
            last = jnp.minimum(last, log_probs.shape[-1] - 1)
            log_probs = _at_least(log_probs, jnp.take_along_axis(ordered, last, axis=-1))
        return log_probs


WHOLE = Truncation()


def _at_least(log_probs: jax.Array, least: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(jnp.where(log_probs >= least, log_probs, MASKED_LOGIT), axis=-1)


def before(values: jax.Array, first: int) -> jax.Array:
    """[B, T] -> [B, T]: the value before each frame's, such as the last action; `first` before the first."""
    return jnp.pad(values[:, :-1], ((0, 0), (1, 0)), constant_values=first)


def opened(policy: Model, params: Params, task: Task, batch: int, frames: int) -> tuple[jax.Array, Any, jax.Array]:
    """(logits [B, V] of the first action, a cache for `frames`, the action before it [B]) of a policy that has read
    BOS alone."""
    cache = policy.method(params, "empty_cache", batch, 1 + 2 * frames)
    logits, cache = policy.method(params, "decode", jnp.full((batch, 1), BOS, jnp.int32), cache, 0)
    return logits, cache, jnp.full((batch,), task.rest, jnp.int32)


def valid_along(task: Task, actions: jax.Array) -> jax.Array:
    """[B, T] actions -> [B, T, V] bool: the tokens that were valid at each frame."""
    return task.valid_actions(before(actions, task.rest))


def sample(log_probs: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse-CDF draw: log_probs [B, V], uniform [B] in [0, 1) -> [B] int32, a token even where log_probs are NaN.

    In two steps, a block of tokens and a token in it: running sums over all of V take several times longer.
    """
    batch, size = log_probs.shape
    p = jnp.pad(jnp.exp(log_probs), ((0, 0), (0, -size % BLOCK))).reshape(batch, -1, BLOCK)
    of_blocks = jnp.sum(p, axis=-1)
    target = uniform * jnp.sum(of_blocks, axis=-1)
    block = _first_beyond(of_blocks, target)
    is_before = jnp.arange(of_blocks.shape[1]) < block[:, None]
    inside = jnp.take_along_axis(p, block[:, None, None], axis=1)[:, 0]
    rest = target - jnp.sum(jnp.where(is_before, of_blocks, 0.0), axis=-1)
    return jnp.minimum(block * BLOCK + _first_beyond(inside, rest), size - 1)


def _first_beyond(weights: jax.Array, target: jax.Array) -> jax.Array:
    """[B, N], [B] -> [B] int32: the first positive weight with which the running sum exceeds the target; where rounding
    leaves none, the last."""
    count, can_be = weights.shape[-1], weights > 0
    sums = jnp.cumsum(weights, axis=-1)  # XLA's is not monotone to the last bit
    last = jnp.max(jnp.where(can_be, sums, 0.0), axis=-1)
    is_beyond = can_be & (sums > jnp.minimum(target, (1 - 2**-22) * last)[:, None])
    return count - jnp.max(jnp.where(is_beyond, count - jnp.arange(count), 1), axis=-1)  # faster than argmax


class Decoding(Protocol):
    """What a rollout needs of a policy; `Decoder` and `Kernel` implement it. The cache type is opaque."""

    def empty_cache(self, batch: int, length: int) -> Any: ...

    def grown(self, cache: Any, count: int) -> Any: ...

    def decode(self, tokens: jax.Array, cache: Any, position: jax.Array) -> tuple[jax.Array, Any]: ...


def roll_out(
    policy: Model,
    params: Params,
    context: jax.Array,
    index: jax.Array,
    key: jax.Array,
    task: Task,
    *,
    validity_mask: bool,
    truncation: Truncation = WHOLE,
) -> Trajectory:
    """Plays over context [B, T]; frame t sees actions and context before t only.

    A song's draws depend on `key` and its global example `index` [B] alone. One decoding pass per frame covers two
    tokens: the action just sampled and the context then heard. `truncation` changes what is drawn, not the
    log-probabilities, which are those of the whole distribution.
    """
    frames = context.shape[1]

    def playing(decoding: Callable[[Any], Decoding], chunks: Sequence[tuple[int, int]]) -> Callable[..., Trajectory]:
        def play(params: Params, context: jax.Array, index: jax.Array, key: jax.Array) -> Trajectory:
            decoder = decoding(policy.bind(params))
            return _roll_out(
                decoder, chunks, context, index, key, task, validity_mask=validity_mask, truncation=truncation
            )

        return play

    plain = playing(lambda decoder: decoder, _chunks(frames))
    decoder_on_cpu = policy.on_cpu()
    if decoder_on_cpu is None:
        return plain(params, context, index, key)
    # Members of a population one after the other: a call for all would copy their caches at every frame.
    by_kernel = sequential_vmap(playing(decoder_on_cpu, [(0, frames)]))
    return jax.lax.platform_dependent(params, context, index, key, cpu=by_kernel, default=plain)


def _roll_out(
    decoder: Decoding,
    chunks: Sequence[tuple[int, int]],
    context: jax.Array,
    index: jax.Array,
    key: jax.Array,
    task: Task,
    *,
    validity_mask: bool,
    truncation: Truncation,
) -> Trajectory:
    """The rollout by one way of decoding; between `chunks` of the frames the cache grows."""
    batch, frames = context.shape
    uniforms = prng.uniform_per_example(key, index, frames).T  # [T, B]
    mask = context != PAD

    cache = decoder.empty_cache(batch, 1)
    logits, cache = decoder.decode(jnp.full((batch, 1), BOS, jnp.int32), cache, jnp.int32(0))

    def frame(carry: Any, inputs: Any) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        logits, cache, previous = carry
        t, heard, uniform, is_real = inputs
        valid = task.valid_actions(previous) if validity_mask else None
        log_probs = distribution(logits, valid)
        action = jnp.where(is_real, sample(truncation.of(log_probs), uniform), PAD)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        pair = jnp.stack([action, heard], axis=1)
        logits, cache = decoder.decode(pair, cache, 1 + 2 * t)
        return (logits, cache, action), (action, jnp.where(is_real, log_prob, 0.0))

    previous, played = jnp.full((batch,), task.rest, jnp.int32), []
    by_frame = jnp.arange(frames), context.T, uniforms, mask.T
    for start, stop in chunks:
        carry = logits, decoder.grown(cache, 2 * (stop - start)), previous
        (logits, cache, previous), found = jax.lax.scan(frame, carry, [x[start:stop] for x in by_frame])
        played.append(found)
    actions, log_probs = (jnp.concatenate(found) for found in zip(*played, strict=True))
    return Trajectory(context, actions.T, log_probs.T, mask.astype(jnp.float32))


def _chunks(frames: int) -> list[tuple[int, int]]:
    """(start, stop) of the chunks of a song between which the cache grows: early frames attend over less of it."""
    count = max(1, min(MOST_CHUNKS, frames // LEAST_FRAMES))
    return list(itertools.pairwise(frames * n // count for n in range(count + 1)))
