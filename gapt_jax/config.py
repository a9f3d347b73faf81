"""Configuration: frozen dataclasses, one per subsystem; strict overrides; JSON both ways; a hash.

An experiment is a function that returns an `Experiment`. Defaults are the published GAPT settings (method.md §2-4).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gapt_jax.errors import UserError


class ConfigError(UserError):
    """A configuration that cannot be used; the message says what to change."""


@dataclass(frozen=True)
class TransformerConfig:
    """One transformer stack (reference.md §2.1)."""

    dim: int = 512
    depth: int = 8
    heads: int = 8
    head_dim: int = 64
    ff_mult: int = 4  # inner width of the SwiGLU block over `dim`
    dropout: float = 0.1  # attention weights and feed-forward, in supervised training and for the discriminator


@dataclass(frozen=True)
class ModelsConfig:
    policy: TransformerConfig = TransformerConfig()
    anchor: TransformerConfig = TransformerConfig()  # depth counts for encoder and decoder each
    reward: TransformerConfig = TransformerConfig(depth=6, heads=6)  # all four kinds of reward model
    discriminator: TransformerConfig = TransformerConfig()
    compute_dtype: str = "float32"  # of matmuls inside the stacks; "bfloat16" on accelerators
    remat: bool = False  # recompute each block in the backward pass instead of keeping its activations


@dataclass(frozen=True)
class DataConfig:
    songs: str = "grammar"  # folder of *.jsonl.gz files, or "grammar" for the built-in generator
    mixture: tuple[tuple[str, float], ...] = (("grammar", 1.0),)  # training sets and their weights
    out_of_domain: tuple[str, ...] = ("grammar_modal",)  # evaluated, never trained on
    max_frames: int = 256  # T, sixteenth notes; longer songs are cropped on a beat
    chord_coverage: float = 0.999  # share of the training chords whose interval set gets its own tokens
    transpose: bool = True  # uniformly -6..+6 semitones, training only
    part: str = "chords"  # what the policy plays; "melody" makes the agent of method.md §5, which hears chords


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with global-norm clipping; linear warm-up, then cosine to `final_fraction` of the peak."""

    learning_rate: float = 1e-4
    warmup_steps: int = 0
    final_fraction: float = 1.0  # 1 keeps the rate constant after warm-up
    b1: float = 0.9
    b2: float = 0.999
    clip_norm: float = 1.0


@dataclass(frozen=True)
class FitConfig:
    """One supervised stage."""

    steps: int = 11_000
    batch_size: int = 64
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclass(frozen=True)
class PretrainConfig:
    """Supervised stages (reference.md §3). `members` seeds of each reward model are fitted together; `held_out` more
    contrastive ones are never shown to any policy and serve as the independent encoder of the evaluation."""

    seed: int = 0
    policy: FitConfig = FitConfig(steps=11_000)
    anchor: FitConfig = FitConfig(steps=13_000)
    contrastive: FitConfig = FitConfig(steps=8_000, batch_size=196)
    discriminative: FitConfig = FitConfig(steps=3_000, batch_size=128)
    rhythm_contrastive: FitConfig = FitConfig(steps=2_500, batch_size=196)
    rhythm_discriminative: FitConfig = FitConfig(steps=3_000, batch_size=64)
    members: int = 2
    held_out: int = 1


