"""One iteration of Generative Adversarial Post-Training, in the order of the paper's Algorithm 1.

    rollout                the policy plays over contexts from the data
    judge                  coherence + rules + λ · realism, every term kept apart
    estimate               KL to the anchor, values, advantages
    improve_policy         PPO on policy and critic, minibatch by minibatch
    improve_discriminator  if its gate is open, tell the data from the latest rollouts

Each phase is a pure jitted function; nothing is fetched to the host between them. λ = 0 runs the same program.
Defaults follow arXiv:2511.17879 and, where its text and its released code differ, the code; docs/method.md §10 lists
what is done otherwise, and the options.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax import masked, prng
from gapt_jax.algorithm import adversary, gradients, groups, judges, optim, ppo, returns, rewards
from gapt_jax.algorithm.layout import in_chunks
from gapt_jax.algorithm.rollout import before, distribution, roll_out, valid_along
from gapt_jax.algorithm.state import ADVERSARIAL, Frozen, Hyperparameters, LearnerState, Spec
from gapt_jax.models import Model
from gapt_jax.models.networks import interleave, part
from gapt_jax.task import PAD
from gapt_jax.types import Batch, Metrics, Params, Reward, Trajectory, pytree

Call = Callable[..., Any]  # (phase, *inputs) -> the outputs of the phase
ADVERSARIAL_WEIGHT = "adversarial_weight"  # the metric of a λ that follows a target
POSITIONS_AT_ONCE = 2_048  # whose [V] logits `estimate` holds at once


@pytree
class Experience:
    """A trajectory with what the updates need. [B, T] float32 unless stated."""

    trajectory: Trajectory
    advantages: jax.Array
    returns: jax.Array | None  # targets of the critic; None without one


def iteration(
    spec: Spec,
    state: LearnerState,
    frozen: Frozen,
    batch: Batch,
    call: Call = lambda phase, *inputs: phase(*inputs),
) -> tuple[LearnerState, Metrics]:
    """Runs one step: (state after it, metrics of the step).

    `call(phase, *inputs)` runs a phase and returns its outputs. Whatever times, traces or compiles the phases passes
    its own; the name of a phase is `phase.__name__`.
    """
    trajectory = call(rollout, spec, state, batch)
    reward, judged = call(judge, spec, state, frozen, batch, trajectory)
    experience, estimate_metrics = call(estimate, spec, state, frozen, trajectory, reward)
    state, policy_metrics = call(improve_policy, spec, state, experience)
    state, adversary_metrics = call(improve_discriminator, spec, state, frozen, batch, trajectory, judged)
    return state, estimate_metrics | policy_metrics | judged | adversary_metrics


phase = functools.partial(jax.jit, static_argnames="spec")


@phase
def rollout(spec: Spec, state: LearnerState, batch: Batch) -> Trajectory:
    """The policy plays over the contexts of the batch: each once, or the first of every group `group_size` times."""
    key, size = _stream(state, "rollout"), spec.config.group_size
    if size > 1:  # each row keeps its index, and so its own draws
        batch = dataclasses.replace(batch, context=groups.first_of_group(batch.context, size))

    def play(policy: Params, songs: Batch) -> Trajectory:
        return roll_out(
            spec.models.policy,
            policy,
            songs.context,
            songs.index,
            key,
            spec.task,
            validity_mask=spec.config.validity_mask,
        )

    return spec.layout.each(play, state.policy, batch)


@phase
def judge(
    spec: Spec, state: LearnerState, frozen: Frozen, batch: Batch, trajectory: Trajectory
) -> tuple[Reward, Metrics]:
    """What the rollout is paid (arXiv:2511.17879, Eq. 6), and how its reward models and the discriminator see it."""
    coherence_terms, spreads = judges.coherence(spec, state, frozen, trajectory)
    realism, realism_metrics = judges.realism(spec, state, frozen, batch, trajectory)
    rule_terms = spec.task.rule_terms(trajectory.context, trajectory.actions, trajectory.mask)

    terms = coherence_terms | {ADVERSARIAL: realism} | rule_terms
    if spec.config.rewards.normalised == "rollout":  # what is logged is not
        scaled = (coherence_terms, realism, rule_terms)
        normalised = functools.partial(rewards.normalised, mask=trajectory.mask)
        coherence_terms, realism, rule_terms = jax.tree.map(normalised, scaled)

    weights = state.hyper.reward_weights
    coherence, λ = rewards.weighted_sum(weights, coherence_terms), weights[ADVERSARIAL]
    penalties = rewards.weighted_sum(weights, rule_terms)
    reward = coherence + rewards.weighted(λ, realism) + penalties
    return Reward(reward, terms), realism_metrics | spreads


@pytree
class Estimates:
    """What is known of each action before the update, [B, T] float32; None where no option asks for it."""

    log_probs: jax.Array
    kl: jax.Array | None  # from the anchor
    entropy: jax.Array | None
    values: jax.Array | None


@phase
def estimate(
    spec: Spec, state: LearnerState, frozen: Frozen, trajectory: Trajectory, reward: Reward
) -> tuple[Experience, Metrics]:
    """Computes KL-shaped rewards, advantages and returns."""
    weights, mask, is_song = state.hyper.reward_weights, trajectory.mask, trajectory.is_song()
    params = state.policy, state.critic, frozen.anchor
    estimates = functools.partial(_estimates, spec, "entropy" in weights)
    found = spec.layout.each_in_chunks(estimates, spec.config.minibatch_size, params, trajectory)

    total, terms = reward.total, reward.terms
    if found.entropy is not None:  # KL = cross-entropy - entropy: this term weighs the second alone
        terms = terms | {"entropy": jnp.where(mask > 0, found.entropy, 0.0)}
        total = total + rewards.weighted(weights["entropy"], terms["entropy"])
    by_song = {f"reward/{name}": term for name, term in terms.items()} | {"reward/total": total}
    metrics = {name: masked.mean(jnp.sum(x, axis=1), is_song) for name, x in by_song.items()}

    shaped = total
    if found.kl is not None:
        kl = jnp.where(mask > 0, found.kl, 0.0)
        shaped = total - state.hyper.kl_coef * kl
        metrics["kl"] = masked.mean(kl, mask)
    played = trajectory
    if spec.config.discriminator.screened:  # by what it pays: in every form more, or as much, for a larger logit
        realism, songs = spec.layout.everywhere((jnp.sum(terms[ADVERSARIAL], axis=1), is_song))
        accepted = adversary.accepted(realism, songs, spec.config.discriminator.screened)
        played = dataclasses.replace(trajectory, mask=mask * accepted[:, None])
        metrics["discriminator/accepted"] = masked.mean(accepted, is_song)
    experience, measured = _experience(spec, played, shaped, found.values)
    rho = ppo.ratio_deviation(found.log_probs, trajectory.log_probs, mask, spec.layout.everywhere)
    return experience, metrics | measured | {f"ratio_deviation/{name}": value for name, value in rho.items()}


def _estimates(spec: Spec, wants_entropy: bool, params: tuple[Params, Params, Params], played: Trajectory) -> Estimates:
    """Those of a chunk of songs; logits exist for a few positions at a time."""
    models, config, (policy, critic, anchor) = spec.models, spec.config, params
    tokens = interleave(played.actions, played.context)[:, :-1]
    states = models.policy.method(policy, "states", tokens)
    anchor_states = None if config.anchor == "none" else _anchor_states(spec, anchor, played)

    def at_positions(rows: tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]) -> Estimates:
        states, anchor_states, actions, previous = rows
        valid = spec.task.valid_actions(previous) if config.validity_mask else None
        log_p = distribution(models.policy.method(policy, "head", states), valid)
        kl = None
        if anchor_states is not None:
            log_q = distribution(_anchor_model(spec).method(anchor, "head", anchor_states), valid)
            kl = ppo.kl_divergence(log_p, log_q)
        return Estimates(masked.select(log_p, actions), kl, ppo.entropy(log_p) if wants_entropy else None, None)

    positions = states, anchor_states, played.actions, before(played.actions, spec.task.rest)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), positions)
    found = in_chunks(at_positions, POSITIONS_AT_ONCE, flat)
    found = jax.tree.map(lambda x: x.reshape(played.actions.shape), found)
    if config.advantages == "gae":
        values = models.critic.method(critic, "at_states", tokens)[..., 0]
        found = dataclasses.replace(found, values=values)
    return found


def _experience(
    spec: Spec, trajectory: Trajectory, shaped: jax.Array, values: jax.Array | None
) -> tuple[Experience, Metrics]:
    """Computes advantages by GAE, whitened over the rollout, or without a critic relative to each song's group."""
    config, mask = spec.config, trajectory.mask
    if values is None:
        returned = jnp.sum(jnp.where(mask > 0, shaped, 0.0), axis=1)
        by_song = groups.BASELINES[config.advantages](spec.layout.everywhere(returned), config.group_size)
        metrics = {"return": masked.mean(returned, trajectory.is_song())}
        return Experience(trajectory, jnp.where(mask > 0, by_song[:, None], 0.0), None), metrics
    advantages, targets = returns.generalized_advantage_estimation(
        shaped, values, mask, discount=config.discount, gae_lambda=config.gae_lambda
    )
    metrics = {"value": masked.mean(values, mask), "return": masked.mean(targets, mask)}
    return Experience(trajectory, masked.whiten(advantages, mask), targets), metrics


