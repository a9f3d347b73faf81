"""One iteration of Generative Adversarial Post-Training, in the order of the paper's Algorithm 1.

    play                   roll the policy out over melodies from the data
    judge                  coherence + rules + λ · realism, every term kept apart
    estimate               KL to the anchor, values, advantages
    improve_policy         PPO on policy and critic, minibatch by minibatch
    improve_discriminator  if its gate is open, tell the data from the latest rollouts

Each phase is a pure jitted function; nothing is fetched to the host between them. λ = 0 runs the same program.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax import masked, prng
from gapt_jax.algorithm import adversary, gradients, optim, ppo, returns, rewards, rules
from gapt_jax.algorithm.layout import in_chunks
from gapt_jax.algorithm.rollout import distribution, rollout
from gapt_jax.algorithm.state import ADVERSARIAL, Frozen, LearnerState, Spec
from gapt_jax.models.networks import interleave, part
from gapt_jax.types import Batch, Params, RewardTerms, Trajectory, pytree
from gapt_jax.vocabulary import PAD

Metrics = dict[str, jax.Array]  # [] float32 each


@pytree
class Experience:
    """A trajectory with what the updates need. [B, T] float32 unless stated."""

    trajectory: Trajectory
    advantages: jax.Array
    returns: jax.Array


def iteration(
    spec: Spec,
    state: LearnerState,
    frozen: Frozen,
    batch: Batch,
    done: Callable[[str, Any], None] = lambda phase, result: None,
) -> tuple[LearnerState, Metrics]:
    """State after one more step, and what happened in it; `done` hears of each phase, to time it for example."""
    trajectory = play(spec, state, batch)
    done("play", trajectory)
    reward_terms, realism = judge(spec, state, frozen, batch, trajectory)
    done("judge", realism)
    experience, estimate_metrics = estimate(spec, state, frozen, trajectory, reward_terms)
    done("estimate", experience)
    state, policy_metrics = improve_policy(spec, state, experience)
    done("improve_policy", state)
    state, adversary_metrics = improve_discriminator(spec, state, batch, trajectory, realism)
    done("improve_discriminator", state)
    return state, estimate_metrics | policy_metrics | realism | adversary_metrics


phase = functools.partial(jax.jit, static_argnames="spec")


@phase
def play(spec: Spec, state: LearnerState, batch: Batch) -> Trajectory:
    """The policy accompanies the melodies of the batch."""
    key = _stream(state, "rollout")

    def accompany(policy: Params, songs: Batch) -> Trajectory:
        return rollout(
            spec.models.policy,
            policy,
            songs.melody,
            songs.index,
            key,
            spec.vocabulary.tables,
            validity_mask=spec.config.validity_mask,
        )

    return spec.layout.each(accompany, state.policy, batch)


@phase
def judge(
    spec: Spec, state: LearnerState, frozen: Frozen, batch: Batch, trajectory: Trajectory
) -> tuple[RewardTerms, Metrics]:
    """All reward terms [B, T], and the discriminator's view of the rollout and of the data (no dropout)."""
    tables, discriminator = spec.vocabulary.tables, spec.models.discriminator

    def learned(params, rows):
        members, adversary_params = params

        def judged(part):
            generated, real = part
            scores = rewards.coherence_scores(spec.models, members, generated.melody, generated.chords, tables)
            logits = discriminator(adversary_params, adversary.discriminator_input(generated.chords))
            real_logits = discriminator(adversary_params, adversary.discriminator_input(real))
            return {kind: s.T for kind, s in scores.items()}, logits, real_logits

        return in_chunks(judged, spec.config.minibatch_size, rows)

    params, rows = (frozen.rewards, state.discriminator), (trajectory, batch.chords)
    scores, logits, real_logits = spec.layout.each(learned, params, rows)
    realism = adversary.REWARD_FORMS[spec.config.discriminator.reward_form](logits)
    terminal = {kind: rewards.combine(s.T, spec.config.rewards.ensemble) for kind, s in scores.items()}
    terminal[ADVERSARIAL] = realism
    terms = {name: rewards.at_last(value, trajectory.mask) for name, value in terminal.items()}
    is_song = trajectory.is_song()
    mean = masked.mean(realism, is_song)
    metrics = {
        "discriminator/accuracy": adversary.discriminator_accuracy(real_logits, logits, is_song),
        "discriminator/reward_mean": mean,
        "discriminator/reward_std": jnp.sqrt(masked.mean(jnp.square(realism - mean), is_song)),
    }
    return RewardTerms(terms | rewards.rule_terms(trajectory, tables), state.hyper.reward_weights), metrics