@dataclass(frozen=True)
class RewardsConfig:
    """Weights of the reward terms. A learned kind's members are combined by `ensemble`, then weighted."""

    contrastive: float = 1.0
    discriminative: float = 1.0
    rhythm_contrastive: float = 1.0
    rhythm_discriminative: float = 1.0
    early_stop: float = 1.0
    invalid: float = 1.0
    silence: float = 1.0
    long_note: float = 0.0
    repetition: float = 1.0
    diversity: float = 0.0  # what a song adds to the log-determinant of its group (groups.py); needs group_size > 1
    entropy: float = 0.0  # of the policy at each frame: entropy then weighs kl_coef + this, cross-entropy kl_coef
    ensemble: str = "sum"  # sum (released code), mean (paper's text), min, mean_minus_std
    ensemble_std_weight: float = 1.0  # k of mean - k std


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The adversary and its gate (method.md §4)."""

    conditional: bool = False  # D(c|m): it sees melody and chords; published: D(c), chords alone
    loss: str = "two_class"  # or relativistic (Bradley-Terry on pairs), which is paid by reward_form "logit"
    reward_form: str = "neg_log_one_minus"  # see adversary.REWARD_FORMS
    only_valid: bool = False  # nothing is paid for realism where the output breaks a rule of validity
    label_smoothing: float = 0.1  # two-class sense: targets 0.95 / 0.05
    gate: str = "two_phase"  # when it learns: two_phase (published), frozen after phase 1, fixed_period, every_step
    gate_window: int = 3  # completed steps whose mean -log(1 - D) is compared with the threshold
    gate_threshold: float = 1.0  # of -log(1 - D), whatever the reward form
    gate_warmup_steps: int = 200  # phase 1
    gate_period: int = 5
    steps_per_update: int = 8  # gradient steps each time the gate is open
    minibatch_size: int = 48  # generated songs (and as many real ones) per gradient step
    buffer_rollouts: int = 1  # generated and real songs are drawn from this many latest rollouts
    schedule_follows_updates: bool = True  # released behaviour: the rate advances with its own updates only


@dataclass(frozen=True)
class AlgorithmConfig:
    """Post-training by PPO with a co-trained discriminator (method.md §3)."""

    adversarial_weight: float = 1.0  # λ
    steps: int = 1_000
    batch_size: int = 384
    minibatch_size: int = 48
    epochs: int = 1
    discount: float = 1.0
    gae_lambda: float = 0.95
    clip_epsilon: float = 0.2
    advantages: str = "gae"  # gae with a critic (published), or baselines of a group instead: grpo, rloo
    group_size: int = 1  # rollouts of each melody; a batch then holds so many times fewer melodies
    anchor: str = "offline"  # what the KL is to: offline (published), online (the MLE policy itself), none
    kl_coef: float = 0.001  # β
    entropy_coef: float = 0.01  # η
    validity_mask: bool = False  # policy, log-probabilities, KL and entropy over the valid tokens only
    policy: OptimizerConfig = OptimizerConfig(5e-6, 800, 0.1, 0.9, 0.95)
    critic: OptimizerConfig = OptimizerConfig(9e-5, 800, 0.1, 0.9, 0.95)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(9e-5, 800, 0.1, 0.9, 0.95)
    rewards: RewardsConfig = RewardsConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation; crops are fixed by the song's id, n is equal for all systems of a dataset."""

    songs: int = 512  # at most this many per dataset
    batch_size: int = 128
    sampling: str = "unfiltered"  # T = 1; "masked" restricts it to valid tokens
    seed: int = 0
    every: int = 100  # post-training steps between evaluations on the valid split
    monitor_songs: int = 128  # songs of those evaluations
    same_melody_songs: int = 8  # melodies that are played 16 times each; 0 = none
    adaptation_songs: int = 128  # songs that are played again with a change of key; 0 = none
    post_hoc_steps: int = 64  # gradient steps of the discriminator fitted after the fact; 0 = none


@dataclass(frozen=True)
class MeshConfig:
    """How the devices of a slice are arranged; the slice axis itself comes from the devices."""

    data: int = 0  # songs are spread over data × fsdp; 0 = all devices that fsdp and tensor leave
    fsdp: int = 1  # parameters and optimiser are spread as well
    tensor: int = 1  # heads and inner widths are split


@dataclass(frozen=True)
class RuntimeConfig:
    """How it is computed, not what: none of this makes another run."""

    mesh: MeshConfig = MeshConfig()
    microbatch_rows: int = 0  # songs per device and gradient computation of MLE, PPO, discriminator; 0 = all at once
    checkpoint_every: int = 100  # post-training steps
    stage_checkpoint_every: int = 1_000  # steps of the supervised stages
    keep_checkpoints: int = 2  # newest
    keep_every: int = 0  # checkpoints of every such step stay for good; 0 = none
    keep_best: int = 1  # of the checkpoints at evaluated steps, those with the best valid/held_out_coherence stay
    max_nonfinite_steps: int = 3  # consecutive skipped steps before the run stops
    hang_minutes: float = 30.0  # without a step for so long, all stacks are printed


