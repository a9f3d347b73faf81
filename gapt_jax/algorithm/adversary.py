"""The co-evolving discriminator: losses, rewards, gates, replay, λ with a target (docs/method.md §5.4, §7)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gapt_jax import masked
from gapt_jax.algorithm.reward_models import derangement
from gapt_jax.config import AlgorithmConfig, DiscriminatorConfig
from gapt_jax.masked import Ratio
from gapt_jax.models.networks import pair
from gapt_jax.task import BOS, EOS, PAD
from gapt_jax.types import pytree

# From the logit z = log(D / (1 - D)) of "this is data" to the reward; with its range.
REWARD_FORMS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "neg_log_one_minus": jax.nn.softplus,  # -log(1 - D), [0, inf): published
    "log": lambda z: -jax.nn.softplus(-z),  # log D, (-inf, 0]
    "logit": lambda z: z,  # log D - log(1 - D), (-inf, inf)
    "probability": jax.nn.sigmoid,  # D, [0, 1]
    "sigmoid_shaped": lambda z: 2 * jax.nn.sigmoid(z) - 1,  # centred and saturating, [-1, 1]
    "clipped": lambda z: jnp.minimum(jax.nn.softplus(z), 2.0),  # -log(1 - D) up to D = 0.865, [0, 2]
}


def fooled(logits: jax.Array) -> jax.Array:
    """-log(1 - D), [B] -> [B]: what the gate compares with its threshold, whatever form of reward is paid."""
    return jax.nn.softplus(logits)


def shown(config: DiscriminatorConfig, context: jax.Array, actions: jax.Array) -> jax.Array:
    """What the discriminator is given: actions [B, T] alone, D(a), or context and actions [B, 2T], D(a|c)."""
    return jnp.concatenate([context, actions], axis=1) if config.conditional else actions


def shown_tokens(config: DiscriminatorConfig, given: jax.Array) -> jax.Array:
    """The discriminator's input: `discriminator_input` [B, T + 1] of actions, `pair` [B, 2T + 5] of both parts."""
    return pair(*jnp.split(given, 2, axis=1)) if config.conditional else discriminator_input(given)


def discriminator_input(actions: jax.Array) -> jax.Array:
    """[B, T] actions -> [B, T + 1]: BOS and the actions, EOS hidden as PAD (docs/method.md §1.6)."""
    return jnp.pad(jnp.where(actions == EOS, PAD, actions), ((0, 0), (1, 0)), constant_values=BOS)


def accepted(realism: jax.Array, is_song: jax.Array, screened: float) -> jax.Array:
    """[B] float32, 0 for the share `screened` of the songs (rounded down) with the least realism [B], the earlier ones
    of equals first, and for what is no song.

    Rejection by rank, as discriminator rejection sampling (Azadi et al. 2018, arXiv:1810.06758) rejects by value: how
    many pass does not depend on how sure the discriminator is.
    """
    place = jnp.argsort(jnp.argsort(jnp.where(is_song > 0, realism, jnp.inf)))
    return is_song * (place >= jnp.floor(screened * jnp.sum(is_song)))


def discriminator_loss(
    real_logits: jax.Array, generated_logits: jax.Array, is_song: jax.Array, label_smoothing: float
) -> Ratio:
    """Two-class cross-entropy, data = 1, generated = 0; smoothing 0.1 gives targets 0.95 / 0.05.

    Logits [B] float32; `is_song` [B], 0 for rows that only fill up. The mean is over pairs of a real and a generated
    song.
    """
    target = 1 - label_smoothing / 2

    def cross_entropy(logits: jax.Array) -> jax.Array:  # against P(right class) = sigmoid(logits)
        return target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits)

    return masked.ratio(0.5 * (cross_entropy(real_logits) + cross_entropy(-generated_logits)), is_song)


def discriminator_accuracy(real_logits: jax.Array, generated_logits: jax.Array, is_song: jax.Array) -> jax.Array:
    """Share of right answers on equally many real and generated songs."""
    return masked.mean(0.5 * ((real_logits > 0).astype(jnp.float32) + (generated_logits <= 0)), is_song)


def relativistic_loss(
    real_logits: jax.Array, generated_logits: jax.Array, is_song: jax.Array, label_smoothing: float
) -> Ratio:
    """Bradley-Terry: cross-entropy of "the real one of this pair is real", P = sigmoid(z_real - z_generated).

    Source: GAD (arXiv:2511.10643). Arguments and smoothing as in `discriminator_loss`. Only differences of logits
    mean anything, so that the reward is the logit itself.
    """
    target, margin = 1 - label_smoothing / 2, real_logits - generated_logits
    return masked.ratio(target * jax.nn.softplus(-margin) + (1 - target) * jax.nn.softplus(margin), is_song)


