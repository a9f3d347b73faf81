"""Two agents play with each other: one the chords, one the melody (docs/method.md §11)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax import prng
from gapt_jax.algorithm import ppo
from gapt_jax.algorithm.rollout import distribution, opened, sample
from gapt_jax.models import Model
from gapt_jax.task import PAD, Task
from gapt_jax.types import Array, Params, pytree


@dataclasses.dataclass(frozen=True, eq=False)
class Player:
    """An agent without its parameters: its network, and the task of its part."""

    policy: Model
    task: Task

    def distribution(self, logits: jax.Array, previous: jax.Array, *, validity_mask: bool) -> jax.Array:
        """[B, V] log-probabilities of its next token after the token `previous` [B] of its own part."""
        return distribution(logits, self.task.valid_actions(previous) if validity_mask else None)


@pytree
class Interplay:
    """What two agents played together. [B, T]"""

    melody: Array  # int32; PAD where the song has ended
    chords: Array  # int32; PAD where the song has ended
    influence: Array  # float32: of the note on the chord of the next frame, in nats; 0 where there is no next frame


def _draws(key: jax.Array, index: jax.Array, frames: int, counterfactuals: int) -> tuple[jax.Array, ...]:
    """Uniform numbers of the chords [T, B], of the notes [T, B] and of other notes [T, k, B]."""
    note_key, other_key = prng.stream(key, 0, "agent"), prng.stream(key, 0, "counterfactual")
    others = prng.uniform_per_example(other_key, index, frames * counterfactuals)
    others = jnp.moveaxis(others.reshape(len(index), frames, counterfactuals), 0, -1)
    return prng.uniform_per_example(key, index, frames).T, prng.uniform_per_example(note_key, index, frames).T, others


def _hear(player: Player, params: Params, own: jax.Array, other: jax.Array, cache: Any, t: int) -> Any:
    """The player, who has played `own` [B], hears `other` [B] in frame t: (logits, cache)."""
    return player.policy.method(params, "decode", jnp.stack([own, other], axis=1), cache, 1 + 2 * t)


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
    """Both agents play at once: in each frame neither sees the other's token of that frame (docs/method.md §11.2).

    params: of the chord player, then of the melody player. melody [B, T]: the data, which gives each song its length
    and, in the frames where `is_agent` [T] is false, its notes; the agent hears these as its own. Draws depend on
    `key` and the global example `index` [B] alone; those of the chords are the ones that `rollout` makes.

    `influence` is what the note m_t did to the policy's next move, against k = `counterfactuals` notes that the agent
    might have played instead (Jaques et al. 2019, arXiv:1810.08647, §3):

        I_t = KL( p(c_{t+1} | h_t, m_t) || 1/k sum_j p(c_{t+1} | h_t, m_j) ),   m_j ~ agent(. | h_t),

    h_t all that was played before m_t, c_t included. In expectation over m_t ~ agent it is at least the mutual
    information of m_t and c_{t+1}, which it reaches as k grows.
    """
    (batch, frames), mask = melody.shape, melody != PAD
    has_next = jnp.pad(mask[:, 1:], ((0, 0), (0, 1)))

    def chord_distribution(logits: jax.Array, previous: jax.Array) -> jax.Array:
        return chord_player.distribution(logits, previous, validity_mask=validity_mask)

    def frame(carry: Any, inputs: Any) -> Any:
        (chord_logits, chord_cache, chord), (note_logits, note_cache, note) = carry
        t, given, from_agent, chord_draw, note_draw, other_draw, is_real, is_followed = inputs
        note_log_probs = melody_player.distribution(note_logits, note, validity_mask=validity_mask)
        chord = jnp.where(is_real, sample(chord_distribution(chord_logits, chord), chord_draw), PAD)
        note = jnp.where(from_agent, sample(note_log_probs, note_draw), given)
        note = jnp.where(is_real, note, PAD)

        def after(other: jax.Array) -> jax.Array:
            logits, _ = _hear(chord_player, params[0], chord, other, chord_cache, t)
            return chord_distribution(logits, chord)

        others = jax.vmap(sample, (None, 0))(note_log_probs, other_draw)
        marginal = jax.nn.logsumexp(jax.lax.map(after, others), axis=0) - jnp.log(counterfactuals)
        chord_logits, chord_cache = _hear(chord_player, params[0], chord, note, chord_cache, t)
        note_logits, note_cache = _hear(melody_player, params[1], note, chord, note_cache, t)
        influence = ppo.kl_divergence(chord_distribution(chord_logits, chord), marginal)
        carry = (chord_logits, chord_cache, chord), (note_logits, note_cache, note)
        return carry, (note, chord, jnp.where(is_followed, influence, 0.0))

    players = zip((chord_player, melody_player), params, strict=True)
    start = tuple(opened(player.policy, its, player.task, batch, frames) for player, its in players)
    draws = _draws(key, index, frames, counterfactuals)
    inputs = (jnp.arange(frames), melody.T, is_agent, *draws, mask.T, has_next.T)
    _, played = jax.lax.scan(frame, start, inputs)
    return Interplay(*(x.T for x in played))