@functools.partial(phase, donate_argnames="state")
def improve_policy(spec: Spec, state: LearnerState, experience: Experience) -> tuple[LearnerState, Metrics]:
    """`epochs` passes over the rollout in random minibatches: a step of the policy and one of the critic for each.

    Without returns (advantages of a group) it leaves the critic unchanged; while the critic warms up, the policy.
    """
    config = spec.config
    learning = ("policy",) if experience.returns is None else ("policy", "critic")
    rows, minibatches = config.batch_size, config.batch_size // config.minibatch_size
    steps = {"policy": config.steps - config.critic_warmup_steps, "critic": config.steps}
    updates = {name: count * config.epochs * minibatches for name, count in steps.items()}  # of the whole run

    experience = spec.layout.everywhere(experience)  # small, and minibatches are drawn from all of it
    losses = functools.partial(_policy_losses, spec, state.hyper.entropy_coef)

    def minibatch(carry: tuple[Any, Any], indices: jax.Array) -> tuple[tuple[Any, Any], Metrics]:
        params, optimizers = carry
        sample = jax.tree.map(lambda x: x[indices], experience)
        _, metrics, gradient = gradients.of_rows(losses, spec.layout, params, sample)
        for name in learning:
            adam, peak = getattr(config, name), getattr(state.hyper, f"{name}_learning_rate")
            rate = peak * optim.schedule(adam, optimizers[name].updates, updates[name])
            new, optimizer, info = optim.update(adam, params[name], gradient[name], optimizers[name], rate)
            if name == "policy" and config.critic_warmup_steps:
                waits, old = state.step < config.critic_warmup_steps, (params[name], optimizers[name])
                new, optimizer = jax.tree.map(functools.partial(jnp.where, waits), old, (new, optimizer))
            params, optimizers = params | {name: new}, optimizers | {name: optimizer}
            metrics |= {f"{name}_{k}": v for k, v in info.items()}
        return (params, optimizers), metrics

    keys = jax.random.split(_stream(state, "minibatch"), config.epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys).reshape(-1, config.minibatch_size)
    params = {name: getattr(state, name) for name in learning}
    optimizers = {name: getattr(state, f"{name}_optimizer") for name in learning}
    (params, optimizers), metrics = jax.lax.scan(minibatch, (params, optimizers), order)
    metrics = jax.tree.map(jnp.mean, metrics)
    skipped = sum(metrics[f"{name}_skipped"] for name in learning) > 0
    state = dataclasses.replace(
        state,
        **params,
        **{f"{name}_optimizer": optimizer for name, optimizer in optimizers.items()},
        nonfinite_steps=jnp.where(skipped, state.nonfinite_steps + 1, 0),
    )
    return spec.layout.stored(state), metrics


