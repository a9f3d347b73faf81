"""Who judges a rollout: the frozen reward models (coherence) and the discriminator (realism)."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from gapt_jax import masked
from gapt_jax.algorithm import adversary, groups, reward_models, rewards
from gapt_jax.algorithm.layout import pad_rows
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec
from gapt_jax.types import Batch, Metrics, Params, Trajectory


def coherence(
    spec: Spec, state: LearnerState, frozen: Frozen, trajectory: Trajectory
) -> tuple[dict[str, jax.Array], Metrics]:
    """Terms [B, T] of the frozen reward models, all on the last frame; the spread of each seed over the songs."""
    config, task, is_diverse = spec.config, spec.task, "diversity" in state.hyper.reward_weights

    def scored(seeds: dict[str, Params], played: Trajectory) -> tuple[dict[str, jax.Array], jax.Array | None]:
        pairs = played.context, played.actions
        scores, embedding = reward_models.scores(task.reward_models, spec.models, seeds, *pairs), None
        if is_diverse:  # by the first seed of the reward model that is the encoder of the published Vendi
            encoder = config.rewards.ENCODER
            first = jax.tree.map(lambda x: x[0], seeds[encoder])
            embedding, _ = reward_models.embed(task.reward_models, spec.models, encoder, first, *pairs)
        return {name: s.T for name, s in scores.items()}, embedding

    scores, embeddings = spec.layout.each_in_chunks(scored, config.minibatch_size, frozen.rewards, trajectory)
    how = config.rewards.ensemble, config.rewards.ensemble_std_weight
    seeds = {name: s.T for name, s in scores.items()}
    if config.rewards.ensemble == "normalised_mean":
        standardised = jax.vmap(rewards.standardised, (0, None))
        seeds = {name: standardised(s, trajectory.is_song()) for name, s in seeds.items()}
    terms = {name: rewards.combine(s, *how) for name, s in seeds.items()}
    if embeddings is not None:
        embeddings = spec.layout.everywhere(embeddings)  # groups do not end where devices do
        terms["diversity"] = groups.log_determinant_gains(embeddings, config.group_size)
    spreads = {
        f"reward_member_std/{name}/{seed}": rewards.spread(s[:, seed], trajectory.is_song())
        for name, s in scores.items()
        for seed in range(s.shape[1])
    }
    return {name: rewards.at_last(value, trajectory.mask) for name, value in terms.items()}, spreads


def realism(
    spec: Spec, state: LearnerState, frozen: Frozen, batch: Batch, trajectory: Trajectory
) -> tuple[jax.Array, Metrics]:
    """The realism term [B, T], on the last frame, and the discriminator's view of rollout and data (no dropout)."""
    config, is_song = spec.config.discriminator, trajectory.is_song()

    def logits_of(params: Params, songs: jax.Array) -> jax.Array:
        return spec.models.discriminator(params, adversary.shown_tokens(config, songs))

    shown = [adversary.shown(config, songs.context, songs.actions) for songs in (trajectory, batch)]
    each, size = spec.layout.each_in_chunks, spec.config.minibatch_size
    if config.encoder == "frozen":
        read = functools.partial(spec.models.discriminator.method, state.discriminator, "logit")
        logits, real_logits = (read(embedded(spec, frozen, songs)) for songs in shown)
    else:
        logits, real_logits = (each(logits_of, size, state.discriminator, songs) for songs in shown)
    found = paid = adversary.REWARD_FORMS[config.reward_form](logits)
    if config.only_valid:  # verifier-gated: no realism pays for an output that cannot be decoded
        paid = jnp.where(spec.task.is_valid(trajectory.actions, trajectory.mask), found, 0.0)
    return rewards.at_last(paid, trajectory.mask), {
        "discriminator/accuracy": adversary.ACCURACIES[config.loss](real_logits, logits, is_song),
        "discriminator/reward_mean": masked.mean(found, is_song),
        "discriminator/fooled": masked.mean(adversary.fooled(logits), is_song),
        "discriminator/reward_std": rewards.spread(found, is_song),
    }


def embedded(spec: Spec, frozen: Frozen, actions: jax.Array) -> jax.Array:
    """[B, T] actions -> [B, D] for a discriminator that learns a head alone: what the frozen encoder makes of them,
    scaled to √D, the length of a stack's output."""
    name, task = spec.config.rewards.ENCODER, spec.task
    first = jax.tree.map(lambda x: x[0], frozen.rewards[name])

    def embed(params: Params, songs: jax.Array) -> jax.Array:
        # The embedding of the context, which is dropped, may be that of anything.
        embedding, _ = reward_models.embed(task.reward_models, spec.models, name, params, songs, songs)
        return math.sqrt(embedding.shape[-1]) * embedding

    rows = pad_rows(actions, spec.layout.devices)
    found = spec.layout.each_in_chunks(embed, spec.config.minibatch_size, first, rows)
    return spec.layout.everywhere(found)[: len(actions)]
