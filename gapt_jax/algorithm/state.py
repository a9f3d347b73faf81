"""Everything that changes during post-training, and how it starts."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gapt_jax import prng
from gapt_jax.algorithm import optim
from gapt_jax.algorithm.adversary import Replay
from gapt_jax.algorithm.layout import ONE_DEVICE, Layout
from gapt_jax.algorithm.optim import OptimizerState
from gapt_jax.config import AlgorithmConfig
from gapt_jax.models import Models
from gapt_jax.types import Params, pytree
from gapt_jax.vocabulary import Vocabulary

ADVERSARIAL = "adversarial"  # name of the realism term; its weight is λ


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: cheap at every dispatch
class Spec:
    """What is static in a learner: it is compiled in."""

    models: Models
    config: AlgorithmConfig
    vocabulary: Vocabulary
    layout: Layout = ONE_DEVICE


@pytree
class Frozen:
    """What never changes: the anchor and the reward models (stacked members by kind)."""

    anchor: Params
    rewards: dict[str, Params]


@pytree
class Hyperparameters:
    """Numbers that sweeps change without recompiling; all [] float32."""

    reward_weights: dict[str, jax.Array]  # λ included, under `ADVERSARIAL`
    kl_coef: jax.Array
    entropy_coef: jax.Array
    policy_learning_rate: jax.Array
    critic_learning_rate: jax.Array
    discriminator_learning_rate: jax.Array
    gate_threshold: jax.Array


@pytree
class LearnerState:
    step: jax.Array  # [] int32: iterations completed
    key: jax.Array  # [2] uint32: raw PRNG key, folded by step and stream, never split in place
    policy: Params
    critic: Params
    discriminator: Params
    policy_optimizer: OptimizerState
    critic_optimizer: OptimizerState
    discriminator_optimizer: OptimizerState
    recent_rewards: jax.Array  # [window] float32: mean adversarial reward of the last steps, newest first, NaN = none
    gate_openings: jax.Array  # [] int32
    steps_since_open: jax.Array  # [] int32
    nonfinite_steps: jax.Array  # [] int32: consecutive iterations in which an update was skipped
    replay: Replay
    hyper: Hyperparameters


def hyperparameters(config: AlgorithmConfig) -> Hyperparameters:
    weights = {k: v for k, v in dataclasses.asdict(config.rewards).items() if k != "ensemble"}
    as_array = jnp.float32
    return Hyperparameters(
        reward_weights={name: as_array(w) for name, w in (weights | {ADVERSARIAL: config.adversarial_weight}).items()},
        kl_coef=as_array(config.kl_coef),
        entropy_coef=as_array(config.entropy_coef),
        policy_learning_rate=as_array(config.policy.learning_rate),
        critic_learning_rate=as_array(config.critic.learning_rate),
        discriminator_learning_rate=as_array(config.discriminator_optimizer.learning_rate),
        gate_threshold=as_array(config.discriminator.gate_threshold),
    )


def init_state(spec: Spec, policy: Params, seed: int, frames: int) -> LearnerState:
    """Policy from its pre-training; critic a copy of it with a fresh scalar head; discriminator from scratch."""
    config, adversary = spec.config, spec.config.discriminator
    key = jax.random.key(seed)
    critic_key, discriminator_key = jax.random.split(prng.stream(key, 0, "init"))
    policy = jax.tree.map(jnp.copy, policy)  # the state is donated; the caller keeps its own
    critic = jax.tree.map(jnp.copy, policy) | {"head": spec.models.critic.init(critic_key)["head"]}
    discriminator = spec.models.discriminator.init(discriminator_key)
    slots = (adversary.buffer_rollouts, config.batch_size, frames)
    return LearnerState(
        step=jnp.int32(0),
        key=jax.random.key_data(key),
        policy=policy,
        critic=critic,
        discriminator=discriminator,
        policy_optimizer=optim.init(config.policy, policy),
        critic_optimizer=optim.init(config.critic, critic),
        discriminator_optimizer=optim.init(config.discriminator_optimizer, discriminator),
        recent_rewards=jnp.full((adversary.gate_window,), jnp.nan, jnp.float32),
        gate_openings=jnp.int32(0),
        steps_since_open=jnp.int32(0),
        nonfinite_steps=jnp.int32(0),
        replay=Replay(jnp.zeros(slots, jnp.int32), jnp.zeros(slots, jnp.int32), jnp.int32(0)),
        hyper=hyperparameters(config),
    )
