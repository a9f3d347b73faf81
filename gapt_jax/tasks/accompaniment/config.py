"""The settings of an accompaniment experiment: what this task adds to `gapt_jax.config`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gapt_jax import config
from gapt_jax.config import Action, CountOrNone, FitConfig, FolderPath, NotNegative, Positive, PositiveShare

if TYPE_CHECKING:
    from gapt_jax.task import Domain


@dataclass(frozen=True)
class DataConfig(config.DataConfig):
    BESIDE: ClassVar = (*config.DataConfig.BESIDE, "part")

    songs: FolderPath = "grammar"  # folder of songs (docs/data.md), or "grammar" for the built-in generator
    mixture: tuple[tuple[str, Positive], ...] = (("grammar", 1.0),)
    out_of_domain: tuple[str, ...] = ("grammar_modal",)
    # Frames are sixteenth notes. Crops begin on any beat, or on bar lines, never in a pickup: a policy then knows the
    # bar by counting.
    crops_on: Literal["beats", "bars"] = "beats"
    chord_coverage: PositiveShare = 0.999  # share of the training chords whose interval set gets its own tokens
    transpose: bool = True  # uniformly -6..+6 semitones, training only
    # What the policy plays; "melody" makes the agent of docs/method.md §11, which hears chords.
    part: Literal["chords", "melody"] = "chords"


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
    early_stop: NotNegative = 1.0
    invalid: NotNegative = 1.0
    silence: NotNegative = 1.0
    long_note: NotNegative = 0.0
    repetition: NotNegative = 1.0


@dataclass(frozen=True)
class AlgorithmConfig(config.AlgorithmConfig):
    rewards: RewardsConfig = RewardsConfig()


@dataclass(frozen=True)
class EvaluationConfig(config.EvaluationConfig):
    same_melody_songs: CountOrNone = 8  # melodies that are played 16 times each; 0 = none
    adaptation_songs: CountOrNone = 128  # songs that are played again with a change of key; 0 = none


@dataclass(frozen=True)
class AlarmActions(config.AlarmActions):
    few_progressions: Action = "log"
    ignores_melody: Action = "log"
    silence: Action = "log"


@dataclass(frozen=True)
class HealthConfig(config.HealthConfig):
    min_progressions: NotNegative = 0.5  # unique progressions relative to the first policy's
    min_melody_ratio: NotNegative = 1.05  # note-in-chord relative to chance
    max_added_silence: NotNegative = 0.2  # share of melody frames without a chord, above the first policy's
    actions: AlarmActions = AlarmActions()


@dataclass(frozen=True)
class Experiment(config.Experiment):
    task: str = "accompaniment"
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    health: HealthConfig = field(default_factory=HealthConfig)

    @classmethod
    def presets(cls) -> dict[str, Any]:
        from gapt_jax.tasks.accompaniment.presets import PRESETS

        return PRESETS

    @classmethod
    def domain(cls) -> Domain:
        from gapt_jax.tasks.accompaniment.domain import DOMAIN  # brings JAX, which the command line does without

        return DOMAIN
