"""Configuration: frozen dataclasses, one per subsystem; JSON both ways; a hash.

An experiment is a function that returns an `Experiment` of its task, such as `tasks.accompaniment.config.Experiment`:
a task adds its own settings to the classes here by subclasses. Defaults are the published settings (docs/method.md
§8.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from gapt_jax.settings import (
    ConfigError,
    Limits,
    Matching,
    config_hash,
    did_you_mean,
    from_dict,
    to_dict,
    to_json,
)

if TYPE_CHECKING:
    from gapt_jax.task import Domain

__all__ = ["ConfigError", "Experiment", "arm_name", "config_hash", "did_you_mean", "from_dict", "to_dict", "to_json"]

MOST = 2**31 - 1  # steps, songs and seeds are int32 in compiled programs
Count = Annotated[int, Limits(least=1, most=MOST)]
CountOrNone = Annotated[int, Limits(least=0, most=MOST)]
Seed = Annotated[int, Limits(least=0, most=MOST)]
Fours = Annotated[int, Limits(least=4, most=MOST, multiple_of=4)]
Positive = Annotated[float, Limits(above=0)]
NotNegative = Annotated[float, Limits(least=0)]
Share = Annotated[float, Limits(least=0, most=1)]
PositiveShare = Annotated[float, Limits(above=0, most=1)]
BelowOne = Annotated[float, Limits(least=0, below=1)]
_PLAIN = r"[^./\\\s\0-\x1f][^/\\\0-\x1f]{0,99}"
FolderName = Annotated[str, Matching(_PLAIN, "a plain folder name: no slash, no dot first, 1 to 100 characters")]
ArmName = Annotated[str, Matching(f"({_PLAIN})?", "empty, or plain: no slash, no dot first, up to 100 characters")]
FolderPath = Annotated[str, Matching(r"[^\0]*[^\0\s][^\0]*", "a folder, or the word grammar")]
Dtype = Literal["float32", "bfloat16"]
RewardForm = Literal["neg_log_one_minus", "log", "logit", "probability", "sigmoid_shaped", "clipped"]
Sampling = Literal["unfiltered", "masked"]
Action = Literal["log", "keep", "stop"]
RESERVED_ARMS = ("data", "mle")  # systems that every result has
FIRST_TASK = "accompaniment"  # that of a config.json which names none


@dataclass(frozen=True)
class TransformerConfig:
    """One transformer stack (docs/method.md §2.1)."""

    dim: Count = 512
    depth: Count = 8
    heads: Count = 8
    head_dim: Fours = 64
    ff_mult: Count = 4  # inner width of the SwiGLU block over `dim`
    dropout: BelowOne = 0.1  # attention weights and feed-forward, in supervised training and for the discriminator


@dataclass(frozen=True)
class ModelsConfig:
    policy: TransformerConfig = TransformerConfig()
    anchor: TransformerConfig = TransformerConfig()  # depth counts for encoder and decoder each
    reward: TransformerConfig = TransformerConfig(depth=6, heads=6)  # all reward models
    discriminator: TransformerConfig = TransformerConfig()
    compute_dtype: Dtype = "float32"  # of matmuls inside the stacks; "bfloat16" on accelerators
    remat: bool = False  # recompute each block in the backward pass instead of keeping its activations
    # fused: in full passes by a kernel that never writes the scores to memory (models/fused.py).
    attention: Literal["xla", "fused"] = "xla"


@dataclass(frozen=True)
class DataConfig:
    """Which examples; a task says how they become tokens."""

    BESIDE: ClassVar[tuple[str, ...]] = ("songs", "out_of_domain")  # settings that no reward model depends on

    songs: FolderPath = "songs"  # the folder of the data
    mixture: tuple[tuple[str, Positive], ...] = (("all", 1.0),)  # training sets and their weights
    out_of_domain: tuple[str, ...] = ()  # evaluated, never trained on
    max_frames: Fours = 256  # T; longer examples are cropped


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with global-norm clipping; linear warm-up, then cosine to `final_fraction` of the peak."""

    learning_rate: Positive = 1e-4
    warmup_steps: CountOrNone = 0
    final_fraction: Share = 1.0  # 1 keeps the rate constant after warm-up
    b1: BelowOne = 0.9
    b2: BelowOne = 0.999
    clip_norm: Positive = 1.0