@dataclass(frozen=True)
class AlarmActions:
    """What each alarm does: log it, keep this step's checkpoint for good as well, or save and stop the run."""

    reward_hacking: str = "keep"
    beyond_data: str = "keep"
    low_diversity: str = "keep"
    saturated_discriminator: str = "log"
    few_progressions: str = "log"
    ignores_melody: str = "log"
    silence: str = "log"
    kl_budget: str = "log"
    ratio: str = "stop"  # the gradients are those of another policy
    dead_member: str = "log"


@dataclass(frozen=True)
class RatioLimit:
    """The most |ratio - 1| before any update, over the actions of a rollout."""

    mean: float
    high: float  # that one action of 1,000 exceeds


@dataclass(frozen=True)
class RatioLimits:
    """By `models.compute_dtype`: what rounding alone makes is in docs/health.md."""

    float32: RatioLimit = RatioLimit(1e-3, 1e-2)
    bfloat16: RatioLimit = RatioLimit(2e-2, 1e-1)


@dataclass(frozen=True)
class HealthConfig:
    """Limits of the alarms (docs/health.md). None of this changes a number of the run."""

    slow_evaluations: int = 4  # in a row, before hacking, lost diversity or a saturated discriminator raise the alarm
    fast_evaluations: int = 2  # in a row, before a reward beyond the data's, looping, silence or a melody ignored do
    steps: int = 5  # in a row, before the KL budget, the ratio or a dead reward member do
    proxy_rise: float = 0.1  # of the learned reward, relative to the start
    gold_drop: float = 0.05  # of held-out coherence (a cosine) from its best so far
    hacking_diversity: float = 0.75  # Vendi relative to the first policy's, while the learned reward is up
    min_diversity: float = 0.7  # Vendi relative to the first policy's
    min_progressions: float = 0.5  # unique progressions relative to the first policy's
    min_melody_ratio: float = 1.05  # note-in-chord relative to chance
    max_added_silence: float = 0.2  # share of melody frames without a chord, above the first policy's
    max_accuracy: float = 0.97  # of the discriminator, where λ > 0
    max_kl: float = 2.0  # nats a frame
    ratio_limits: RatioLimits = RatioLimits()
    min_member_std: float = 1e-4  # spread of a reward member's scores over the songs of a rollout
    actions: AlarmActions = AlarmActions()