def _policy_losses(
    spec: Spec, entropy_coef: jax.Array, params: Params, sample: Experience
) -> tuple[masked.Ratio, dict[str, masked.Ratio]]:
    """PPO's surrogate with its entropy bonus, and the critic's loss where there are returns; each by name."""
    config, models = spec.config, spec.models
    played = sample.trajectory
    tokens = interleave(played.actions, played.context)[:, :-1]
    valid = valid_along(spec.task, played.actions) if config.validity_mask else None
    log_p = distribution(models.policy.method(params["policy"], "at_states", tokens), valid)
    policy_loss = ppo.clipped_surrogate(
        masked.select(log_p, played.actions),
        played.log_probs,
        sample.advantages,
        played.mask,
        config.clip_epsilon,
    )
    entropy = masked.ratio_of_rows(ppo.entropy(log_p), played.mask)
    total = policy_loss.total - entropy_coef * entropy.total
    parts = {"policy_loss": policy_loss, "entropy": entropy}
    if sample.returns is not None:
        values = models.critic.method(params["critic"], "at_states", tokens)[..., 0]
        parts["value_loss"] = ppo.value_loss(values, sample.returns, played.mask)
        # Policy and critic share no parameter: the gradient of the sum is both gradients.
        total = total + parts["value_loss"].total
    return masked.Ratio(total, policy_loss.number), parts