@dataclass(frozen=True)
class FitConfig:
    """One supervised stage."""

    steps: Count = 11_000
    batch_size: Count = 64
    optimizer: OptimizerConfig = OptimizerConfig()


@dataclass(frozen=True)
class PretrainConfig:
    """Supervised stages (docs/method.md §3); a task adds a `FitConfig` for each of its reward models, by its name.

    `members` seeds of each reward model train together; `held_out` more of the one that embeds reward no policy: the
    first is the independent encoder of the evaluation."""

    seed: Seed = 0
    policy: FitConfig = FitConfig(steps=11_000)
    anchor: FitConfig = FitConfig(steps=13_000)
    members: Count = 2
    held_out: CountOrNone = 1


@dataclass(frozen=True)
class RewardsConfig:
    """Weights of the reward terms; a task adds those of its reward models and rules, by their names.

    A reward model's seeds are combined by `ensemble`, then weighted."""

    MODELS: ClassVar[tuple[str, ...]] = ()  # the terms that are scores of reward models
    ENCODER: ClassVar[str] = ""  # the reward model whose embeddings measure diversity

    # What a song adds to the log-determinant of its group (groups.py); needs group_size > 1.
    diversity: NotNegative = 0.0
    entropy: NotNegative = 0.0  # of the policy at each frame: entropy then weighs kl_coef + this, cross-entropy kl_coef
    # In the released code sum, in the paper's text normalised_mean: of what each seed gives, over the rollout.
    ensemble: Literal["sum", "mean", "min", "mean_minus_std", "normalised_mean"] = "sum"
    ensemble_std_weight: NotNegative = 1.0  # k of mean - k std
    # rollout: before its weight each term has mean 0 and deviation 1 over the songs of a rollout.
    normalised: Literal["none", "rollout"] = "none"
    # Times the weights of all reward models, and of all rules: a and b of the paper's Table 7, where c is λ.
    coherence_weight: Positive = 1.0
    rules_weight: NotNegative = 1.0

    def weights(self) -> dict[str, float]:
        """By term."""
        others = ("ensemble", "ensemble_std_weight", "normalised", "coherence_weight", "rules_weight")
        return {name: x for name, x in vars(self).items() if name not in others}

    def fitted(self) -> tuple[str, ...]:
        """The reward models that a run needs: those with a weight, and the encoder, by which it is evaluated."""
        return tuple(name for name in self.MODELS if name == self.ENCODER or getattr(self, name) > 0)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The adversary and its gate (docs/method.md §7)."""

    conditional: bool = False  # D(a|c): it sees actions and context; published: D(a), actions alone
    # frozen: only its head learns, on what the first seed of the reward model that embeds makes of the actions.
    encoder: Literal["own", "frozen"] = "own"
    repaired: Share = 0.0  # this share of its generated songs is replaced by contexts and actions of two songs of data
    # relativistic: Bradley-Terry on pairs, which is paid by reward_form "logit".
    loss: Literal["two_class", "relativistic"] = "two_class"
    reward_form: RewardForm = "neg_log_one_minus"  # of the logit: adversary.REWARD_FORMS
    only_valid: bool = False  # nothing is paid for realism where the output breaks a rule of validity
    screened: BelowOne = 0.0  # this share of the songs of a rollout, of the least realism, teaches the policy nothing
    label_smoothing: BelowOne = 0.1  # two-class sense: targets 0.95 / 0.05
    # When it learns; published: two_phase. frozen: not after phase 1.
    gate: Literal["two_phase", "frozen", "fixed_period", "every_step"] = "two_phase"
    gate_window: Count = 3  # completed steps whose mean -log(1 - D) is compared with the threshold
    gate_threshold: float = 1.0  # of -log(1 - D), whatever the reward form
    gate_warmup_steps: CountOrNone = 200  # phase 1
    gate_period: Count = 5
    steps_per_update: Count = 8  # gradient steps each time the gate is open
    minibatch_size: Count = 48  # generated songs (and as many real ones) per gradient step
    buffer_rollouts: Count = 1  # generated and real songs are drawn from this many latest rollouts
    schedule_follows_updates: bool = True  # released behaviour: the rate advances with its own updates only


@dataclass(frozen=True)
class AlgorithmConfig:
    """Post-training by PPO with a co-trained discriminator (docs/method.md §4-8)."""

    adversarial_weight: NotNegative = 1.0  # λ
    # The discriminator's accuracy on rollouts to which λ leads, from adversarial_weight on; 0 = λ stays.
    adversarial_target: BelowOne = 0.0
    adversarial_target_rate: Positive = 0.05  # of log λ, per step and unit of accuracy
    steps: Count = 1_000
    batch_size: Count = 384
    minibatch_size: Count = 48
    epochs: Count = 1
    discount: PositiveShare = 1.0
    gae_lambda: Share = 0.95
    clip_epsilon: Positive = 0.2
    critic_warmup_steps: CountOrNone = 0  # at first so many steps teach the critic alone; the policy stays as it is
    # Gae with a critic (published), or baselines of a group instead: grpo, rloo.
    advantages: Literal["gae", "grpo", "rloo"] = "gae"
    group_size: Count = 1  # rollouts over each context; a batch then holds so many times fewer contexts
    # What the KL is to: offline (published), online (the MLE policy itself), none.
    anchor: Literal["offline", "online", "none"] = "offline"
    kl_coef: NotNegative = 0.001  # β
    entropy_coef: NotNegative = 0.01  # η
    validity_mask: bool = False  # policy, log-probabilities, KL and entropy over the valid tokens only
    policy: OptimizerConfig = OptimizerConfig(5e-6, 800, 0.1, 0.9, 0.95)
    critic: OptimizerConfig = OptimizerConfig(9e-5, 800, 0.1, 0.9, 0.95)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(9e-5, 800, 0.1, 0.9, 0.95)
    rewards: RewardsConfig = RewardsConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation; crops are fixed by the song's id, n is equal for all systems of a dataset."""

    songs: Count = 512  # at most this many per dataset
    batch_size: Count = 128
    sampling: Sampling = "unfiltered"  # T = 1; "masked" restricts it to valid tokens
    # Shares of the V tokens, and of the probability, from which systems draw when a run is measured; 1 = of all. The
    # released evaluation's top_k is 0.1. Training and the evaluations during it draw from all.
    top_k: PositiveShare = 1.0
    top_p: PositiveShare = 1.0
    seed: Seed = 0
    every: Count = 100  # post-training steps between evaluations on the valid split
    monitor_songs: Count = 128  # songs of those evaluations
    post_hoc_steps: CountOrNone = 64  # gradient steps of the discriminator fitted after the fact; 0 = none


