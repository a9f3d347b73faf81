"""Everything that changes during post-training, and how it starts."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax import prng
from gapt_jax.algorithm import optim
from gapt_jax.algorithm.adversary import Replay
from gapt_jax.algorithm.layout import ONE_DEVICE, Layout
from gapt_jax.algorithm.optim import OptimizerState
from gapt_jax.config import AlgorithmConfig, RewardsConfig
from gapt_jax.models import Models
from gapt_jax.task import Task
from gapt_jax.types import Params, pytree

ADVERSARIAL = "adversarial"  # name of the realism term; its weight is λ
# Settings under `algorithm.` that, like the weights of rewards, only `Hyperparameters` carries: no program depends on
# them, see `program`.
TRACED = (
    *("adversarial_weight", "kl_coef", "entropy_coef", "discriminator.gate_threshold"),
    *("policy.learning_rate", "critic.learning_rate", "discriminator_optimizer.learning_rate"),
)
OPTIONAL_TERMS = ("diversity", "entropy")  # reward terms that are computed only where their weight is not 0


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: cheap at every dispatch
class Spec:
    """The static settings of a learner: they are compiled in."""

    models: Models
    config: AlgorithmConfig
    task: Task
    layout: Layout = ONE_DEVICE


@pytree
class Frozen:
    """What never changes: the anchor and the reward models (stacked seeds by name)."""

    anchor: Params  # of the network that `AlgorithmConfig.anchor` names; None where nothing anchors
    rewards: dict[str, Params]


@pytree
class Hyperparameters:
    """Numbers that sweeps change without recompiling; all [] float32."""

    reward_weights: dict[str, jax.Array]  # by term, λ under `ADVERSARIAL`
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
    recent_rewards: jax.Array  # [window] float32: mean -log(1 - D) of the last steps, newest first, NaN = none
    gate_openings: jax.Array  # [] int32
    steps_since_open: jax.Array  # [] int32
    nonfinite_steps: jax.Array  # [] int32: consecutive iterations in which an update of policy or critic was skipped
    replay: Replay
    hyper: Hyperparameters


def state_in(outputs: Any) -> LearnerState | None:
    """The learner's state among the outputs of a phase; None where the phase leaves it as it is."""
    leaves = jax.tree.leaves(outputs, is_leaf=lambda tree: isinstance(tree, LearnerState))
    return next((leaf for leaf in leaves if isinstance(leaf, LearnerState)), None)


def program(config: AlgorithmConfig) -> AlgorithmConfig:
    """The config without the numbers of `TRACED` and the weights of rewards: learners in which it is equal run one
    compiled program, and differ in `hyperparameters` alone."""
    # Where these weights are 0, terms are left out of the program and reward models out of `Frozen`.
    left_out = (*OPTIONAL_TERMS, *config.rewards.MODELS)
    weights: dict[str, Any] = {
        name: float(weight > 0) if name in left_out else 1.0 for name, weight in config.rewards.weights().items()
    }
    rated = {
        name: dataclasses.replace(getattr(config, name), learning_rate=1.0)
        for name in ("policy", "critic", "discriminator_optimizer")
    }
    return dataclasses.replace(
        config,
        adversarial_weight=1.0,
        kl_coef=1.0,
        entropy_coef=1.0,
        discriminator=dataclasses.replace(config.discriminator, gate_threshold=1.0),
        rewards=dataclasses.replace(config.rewards, **weights, coherence_weight=1.0, rules_weight=1.0),
        **rated,
    )


def hyperparameters(config: AlgorithmConfig) -> Hyperparameters:
    as_array = jnp.float32
    weights = _reward_weights(config.rewards) | {ADVERSARIAL: config.adversarial_weight}
    return Hyperparameters(
        reward_weights={name: as_array(weight) for name, weight in weights.items()},
        kl_coef=as_array(config.kl_coef),
        entropy_coef=as_array(config.entropy_coef),
        policy_learning_rate=as_array(config.policy.learning_rate),
        critic_learning_rate=as_array(config.critic.learning_rate),
        discriminator_learning_rate=as_array(config.discriminator_optimizer.learning_rate),
        gate_threshold=as_array(config.discriminator.gate_threshold),
    )


def _reward_weights(config: RewardsConfig) -> dict[str, float]:
    """By term, with the weight of its kind; an optional term of weight 0 adds none to the state."""
    kinds = dict.fromkeys(config.MODELS, config.coherence_weight) | dict.fromkeys(OPTIONAL_TERMS, 1.0)
    weights = {name: x for name, x in config.weights().items() if name not in OPTIONAL_TERMS or x > 0}
    return {name: x * kinds.get(name, config.rules_weight) for name, x in weights.items()}


def init_state(spec: Spec, policy: Params, seed: int, frames: int) -> LearnerState:
    """Policy from its pre-training; critic a copy of it with a fresh scalar head; discriminator from scratch."""
    config, adversary = spec.config, spec.config.discriminator
    key = jax.random.key(seed)
    critic_key, discriminator_key = jax.random.split(prng.stream(key, 0, "init"))
    policy = jax.tree.map(jnp.copy, policy)  # the state is donated; the caller keeps its own
    critic = jax.tree.map(jnp.copy, policy) | {"head": spec.models.critic.init(critic_key)["head"]}
    discriminator = spec.models.discriminator.init(discriminator_key)
    width = 2 * frames if adversary.conditional else frames
    slots = (adversary.buffer_rollouts, config.batch_size, width)
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