@phase
def estimate(
    spec: Spec, state: LearnerState, frozen: Frozen, trajectory: Trajectory, reward_terms: RewardTerms
) -> tuple[Experience, Metrics]:
    """KL-shaped rewards, advantages (whitened over the rollout) and returns."""
    models, config, mask = spec.models, spec.config, trajectory.mask

    def evaluate(params, rows):
        policy, critic, anchor = params

        def evaluated(played: Trajectory):
            tokens = interleave(played.chords, played.melody)[:, :-1]
            valid = _valid(spec, played.chords)
            log_p = distribution(models.policy.method(policy, "at_states", tokens), valid)
            heard = part(played.chords)[:, : played.chords.shape[1]]  # BOS c_1 ... c_{T-1}: entry t - 1 predicts c_t
            log_q = distribution(models.anchor(anchor, part(played.melody), heard), valid)
            values = models.critic.method(critic, "at_states", tokens)[..., 0]
            return ppo.kl_divergence(log_p, log_q), masked.select(log_p, played.chords), values

        return in_chunks(evaluated, config.minibatch_size, rows)

    kl, log_probs, values = spec.layout.each(evaluate, (state.policy, state.critic, frozen.anchor), trajectory)
    kl = jnp.where(mask > 0, kl, 0.0)
    reward = reward_terms.total()
    advantages, targets = returns.generalized_advantage_estimation(
        reward - state.hyper.kl_coef * kl,
        values,
        mask,
        discount=config.discount,
        gae_lambda=config.gae_lambda,
    )
    by_song = {f"reward/{name}": term for name, term in reward_terms.terms.items()} | {"reward/total": reward}
    metrics = {name: masked.mean(jnp.sum(x, axis=1), trajectory.is_song()) for name, x in by_song.items()}
    metrics |= {
        "kl": masked.mean(kl, mask),
        "value": masked.mean(values, mask),
        "return": masked.mean(targets, mask),
        "ratio_deviation": ppo.ratio_deviation(log_probs, trajectory.log_probs, mask),
    }
    return Experience(trajectory, masked.whiten(advantages, mask), targets), metrics


@functools.partial(phase, donate_argnames="state")
def improve_policy(spec: Spec, state: LearnerState, experience: Experience) -> tuple[LearnerState, Metrics]:
    """`epochs` passes over the rollout in random minibatches: a step of the policy and one of the critic for each."""
    config, models = spec.config, spec.models
    rows, minibatches = config.batch_size, config.batch_size // config.minibatch_size
    total_updates = config.steps * config.epochs * minibatches

    experience = spec.layout.everywhere(experience)  # small, and minibatches are drawn from all of it

    def losses(params, sample: Experience):
        policy, critic = params
        played = sample.trajectory
        tokens = interleave(played.chords, played.melody)[:, :-1]
        log_p = distribution(models.policy.method(policy, "at_states", tokens), _valid(spec, played.chords))
        policy_loss = ppo.clipped_surrogate(
            masked.select(log_p, played.chords),
            played.log_probs,
            sample.advantages,
            played.mask,
            config.clip_epsilon,
        )
        entropy = masked.ratio_of_rows(ppo.entropy(log_p), played.mask)
        values = models.critic.method(critic, "at_states", tokens)[..., 0]
        value_loss = ppo.value_loss(values, sample.returns, played.mask)
        # Policy and critic share no parameter: the gradient of the sum is both gradients.
        total = policy_loss.total - state.hyper.entropy_coef * entropy.total + value_loss.total
        parts = {"policy_loss": policy_loss, "entropy": entropy, "value_loss": value_loss}
        return masked.Ratio(total, policy_loss.number), parts

    def minibatch(carry, indices):
        policy, policy_optimizer, critic, critic_optimizer = carry
        sample = jax.tree.map(lambda x: x[indices], experience)
        _, metrics, found = gradients.of_rows(losses, spec.layout, (policy, critic), sample)
        policy_gradient, critic_gradient = found
        rate = state.hyper.policy_learning_rate * optim.schedule(config.policy, policy_optimizer.updates, total_updates)
        policy, policy_optimizer, info = optim.update(config.policy, policy, policy_gradient, policy_optimizer, rate)
        metrics |= {f"policy_{k}": v for k, v in info.items()}
        rate = state.hyper.critic_learning_rate * optim.schedule(config.critic, critic_optimizer.updates, total_updates)
        critic, critic_optimizer, info = optim.update(config.critic, critic, critic_gradient, critic_optimizer, rate)
        metrics |= {f"critic_{k}": v for k, v in info.items()}
        return (policy, policy_optimizer, critic, critic_optimizer), metrics

    keys = jax.random.split(_stream(state, "minibatch"), config.epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys).reshape(-1, config.minibatch_size)
    carry = (state.policy, state.policy_optimizer, state.critic, state.critic_optimizer)
    carry, metrics = jax.lax.scan(minibatch, carry, order)
    policy, policy_optimizer, critic, critic_optimizer = carry
    metrics = jax.tree.map(jnp.mean, metrics)
    skipped = (metrics["policy_skipped"] + metrics["critic_skipped"]) > 0
    state = dataclasses.replace(
        state,
        policy=policy,
        policy_optimizer=policy_optimizer,
        critic=critic,
        critic_optimizer=critic_optimizer,
        nonfinite_steps=jnp.where(skipped, state.nonfinite_steps + 1, 0),
    )
    return spec.layout.stored(state), metrics