@dataclass(frozen=True)
class Experiment:
    name: str = "gapt"
    arm: str = ""  # how results name the post-trained system; empty = by its λ
    seed: int = 0  # of post-training; pretrain.seed is the upstream one
    data: DataConfig = field(default_factory=DataConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    health: HealthConfig = field(default_factory=HealthConfig)


def arm_name(experiment: Experiment) -> str:
    """The post-trained system in results: ``gapt_lambda=1``, or what an ablation calls this arm."""
    return experiment.arm or f"gapt_lambda={experiment.algorithm.adversarial_weight:g}"


def to_dict(config: Any) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def to_json(config: Any) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def config_hash(*parts: Any) -> str:
    """Twelve hex digits that change with any field of any part (dataclasses or JSON values)."""
    plain = [dataclasses.asdict(p) if dataclasses.is_dataclass(p) and not isinstance(p, type) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


# Settings that configs of earlier versions hold; none of them is part of what a run computes.
RETIRED = ("health.max_ratio_deviation",)


def from_dict(cls: type, data: Any, path: str = "") -> Any:
    """Builds a config from plain data; unknown keys and values of the wrong type are errors that name the field."""
    if not isinstance(data, dict):
        raise ConfigError(f"{path or 'config'} must be a table of settings, not {data!r}")
    hints = typing.get_type_hints(cls)
    data = {key: value for key, value in data.items() if _join(path, key) not in RETIRED}
    for key in data:
        if key not in hints:
            raise ConfigError(f"unknown setting '{_join(path, key)}'{did_you_mean(key, hints)}")
    return cls(**{key: _convert(hints[key], value, _join(path, key)) for key, value in data.items()})


def override(experiment: Experiment, assignments: Iterable[str]) -> Experiment:
    """Applies ``path.to.field=value`` assignments; values are JSON, bare words are strings."""
    data = to_dict(experiment)
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"'{assignment}' is not of the form path=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        _assign(Experiment, data, path.strip(), value)
    return validate(from_dict(Experiment, data))


def _assign(cls: type, data: dict[str, Any], path: str, value: Any) -> None:
    node, keys, current = data, path.split("."), cls
    for depth, key in enumerate(keys):
        hints = typing.get_type_hints(current) if dataclasses.is_dataclass(current) else {}
        if key not in hints:
            raise ConfigError(f"unknown setting '{path}'{did_you_mean(path, _all_paths(cls))}")
        if depth < len(keys) - 1:
            node, current = node[key], hints[key]
    node[keys[-1]] = value


def _all_paths(cls: Any, prefix: str = "") -> list[str]:
    paths: list[str] = []
    for key, hint in typing.get_type_hints(cls).items():
        path = _join(prefix, key)
        paths += _all_paths(hint, path) if dataclasses.is_dataclass(hint) else [path]
    return paths


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, path)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(next(a for a in args if a is not type(None)), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} must be a list, not {value!r}")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], item, path) for item in value)
        if len(value) != len(args):
            raise ConfigError(f"{path} must have {len(args)} entries, not {value!r}")
        return tuple(_convert(a, item, path) for a, item in zip(args, value, strict=True))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is float and not math.isfinite(value):
        raise ConfigError(f"{path} must be a finite number, not {value}")
    if type(value) is not hint:
        raise ConfigError(f"{path} must be {'a number' if hint is float else hint.__name__}, not {value!r}")
    return value


_AT_LEAST_ONE = (
    *(f"algorithm.{name}" for name in ("steps", "batch_size", "minibatch_size", "epochs", "group_size")),
    *(f"algorithm.discriminator.{name}" for name in ("gate_window", "gate_period", "steps_per_update")),
    *(f"algorithm.discriminator.{name}" for name in ("minibatch_size", "buffer_rollouts")),
    *(f"evaluation.{name}" for name in ("songs", "batch_size", "every", "monitor_songs")),
    *(f"runtime.{name}" for name in ("checkpoint_every", "stage_checkpoint_every", "keep_checkpoints")),
    *("runtime.max_nonfinite_steps", "pretrain.members", "data.max_frames"),
    *("runtime.mesh.fsdp", "runtime.mesh.tensor"),
    *(f"health.{name}" for name in ("slow_evaluations", "fast_evaluations", "steps")),
    *(f"models.{net}.{size}" for net in ("policy", "anchor", "reward", "discriminator") for size in ("dim", "depth")),
    *(
        f"models.{net}.{size}"
        for net in ("policy", "anchor", "reward", "discriminator")
        for size in ("heads", "ff_mult")
    ),
    *(
        f"pretrain.{stage}.{name}"
        for stage in (
            "policy",
            "anchor",
            "contrastive",
            "discriminative",
            "rhythm_contrastive",
            "rhythm_discriminative",
        )
        for name in ("steps", "batch_size")
    ),
)
_NOT_NEGATIVE = (
    *("pretrain.held_out", "runtime.mesh.data"),
    *(f"evaluation.{name}" for name in ("same_melody_songs", "adaptation_songs", "post_hoc_steps")),
    *(f"runtime.{name}" for name in ("microbatch_rows", "keep_every", "keep_best")),
)
_CHOICES = {
    "algorithm.discriminator.reward_form": (
        "neg_log_one_minus", "log", "logit", "probability", "sigmoid_shaped", "clipped",
    ),
    "algorithm.advantages": ("gae", "grpo", "rloo"),
    "algorithm.anchor": ("offline", "online", "none"),
    "algorithm.discriminator.gate": ("two_phase", "fixed_period", "every_step", "frozen"),
    "algorithm.discriminator.loss": ("two_class", "relativistic"),
    "algorithm.rewards.ensemble": ("sum", "mean", "min", "mean_minus_std"),
    "data.part": ("chords", "melody"),
    "evaluation.sampling": ("unfiltered", "masked"),
    "models.compute_dtype": ("float32", "bfloat16"),
    **{f"health.actions.{alarm.name}": ("log", "keep", "stop") for alarm in dataclasses.fields(AlarmActions)},
}  # fmt: skip


def _value_at(experiment: Experiment, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), experiment)


