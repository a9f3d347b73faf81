"""Vectorised play: the policy accompanies given melodies, one chord before each note is heard (method.md §1), or two
agents play with each other (§5)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import chex
import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from gapt_jax import prng
from gapt_jax.algorithm import ppo, rules
from gapt_jax.models import Model, kernel
from gapt_jax.types import Array, Params, Trajectory, pytree
from gapt_jax.vocabulary import BOS, PAD, SILENCE, TokenTables

MASKED_LOGIT = -1e30
BLOCK = 64  # tokens, of a draw
MOST_PARTS, LEAST_FRAMES = 4, 64  # parts of a rollout, each compiled for itself; frames of one


def distribution(logits: jax.Array, valid: jax.Array | None) -> jax.Array:
    """[..., V] float32 log-probabilities at temperature 1, over the valid tokens where a mask is given.

    This is the one definition of the policy's probabilities: sampling, ratios, KL and entropy all use it.
    """
    chex.assert_type(logits, jnp.float32)
    return jax.nn.log_softmax(logits if valid is None else jnp.where(valid, logits, MASKED_LOGIT), axis=-1)


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
    """What a rollout needs of a policy, as `Decoder` and `Kernel` offer it; the cache is their own affair."""

    def empty_cache(self, batch: int, length: int) -> Any: ...

    def grown(self, cache: Any, count: int) -> Any: ...

    def decode(self, tokens: jax.Array, cache: Any, position: jax.Array) -> tuple[jax.Array, Any]: ...


def roll_out(
    policy: Model,
    params: Params,
    context: jax.Array,
    index: jax.Array,
    key: jax.Array,
    tables: TokenTables,
    *,
    validity_mask: bool,
) -> Trajectory:
    """Plays over context [B, T]; frame t sees actions and context before t only.

    A song's draws depend on `key` and its global example `index` [B] alone. One decoding pass per frame covers two
    tokens: the action just sampled and the context then heard.
    """

    frames = context.shape[1]

    def playing(decoding: Callable[[Any], Decoding], parts: Sequence[tuple[int, int]]) -> Callable[..., Trajectory]:
        def play(params: Params, context: jax.Array, index: jax.Array, key: jax.Array) -> Trajectory:
            decoder = decoding(policy.bind(params))
            return _roll_out(decoder, parts, context, index, key, tables, validity_mask=validity_mask)

        return play

    plain = playing(lambda decoder: decoder, _parts(frames))
    if not kernel.can_run(policy.bind(params)):
        return plain(params, context, index, key)
    # Members of a population one after the other: a call for all would copy their caches at every frame.
    by_kernel = sequential_vmap(playing(kernel.Kernel, [(0, frames)]))
    return jax.lax.platform_dependent(params, context, index, key, cpu=by_kernel, default=plain)


def _roll_out(
    decoder: Decoding,
    parts: Sequence[tuple[int, int]],
    context: jax.Array,
    index: jax.Array,
    key: jax.Array,
    tables: TokenTables,
    *,
    validity_mask: bool,
) -> Trajectory:
    """The rollout by one way of decoding; between `parts` of the frames the cache grows."""
    batch, frames = context.shape
    uniforms = prng.uniform_per_example(key, index, frames).T  # [T, B]
    mask = context != PAD

    cache = decoder.empty_cache(batch, 1)
    logits, cache = decoder.decode(jnp.full((batch, 1), BOS, jnp.int32), cache, jnp.int32(0))

    def frame(carry, inputs):
        logits, cache, previous = carry
        t, heard, uniform, is_real = inputs
        valid = rules.valid_tokens(previous, tables) if validity_mask else None
        log_probs = distribution(logits, valid)
        action = jnp.where(is_real, sample(log_probs, uniform), PAD)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]
        pair = jnp.stack([action, heard], axis=1)
        logits, cache = decoder.decode(pair, cache, 1 + 2 * t)
        return (logits, cache, action), (action, jnp.where(is_real, log_prob, 0.0))

    previous, played = jnp.full((batch,), SILENCE, jnp.int32), []
    by_frame = jnp.arange(frames), context.T, uniforms, mask.T
    for start, stop in parts:
        carry = logits, decoder.grown(cache, 2 * (stop - start)), previous
        (logits, cache, previous), found = jax.lax.scan(frame, carry, [x[start:stop] for x in by_frame])
        played.append(found)
    actions, log_probs = (jnp.concatenate(parts) for parts in zip(*played, strict=True))
    return Trajectory(context, actions.T, log_probs.T, mask.astype(jnp.float32))


def _parts(frames: int) -> list[tuple[int, int]]:
    """(start, stop) of the parts of a song between which the cache grows: early frames attend over less of it."""
    count = max(1, min(MOST_PARTS, frames // LEAST_FRAMES))
    return list(itertools.pairwise(frames * n // count for n in range(count + 1)))


@dataclasses.dataclass(frozen=True, eq=False)
class Player:
    """An agent without its parameters: its network and the token tables with the roles of its part."""

    policy: Model
    tables: TokenTables

    def distribution(self, logits: jax.Array, previous: jax.Array, *, validity_mask: bool) -> jax.Array:
        """[B, V] log-probabilities of its next token after the token `previous` [B] of its own part."""
        return distribution(logits, rules.valid_tokens(previous, self.tables) if validity_mask else None)


@pytree
class Interplay:
    """What two agents played together. [B, T]"""

    melody: Array  # int32; PAD where the song has ended
    chords: Array  # int32; PAD where the song has ended
    influence: Array  # float32: of the note on the chord of the next frame, in nats; 0 where there is no next frame


def interplay(
    chord_player: Player,
    melody_player: Player,
    params: tuple[Params, Params],
    melody: jax.Array,
    is_agent: jax.Array,
    index: jax.Array,
    key: jax.Array,
    *,
    validity_mask: bool,
    counterfactuals: int,
) -> Interplay:
    """Both agents play at once: in each frame neither sees the other's token of that frame (reference.md §6.2).

    params: of the chord player, then of the melody player. melody [B, T]: the data, which gives each song its length
    and, in the frames where `is_agent` [T] is false, its notes; the agent hears these as its own. Draws depend on
    `key` and the global example `index` [B] alone; those of the chords are the ones that `rollout` makes.

    `influence` is what the note m_t did to the policy's next move, against k = `counterfactuals` notes that the agent
    might have played instead (Jaques et al. 2019, arXiv:1810.08647, §3):

        I_t = KL( p(c_{t+1} | h_t, m_t) || 1/k sum_j p(c_{t+1} | h_t, m_j) ),   m_j ~ agent(. | h_t),

    h_t all that was played before m_t, c_t included. In expectation over m_t ~ agent it is at least the mutual
    information of m_t and c_{t+1}, which it reaches as k grows.
    """
    batch, frames = melody.shape
    note_key, other_key = prng.stream(key, 0, "agent"), prng.stream(key, 0, "counterfactual")
    chord_draws = prng.uniform_per_example(key, index, frames).T  # [T, B]
    note_draws = prng.uniform_per_example(note_key, index, frames).T
    other_draws = prng.uniform_per_example(other_key, index, frames * counterfactuals)
    other_draws = jnp.moveaxis(other_draws.reshape(batch, frames, counterfactuals), 0, -1)  # [T, k, B]
    mask = melody != PAD
    has_next = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))

    def begin(player: Player, player_params: Params):
        cache = player.policy.method(player_params, "empty_cache", batch, 2 * frames + 1)
        begun = jnp.full((batch, 1), BOS, jnp.int32)
        logits, cache = player.policy.method(player_params, "decode", begun, cache, 0)
        return logits, cache, jnp.full((batch,), SILENCE, jnp.int32)

    def hear(player: Player, player_params: Params, own: jax.Array, other: jax.Array, cache, t):
        return player.policy.method(player_params, "decode", jnp.stack([own, other], axis=1), cache, 1 + 2 * t)

    def chord_distribution(logits, previous):
        return chord_player.distribution(logits, previous, validity_mask=validity_mask)

    def frame(carry, inputs):
        (chord_logits, chord_cache, chord), (note_logits, note_cache, note) = carry
        t, given, from_agent, chord_draw, note_draw, other_draw, is_real, is_followed = inputs
        note_log_probs = melody_player.distribution(note_logits, note, validity_mask=validity_mask)
        chord = jnp.where(is_real, sample(chord_distribution(chord_logits, chord), chord_draw), PAD)
        note = jnp.where(from_agent, sample(note_log_probs, note_draw), given)
        note = jnp.where(is_real, note, PAD)

        def after(other: jax.Array) -> jax.Array:
            logits, _ = hear(chord_player, params[0], chord, other, chord_cache, t)
            return chord_distribution(logits, chord)

        others = jax.vmap(sample, (None, 0))(note_log_probs, other_draw)
        marginal = jax.nn.logsumexp(jax.lax.map(after, others), axis=0) - jnp.log(counterfactuals)
        chord_logits, chord_cache = hear(chord_player, params[0], chord, note, chord_cache, t)
        note_logits, note_cache = hear(melody_player, params[1], note, chord, note_cache, t)
        influence = ppo.kl_divergence(chord_distribution(chord_logits, chord), marginal)
        carry = (chord_logits, chord_cache, chord), (note_logits, note_cache, note)
        return carry, (note, chord, jnp.where(is_followed, influence, 0.0))

    start = begin(chord_player, params[0]), begin(melody_player, params[1])
    draws = chord_draws, note_draws, other_draws
    inputs = (jnp.arange(frames), melody.T, is_agent, *draws, mask.T, has_next.T)
    _, played = jax.lax.scan(frame, start, inputs)
    return Interplay(*(x.T for x in played))