@dataclass(frozen=True)
class MeshConfig:
    """How the devices of a slice are arranged; the slice axis itself comes from the devices."""

    data: CountOrNone = 0  # songs are spread over data × fsdp; 0 = all devices that fsdp and tensor leave
    fsdp: Count = 1  # parameters and optimiser are spread as well
    tensor: Count = 1  # heads and inner widths are split


@dataclass(frozen=True)
class RuntimeConfig:
    """Settings of the execution: none of them changes which run it is."""

    mesh: MeshConfig = MeshConfig()
    # Songs per device and gradient computation of MLE, PPO, discriminator; 0 = all at once.
    microbatch_rows: CountOrNone = 0
    checkpoint_every: Count = 100  # post-training steps
    stage_checkpoint_every: Count = 1_000  # steps of the supervised stages
    keep_checkpoints: Count = 2  # newest
    keep_every: CountOrNone = 0  # checkpoints of every such step stay for good; 0 = none
    # Of the checkpoints at evaluated steps, those with the best valid/held_out_coherence stay.
    keep_best: CountOrNone = 1
    max_nonfinite_steps: Count = 3  # consecutive skipped steps before the run stops
    profile_steps: CountOrNone = 0  # post-training steps of which a trace is written (docs/profile.md); 0 = none
    # Without a step for so long, all stacks are printed.
    hang_minutes: Annotated[float, Limits(above=0, most=525_600)] = 30.0