def validate(experiment: Experiment) -> Experiment:
    """Checks what the types cannot say."""
    for path in _AT_LEAST_ONE:
        if _value_at(experiment, path) < 1:
            raise ConfigError(f"{path} must be at least 1, not {_value_at(experiment, path)}")
    for path, choices in _CHOICES.items():
        if _value_at(experiment, path) not in choices:
            raise ConfigError(f"{path} must be one of {', '.join(choices)}, not '{_value_at(experiment, path)}'")
    algorithm, data, adversary = experiment.algorithm, experiment.data, experiment.algorithm.discriminator
    for name, weight in vars(algorithm.rewards).items():
        if name != "ensemble" and weight < 0:
            raise ConfigError(
                f"algorithm.rewards.{name} must be 0 or more, not {weight}: penalties are negative already"
            )
    for path in _NOT_NEGATIVE:
        if _value_at(experiment, path) < 0:
            raise ConfigError(f"{path} must be 0 or more, not {_value_at(experiment, path)}")
    for name, limit in vars(experiment.health).items():
        if isinstance(limit, float) and limit < 0:
            raise ConfigError(f"health.{name} must be 0 or more, not {limit}")
    if experiment.runtime.hang_minutes <= 0:
        raise ConfigError(f"runtime.hang_minutes must be more than 0, not {experiment.runtime.hang_minutes}")
    for name, network in vars(experiment.models).items():
        if isinstance(network, TransformerConfig):
            if not 0 <= network.dropout < 1:
                raise ConfigError(f"models.{name}.dropout must be in [0, 1), not {network.dropout}")
            if network.head_dim < 4 or network.head_dim % 4:
                raise ConfigError(f"models.{name}.head_dim must be a multiple of 4, not {network.head_dim}")
    if algorithm.batch_size % algorithm.minibatch_size:
        raise ConfigError(
            f"algorithm.batch_size ({algorithm.batch_size}) must be a multiple of "
            f"algorithm.minibatch_size ({algorithm.minibatch_size})"
        )
    if adversary.minibatch_size > algorithm.batch_size * adversary.buffer_rollouts:
        raise ConfigError("algorithm.discriminator.minibatch_size is larger than the rollouts it is drawn from")
    _check_options(algorithm)
    if data.max_frames % 4:
        raise ConfigError(f"data.max_frames must be a multiple of 4 (whole beats), not {data.max_frames}")
    if not data.mixture or any(weight <= 0 for _, weight in data.mixture):
        raise ConfigError("data.mixture must name at least one dataset, each with a positive weight")
    if not 0 < data.chord_coverage <= 1:
        raise ConfigError(f"data.chord_coverage must be in (0, 1], not {data.chord_coverage}")
    return experiment


def _check_options(algorithm: AlgorithmConfig) -> None:
    """Settings of post-training that do not go together."""
    adversary, weights, size = algorithm.discriminator, algorithm.rewards, algorithm.group_size
    by_group = algorithm.advantages != "gae"
    if algorithm.batch_size % size:
        raise ConfigError(f"algorithm.group_size must divide algorithm.batch_size ({algorithm.batch_size}), not {size}")
    if size == 1 and (by_group or weights.diversity):
        raise ConfigError(
            f"algorithm.group_size must be 2 or more for {algorithm.advantages if by_group else 'rewards.diversity'}"
        )
    if by_group and algorithm.discount != 1:
        raise ConfigError(f"algorithm.discount must be 1 for {algorithm.advantages}: it rates whole songs")
    if weights.diversity and not weights.contrastive:
        raise ConfigError(
            "algorithm.rewards.contrastive must be more than 0 for rewards.diversity: it embeds the songs"
        )
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