def relativistic_accuracy(real_logits: jax.Array, generated_logits: jax.Array, is_song: jax.Array) -> jax.Array:
    """Share of pairs in which the real song has the larger logit."""
    return masked.mean((real_logits > generated_logits).astype(jnp.float32), is_song)


def repaired(key: jax.Array, real: jax.Array, generated: jax.Array, share: float) -> tuple[jax.Array, jax.Array]:
    """(real, generated) songs as a conditional discriminator learns from them, [n, 2T] each: with probability `share` a
    generated one is replaced by the context of its row and the actions of another row's real song.

    It then ends, as the real song beside it, where the first of its parts ends: length gives nothing away. Source: the
    matching-aware discriminator of Reed et al. 2016 (arXiv:1605.05396), negatives as in docs/method.md §3.5.
    """
    partner_key, choice_key = jax.random.split(key)
    context, actions = jnp.split(real, 2, axis=1)
    others = actions[derangement(partner_key, len(real))]
    ended = jnp.tile((context == PAD) | (others == PAD), (1, 2))
    is_repaired = jax.random.bernoulli(choice_key, share, (len(real), 1))
    false = jnp.where(ended, PAD, jnp.concatenate([context, others], axis=1))
    return jnp.where(is_repaired & ended, PAD, real), jnp.where(is_repaired, false, generated)


LOSSES = {"two_class": discriminator_loss, "relativistic": relativistic_loss}
ACCURACIES = {"two_class": discriminator_accuracy, "relativistic": relativistic_accuracy}


LEAST_WEIGHT, MOST_WEIGHT = 0.01, 10.0  # of a λ that follows a target, should that be out of reach


def next_weight(weight: jax.Array, accuracy: jax.Array, config: AlgorithmConfig) -> jax.Array:
    """λ [] after a step with this accuracy []: dual ascent on log λ for the constraint accuracy <= target.

    It grows while the discriminator tells rollouts from data better than `adversarial_target`, and falls otherwise.
    """
    grown = weight * jnp.exp(config.adversarial_target_rate * (accuracy - config.adversarial_target))
    return jnp.clip(grown, LEAST_WEIGHT, MOST_WEIGHT)


def discriminator_gate(
    recent_rewards: jax.Array, step: jax.Array, threshold: jax.Array, config: DiscriminatorConfig
) -> jax.Array:
    """Whether the discriminator learns at this step (from 1), [] bool.

    recent_rewards: [window] float32, mean -log(1 - D) of the rollouts of the last completed steps, NaN where there is
    none yet: the published form of the reward, so that a threshold means the same for every form.
    two_phase (published): while step < `gate_warmup_steps`, at step 1 and every `gate_period` steps; at any step, when
    the policy has fooled it, i.e. the mean of `recent_rewards` exceeds the threshold.
    frozen: as two_phase while step < `gate_warmup_steps`, then never again: a fixed realism reward.
    fixed_period: at step 1 and every `gate_period` steps. every_step: always.
    """
    on_period = (step % config.gate_period == 0) | (step == 1)
    if config.gate == "every_step":
        return jnp.full_like(step, True, dtype=bool)
    if config.gate == "fixed_period":
        return on_period
    known = ~jnp.isnan(recent_rewards)
    recent_mean = jnp.sum(jnp.where(known, recent_rewards, 0.0)) / jnp.sum(known)  # 0 / 0 = NaN compares false
    is_fooled = recent_mean > threshold
    is_warmup = step < config.gate_warmup_steps
    is_open = is_fooled | (is_warmup & on_period)
    return is_warmup & is_open if config.gate == "frozen" else is_open


@pytree
class Replay:
    """The latest rollouts and the actions of the same songs in the data, as `shown` gives them to the discriminator."""

    generated: jax.Array  # [K, B, T or 2T] int32
    real: jax.Array  # [K, B, T or 2T] int32
    filled: jax.Array  # [] int32: how many of the K slots hold a rollout

    def push(self, generated: jax.Array, real: jax.Array) -> Replay:
        """Puts the newest rollout into slot 0."""

        def shift(slots: jax.Array, newest: jax.Array) -> jax.Array:
            return jnp.concatenate([newest[None], slots[:-1]])

        slots = self.generated.shape[0]
        return Replay(shift(self.generated, generated), shift(self.real, real), jnp.minimum(self.filled + 1, slots))

    def draw_order(self, key: jax.Array) -> jax.Array:
        """[K B] int32: a random order of the rows, those of empty slots last."""
        rows = self.generated.shape[0] * self.generated.shape[1]
        is_empty = jnp.arange(rows) >= self.filled * self.generated.shape[1]
        return jnp.argsort(jax.random.uniform(key, (rows,)) + is_empty)
