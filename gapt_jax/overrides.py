"""Changes settings of an experiment, and checks that all of them go together."""

from __future__ import annotations

from collections.abc import Iterable

from gapt_jax.config import RESERVED_ARMS, AlgorithmConfig, Experiment
from gapt_jax.settings import ConfigError, assigned


def override(experiment: Experiment, assignments: Iterable[str]) -> Experiment:
    """Applies ``path.to.field=value`` assignments (`settings.assigned`) and checks the whole."""
    return validate(assigned(experiment, assignments))


def validate(experiment: Experiment) -> Experiment:
    """Checks what goes beyond one field: settings that do not go together."""
    algorithm, data, adversary = experiment.algorithm, experiment.data, experiment.algorithm.discriminator
    if algorithm.batch_size % algorithm.minibatch_size:
        raise ConfigError(
            f"algorithm.batch_size ({algorithm.batch_size}) must be a multiple of "
            f"algorithm.minibatch_size ({algorithm.minibatch_size})"
        )
    if adversary.minibatch_size > algorithm.batch_size * adversary.buffer_rollouts:
        raise ConfigError("algorithm.discriminator.minibatch_size is larger than the rollouts it is drawn from")
    if algorithm.rewards.ENCODER not in algorithm.rewards.MODELS:
        raise ConfigError("a task's RewardsConfig must name one of its MODELS as ENCODER: it embeds the songs")
    _check_options(algorithm)
    _check_discriminator(algorithm)
    if adversary.encoder == "frozen" and experiment.models.discriminator.dim != experiment.models.reward.dim:
        raise ConfigError(
            f"models.discriminator.dim must be models.reward.dim ({experiment.models.reward.dim}) for "
            "discriminator.encoder=frozen: its head reads the embeddings of a reward model"
        )
    if not data.mixture:
        raise ConfigError("data.mixture must name at least one dataset")
    if len({name for name, _ in data.mixture}) < len(data.mixture):
        raise ConfigError("data.mixture names a dataset twice: give each dataset one weight")
    for name in algorithm.rewards.MODELS:
        if getattr(experiment.pretrain, name).batch_size < 2:
            raise ConfigError(f"pretrain.{name}.batch_size must be at least 2: each song is compared with another one")
    if experiment.arm in RESERVED_ARMS:
        raise ConfigError(f"arm must not be '{experiment.arm}': results name another system so")
    return experiment


def _check_options(algorithm: AlgorithmConfig) -> None:
    """Settings of post-training that do not go together."""
    weights, size = algorithm.rewards, algorithm.group_size
    by_group = algorithm.advantages != "gae"
    if algorithm.batch_size % size:
        raise ConfigError(f"algorithm.group_size must divide algorithm.batch_size ({algorithm.batch_size}), not {size}")
    if size == 1 and (by_group or weights.diversity):
        raise ConfigError(
            f"algorithm.group_size must be 2 or more for {algorithm.advantages if by_group else 'rewards.diversity'}"
        )
    if algorithm.critic_warmup_steps and by_group:
        raise ConfigError(
            f"algorithm.advantages must be gae for critic_warmup_steps: with {algorithm.advantages} no critic learns"
        )
    if algorithm.critic_warmup_steps >= algorithm.steps:
        raise ConfigError(
            f"algorithm.critic_warmup_steps must be less than algorithm.steps ({algorithm.steps}): the policy would "
            "never learn"
        )
    if by_group and algorithm.discount != 1:
        raise ConfigError(f"algorithm.discount must be 1 for {algorithm.advantages}: it rates whole songs")
    if weights.diversity and not getattr(weights, weights.ENCODER):
        raise ConfigError(
            f"algorithm.rewards.{weights.ENCODER} must be more than 0 for rewards.diversity: it embeds the songs"
        )
    if algorithm.adversarial_target and not algorithm.adversarial_weight:
        raise ConfigError(
            "algorithm.adversarial_weight must be more than 0 for adversarial_target: λ grows from it by factors"
        )


def _check_discriminator(algorithm: AlgorithmConfig) -> None:
    """Settings of the discriminator that do not go together, or not with the rewards."""
    adversary, weights = algorithm.discriminator, algorithm.rewards
    if adversary.screened and algorithm.advantages != "gae":
        raise ConfigError(
            f"algorithm.advantages must be gae for discriminator.screened: {algorithm.advantages} compares a song with "
            "all of its group"
        )
    if adversary.encoder == "frozen" and adversary.conditional:
        raise ConfigError(
            "algorithm.discriminator.conditional must be false for encoder=frozen: it embeds actions alone"
        )
    if adversary.encoder == "frozen" and not getattr(weights, weights.ENCODER):
        raise ConfigError(
            f"algorithm.rewards.{weights.ENCODER} must be more than 0 for discriminator.encoder=frozen: it embeds"
        )
    if adversary.repaired and not adversary.conditional:
        raise ConfigError("algorithm.discriminator.conditional must be true for repaired: D(a) sees no context")
    if adversary.repaired and adversary.minibatch_size < 2:
        raise ConfigError("algorithm.discriminator.minibatch_size must be at least 2 for repaired: partners are of it")
    paid_from_zero = ("neg_log_one_minus", "probability", "clipped")
    if adversary.only_valid and adversary.reward_form not in paid_from_zero:
        raise ConfigError(
            f"algorithm.discriminator.reward_form must be one of {', '.join(paid_from_zero)} for only_valid: of "
            f"{adversary.reward_form} nothing is no less than the rest"
        )
    if adversary.loss == "relativistic" and (
        adversary.reward_form != "logit" or adversary.gate not in ("fixed_period", "every_step")
    ):
        raise ConfigError(
            "algorithm.discriminator.loss relativistic needs reward_form logit and gate fixed_period or every_step: "
            "its logits have no zero that a threshold could be compared with"
        )