@functools.partial(phase, donate_argnames="state")
def improve_discriminator(
    spec: Spec, state: LearnerState, batch: Batch, trajectory: Trajectory, realism: Metrics
) -> tuple[LearnerState, Metrics]:
    """Ends the step: the discriminator learns if its gate is open; the gate's window and the step move on."""
    config = spec.config.discriminator
    step = state.step + 1
    is_open = adversary.discriminator_gate(state.recent_rewards, step, state.hyper.gate_threshold, config)
    newest_chords = spec.layout.everywhere((trajectory.chords, batch.chords))
    replay = state.replay.push(*(chords[: spec.config.batch_size] for chords in newest_chords))
    discriminator, optimizer, metrics = jax.lax.cond(
        is_open, functools.partial(_train_discriminator, spec), _keep_discriminator, state, replay
    )
    newest = realism["discriminator/reward_mean"]
    steps_since_open = jnp.where(is_open, 0, state.steps_since_open + 1)
    state = dataclasses.replace(
        state,
        step=step,
        discriminator=discriminator,
        discriminator_optimizer=optimizer,
        recent_rewards=jnp.concatenate([newest[None], state.recent_rewards[:-1]]),
        gate_openings=state.gate_openings + is_open,
        steps_since_open=steps_since_open,
        replay=replay,
    )
    return spec.layout.stored(state), metrics | {
        "discriminator/is_open": is_open.astype(jnp.float32),
        "discriminator/steps_since_open": steps_since_open.astype(jnp.float32),
        "discriminator/gate_openings": state.gate_openings.astype(jnp.float32),
        "nonfinite_steps": state.nonfinite_steps.astype(jnp.float32),
    }


def _train_discriminator(spec: Spec, state: LearnerState, replay: adversary.Replay):
    """`steps_per_update` gradient steps on equally many generated and real songs of the latest rollouts."""
    config, optimizer_config = spec.config.discriminator, spec.config.discriminator_optimizer
    slots, rows, frames = replay.generated.shape
    generated, real = (x.reshape(slots * rows, frames) for x in (replay.generated, replay.real))
    order_key, dropout_key = jax.random.split(_stream(state, "discriminator"))
    order = replay.draw_order(order_key)
    total_updates = spec.config.steps * config.steps_per_update

    def loss(params, songs):
        songs_real, songs_generated, places = songs
        tokens = adversary.discriminator_input(jnp.concatenate([songs_real, songs_generated]))
        keys = prng.per_example(dropout_key, jnp.concatenate([2 * places, 2 * places + 1]))
        real_logits, generated_logits = jnp.split(spec.models.discriminator(params, tokens, keys), 2)
        is_song = (songs_real[:, 0] != PAD).astype(jnp.float32)
        return adversary.discriminator_loss(real_logits, generated_logits, is_song, config.label_smoothing), {}

    def gradient_step(carry, number):
        params, optimizer = carry
        places = number * config.minibatch_size + jnp.arange(config.minibatch_size)
        chosen = order[places % (replay.filled * rows)]
        songs = real[chosen], generated[chosen], places
        value, _, gradient = gradients.of_rows(loss, spec.layout, params, songs)
        position = (
            optimizer.updates if config.schedule_follows_updates else state.step * config.steps_per_update + number
        )
        rate = state.hyper.discriminator_learning_rate * optim.schedule(optimizer_config, position, total_updates)
        params, optimizer, info = optim.update(optimizer_config, params, gradient, optimizer, rate)
        return (params, optimizer), (value, info["skipped"])

    carry = (state.discriminator, state.discriminator_optimizer)
    (params, optimizer), (losses, skipped) = jax.lax.scan(gradient_step, carry, jnp.arange(config.steps_per_update))
    return params, optimizer, {"discriminator/loss": losses[-1], "discriminator/skipped": jnp.mean(skipped)}


def _keep_discriminator(state: LearnerState, replay: adversary.Replay):
    none = jnp.float32(0)
    return (
        state.discriminator,
        state.discriminator_optimizer,
        {"discriminator/loss": none, "discriminator/skipped": none},
    )


def _stream(state: LearnerState, name: str) -> jax.Array:
    return prng.stream(jax.random.wrap_key_data(state.key), state.step, name)


def _valid(spec: Spec, chords: jax.Array) -> jax.Array | None:
    return rules.valid_along(chords, spec.vocabulary.tables) if spec.config.validity_mask else None