@functools.partial(phase, donate_argnames="state")
def improve_discriminator(
    spec: Spec, state: LearnerState, frozen: Frozen, batch: Batch, trajectory: Trajectory, judged: Metrics
) -> tuple[LearnerState, Metrics]:
    """Updates the discriminator if its gate is open, then advances the gate's window, λ if it has a target, and the
    step."""
    config = spec.config.discriminator
    step = state.step + 1
    is_open = adversary.discriminator_gate(state.recent_rewards, step, state.hyper.gate_threshold, config)
    newest_songs = [adversary.shown(config, songs.context, songs.actions) for songs in (trajectory, batch)]
    newest_songs = spec.layout.everywhere(newest_songs)
    replay = state.replay.push(*(songs[: spec.config.batch_size] for songs in newest_songs))
    discriminator, optimizer, metrics = spec.layout.when(
        is_open, functools.partial(_train_discriminator, spec, frozen), _keep_discriminator, state, replay
    )
    if spec.config.adversarial_target:
        metrics |= {ADVERSARIAL_WEIGHT: state.hyper.reward_weights[ADVERSARIAL]}  # by which this rollout was paid
        state = dataclasses.replace(state, hyper=_with_next_weight(spec, state, judged))
    newest = judged["discriminator/fooled"]
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


def _with_next_weight(spec: Spec, state: LearnerState, judged: Metrics) -> Hyperparameters:
    weights = state.hyper.reward_weights
    weight = adversary.next_weight(weights[ADVERSARIAL], judged["discriminator/accuracy"], spec.config)
    return dataclasses.replace(state.hyper, reward_weights=weights | {ADVERSARIAL: weight})


def _train_discriminator(
    spec: Spec, frozen: Frozen, state: LearnerState, replay: adversary.Replay
) -> tuple[Params, optim.OptimizerState, Metrics]:
    """`steps_per_update` gradient steps on equally many generated and real songs of the latest rollouts."""
    config, optimizer_config = spec.config.discriminator, spec.config.discriminator_optimizer
    slots, rows, frames = replay.generated.shape
    generated, real = (x.reshape(slots * rows, frames) for x in (replay.generated, replay.real))
    order_key, dropout_key = jax.random.split(_stream(state, "discriminator"))
    order = replay.draw_order(order_key)
    is_frozen = config.encoder == "frozen"
    embedded = [judges.embedded(spec, frozen, songs) for songs in (real, generated)] if is_frozen else None
    total_updates = spec.config.steps * config.steps_per_update

    def loss(params: Params, songs: tuple[Any, ...]) -> tuple[masked.Ratio, dict[str, masked.Ratio]]:
        songs_real, songs_generated, places, embeddings = songs
        if embeddings is None:
            tokens = adversary.shown_tokens(config, jnp.concatenate([songs_real, songs_generated]))
            keys = prng.per_example(dropout_key, jnp.concatenate([2 * places, 2 * places + 1]))
            logits = spec.models.discriminator(params, tokens, keys)
        else:
            logits = spec.models.discriminator.method(params, "logit", jnp.concatenate(embeddings))
        real_logits, generated_logits = jnp.split(logits, 2)
        is_song = (songs_real[:, 0] != PAD).astype(jnp.float32)
        loss_of = adversary.LOSSES[config.loss]
        return loss_of(real_logits, generated_logits, is_song, config.label_smoothing), {}

    def gradient_step(carry: tuple[Any, Any], number: jax.Array) -> tuple[tuple[Any, Any], Any]:
        params, optimizer = carry
        places = number * config.minibatch_size + jnp.arange(config.minibatch_size)
        chosen = order[places % (replay.filled * rows)]
        pairs = real[chosen], generated[chosen]
        if config.repaired:
            repairing_key = jax.random.fold_in(_stream(state, "negatives"), number)
            pairs = adversary.repaired(repairing_key, *pairs, config.repaired)
        songs = *pairs, places, embedded and [embeddings[chosen] for embeddings in embedded]
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


def _keep_discriminator(state: LearnerState, replay: adversary.Replay) -> tuple[Params, optim.OptimizerState, Metrics]:
    metrics = {"discriminator/loss": jnp.float32(jnp.nan), "discriminator/skipped": jnp.float32(0)}
    return state.discriminator, state.discriminator_optimizer, metrics


def _stream(state: LearnerState, name: str) -> jax.Array:
    return prng.stream(jax.random.wrap_key_data(state.key), state.step, name)


def _anchor_model(spec: Spec) -> Model:
    return spec.models.policy if spec.config.anchor == "online" else spec.models.anchor


def _anchor_states(spec: Spec, anchor: Params, played: Trajectory) -> jax.Array:
    """[B, T, D]: from entry t the anchor predicts action t; it is the offline model, which reads the whole context, or
    the supervised policy."""
    if spec.config.anchor == "online":
        return spec.models.policy.method(anchor, "states", interleave(played.actions, played.context)[:, :-1])
    heard = part(played.actions)[:, : played.actions.shape[1]]  # BOS a_1 ... a_{T-1}
    return spec.models.anchor.method(anchor, "states", part(played.context), heard)
