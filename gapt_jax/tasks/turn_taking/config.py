"""The settings of a turn-taking experiment: what this task adds to `gapt_jax.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from gapt_jax import config
from gapt_jax.config import Action, CountOrNone, FitConfig, FolderPath, NotNegative, Share

if TYPE_CHECKING:
    from gapt_jax.task import Domain


@dataclass(frozen=True)
class DataConfig(config.DataConfig):
    # RTTM file, or folder of some (docs/turn_taking.md); or "simulated" for built-in conversations.
    songs: FolderPath = "simulated"
    max_frames: config.Fours = 128  # T, of 200 ms each


@dataclass(frozen=True)
class PretrainConfig(config.PretrainConfig):
    contrastive: FitConfig = FitConfig(steps=8_000, batch_size=196)
    discriminative: FitConfig = FitConfig(steps=3_000, batch_size=128)
    rhythm_contrastive: FitConfig = FitConfig(steps=2_500, batch_size=196)
    rhythm_discriminative: FitConfig = FitConfig(steps=3_000, batch_size=64)


@dataclass(frozen=True)
class RewardsConfig(config.RewardsConfig):
    MODELS: ClassVar = ("contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative")
    ENCODER: ClassVar = "contrastive"

    contrastive: NotNegative = 1.0
    discriminative: NotNegative = 1.0
    rhythm_contrastive: NotNegative = 1.0
    rhythm_discriminative: NotNegative = 1.0
    chatter: NotNegative = 1.0
    invalid: NotNegative = 1.0
    monologue: NotNegative = 1.0
    mute: NotNegative = 1.0


@dataclass(frozen=True)
class AlgorithmConfig(config.AlgorithmConfig):
    rewards: RewardsConfig = RewardsConfig()


@dataclass(frozen=True)
class EvaluationConfig(config.EvaluationConfig):
    same_context: CountOrNone = 8  # conversations in which the agent plays 16 times each; 0 = none


@dataclass(frozen=True)
class AlarmActions(config.AlarmActions):
    never_speaks: Action = "log"
    always_speaks: Action = "log"
    chatters: Action = "log"
    ignores_partners: Action = "log"


@dataclass(frozen=True)
class HealthConfig(config.HealthConfig):
    min_speaking: NotNegative = 0.25  # time spent speaking relative to the first policy's
    max_added_speaking: Share = 0.3  # share of the time spent speaking, above the first policy's
    max_onsets: NotNegative = 3.0  # stretches a minute relative to the first policy's
    min_clear_ratio: NotNegative = 1.05  # clear speech relative to chance
    actions: AlarmActions = AlarmActions()


@dataclass(frozen=True)
class Experiment(config.Experiment):
    task: str = "turn_taking"
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    @classmethod
    def domain(cls) -> Domain:
        from gapt_jax.tasks.turn_taking.domain import DOMAIN  # brings JAX, which the command line does without

        return DOMAIN