@dataclass(frozen=True)
class AlarmActions:
    """What each alarm does: log it, keep this step's checkpoint for good as well, or save and stop the run. A task adds
    alarms of its own."""

    reward_hacking: Action = "keep"
    beyond_data: Action = "keep"
    low_diversity: Action = "keep"
    saturated_discriminator: Action = "log"
    kl_budget: Action = "log"
    ratio: Action = "stop"  # the gradients are those of another policy
    dead_member: Action = "log"


@dataclass(frozen=True)
class RatioLimit:
    """The most |ratio - 1| before any update, over the actions of a rollout."""

    mean: NotNegative
    high: NotNegative  # that one action of 1,000 exceeds


@dataclass(frozen=True)
class RatioLimits:
    """By `models.compute_dtype`: what rounding alone makes is in docs/health.md."""

    float32: RatioLimit = RatioLimit(1e-3, 1e-2)
    bfloat16: RatioLimit = RatioLimit(2e-2, 1e-1)


@dataclass(frozen=True)
class HealthConfig:
    """Limits of the alarms (docs/health.md). None of this changes a number of the run."""

    RETIRED = ("max_ratio_deviation",)  # settings in the config.json of earlier runs

    slow_evaluations: Count = 4  # in a row, before hacking, lost diversity or a saturated discriminator raise the alarm
    fast_evaluations: Count = 2  # in a row, before a reward beyond the data's and a task's own alarms do
    steps: Count = 5  # in a row, before the KL budget, the ratio or a dead reward model do
    proxy_rise: NotNegative = 0.1  # of the learned reward, relative to the start
    gold_drop: NotNegative = 0.05  # of held-out coherence (a cosine) from its best so far
    hacking_diversity: NotNegative = 0.75  # Vendi relative to the first policy's, while the learned reward is up
    min_diversity: NotNegative = 0.7  # Vendi relative to the first policy's
    max_accuracy: NotNegative = 0.97  # of the discriminator, where λ > 0
    max_kl: NotNegative = 2.0  # nats a frame
    ratio_limits: RatioLimits = RatioLimits()
    min_member_std: NotNegative = 1e-4  # spread of a reward model's scores over the songs of a rollout
    actions: AlarmActions = AlarmActions()


@dataclass(frozen=True)
class Experiment:
    """All settings of a run. Each task has a subclass, which gives `task` its name and names its `domain`."""

    KNOWN: ClassVar[dict[str, type[Experiment]]] = {}  # the subclasses by their task

    name: FolderName = "gapt"
    task: str = ""
    # How results name the post-trained system; empty = by its λ.
    arm: ArmName = ""
    seed: Seed = 0  # of post-training; pretrain.seed is the upstream one
    data: DataConfig = field(default_factory=DataConfig)
    models: ModelsConfig = field(default_factory=ModelsConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    def __init_subclass__(cls) -> None:
        if "task" in vars(cls):
            Experiment.KNOWN[cls.task] = cls

    @classmethod
    def presets(cls) -> dict[str, Any]:
        """Ablations of its own by name, each a tuple of `training.presets.Arm`."""
        return {}

    @classmethod
    def domain(cls) -> Domain:
        """What the experiments of a task share."""
        raise NotImplementedError("an experiment is of a task: build the Experiment of one")

    @classmethod
    def of(cls, data: dict[str, Any]) -> type[Experiment]:
        """The class that reads `data`, a config.json: of the base, that of its task."""
        task = data.get("task", FIRST_TASK if cls is Experiment else cls.task)
        if cls is Experiment and isinstance(task, str) and task in cls.KNOWN:
            return cls.KNOWN[task]
        if task != cls.task:
            known = ", ".join(sorted(cls.KNOWN)) or "those that are imported"
            raise ConfigError(f"task must be one of {known}, not {task!r} (gapt_jax/tasks/__init__.py imports them)")
        return cls


def arm_name(experiment: Experiment) -> str:
    """The post-trained system in results: ``gapt_lambda=1``, or what an ablation calls this arm."""
    return experiment.arm or f"gapt_lambda={experiment.algorithm.adversarial_weight:g}"
