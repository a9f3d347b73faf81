"""A task without music: answer each number one frame later, by itself or by its complement.

Tokens 3 to 6 are the numbers 0 to 3, heard and said; 7 is a pause.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np

from gapt_jax import config
from gapt_jax.algorithm.reward_models import ContrastiveReward
from gapt_jax.config import FitConfig
from gapt_jax.evaluation.metrics import METRICS
from gapt_jax.task import PAD, Domain, Metric, Opened, Task
from gapt_jax.types import Batch

FIRST, NUMBERS, PAUSE, SIZE = 3, 4, 7, 8


@dataclass(frozen=True, eq=False)
class Echo(Task):
    vocab_size = SIZE
    rest = PAUSE
    reward_models: ClassVar = {"fit": ContrastiveReward(SIZE)}

    def facts(self):
        return {"numbers": str(NUMBERS)}

    def save(self, folder: Path):
        (folder / "numbers.json").write_text(json.dumps(NUMBERS))

    def rule_terms(self, context, actions, mask):
        return {"pause": -0.1 * mask * (actions == PAUSE)}

    def measure(self, context, actions, data):
        heard, said = context[:, :-1], actions[:, 1:]
        answers = (said == heard) | (said == FIRST + NUMBERS - 1 - (heard - FIRST))
        return {"answered": float(answers[context[:, 1:] != PAD].mean())}


class Numbers:
    """Random examples, those of an index always the same."""

    fingerprint = "numbers"

    def __init__(self, frames: int):
        self.frames = frames

    def example(self, place: str, number: int):
        draw = np.random.default_rng([number, *place.encode()])
        heard = draw.integers(FIRST, FIRST + NUMBERS, self.frames)
        answers = heard if draw.random() < 0.5 else FIRST + NUMBERS - 1 - (heard - FIRST)
        return heard, np.append(PAUSE, answers[:-1])

    def pairs(self, place: str, index: np.ndarray):
        return (
            np.array([self.example(place, int(n)) for n in index], np.int32).reshape(-1, 2, self.frames).swapaxes(0, 1)
        )

    def training_batches(self, *, batch_size, seed, augment, start=0, rows=None):
        rows = np.arange(batch_size) if rows is None else rows
        while True:
            index = (start * batch_size + rows).astype(np.int32)
            yield Batch(*self.pairs(f"train{seed}", index), index)
            start += 1

    def evaluation_songs(self, dataset, split, max_songs):
        index = np.arange(max_songs, dtype=np.int32)
        context, actions = self.pairs(split, index)
        return SimpleNamespace(context=context, actions=actions, ids=tuple(map(str, index)), index=index)


class EchoDomain(Domain):
    metrics: ClassVar = {"answered": Metric("Answered", "share of frames", "higher", "Numbers answered."), **METRICS}
    headline = table = compared = ("answered", "vendi_independent")
    progress = ("reward/total", "reward/fit", "valid/answered")
    quality = "answered"

    def open(self, data, folder, run, on_progress):
        return Opened(Echo(), Numbers(data.max_frames))

    def load(self, data, run):
        return Echo()


@dataclass(frozen=True)
class PretrainConfig(config.PretrainConfig):
    fit: FitConfig = FitConfig(steps=20, batch_size=16)


@dataclass(frozen=True)
class RewardsConfig(config.RewardsConfig):
    MODELS: ClassVar = ("fit",)
    ENCODER: ClassVar = "fit"

    fit: config.NotNegative = 1.0
    pause: config.NotNegative = 1.0


@dataclass(frozen=True)
class AlgorithmConfig(config.AlgorithmConfig):
    rewards: RewardsConfig = RewardsConfig()


@dataclass(frozen=True)
class Experiment(config.Experiment):
    task: str = "echo"
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)

    @classmethod
    def domain(cls):
        return EchoDomain()
