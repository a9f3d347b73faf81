"""What all turn-taking experiments share: how data is opened, metrics and alarms, what is played again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax.evaluation.evaluator import INDEPENDENT, Evaluator
from gapt_jax.evaluation.statistics import share
from gapt_jax.task import Change, Corpus, Domain, Opened, Pages
from gapt_jax.tasks.turn_taking import simulated, timing, tokens
from gapt_jax.tasks.turn_taking.config import DataConfig, EvaluationConfig
from gapt_jax.tasks.turn_taking.metrics import COMPARED, HEADLINE, METRICS, PROGRESS, TABLE
from gapt_jax.tasks.turn_taking.pages import PAGES
from gapt_jax.tasks.turn_taking.stretches import heard
from gapt_jax.tasks.turn_taking.symptoms import ON_EVALUATIONS
from gapt_jax.tasks.turn_taking.task import TurnTaking
from gapt_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Conversations:
    """A corpus whose excerpts begin as play does: what goes on in the first frame begins there."""

    corpus: Corpus

    @property
    def fingerprint(self) -> str:
        return self.corpus.fingerprint

    def training_batches(
        self, *, batch_size: int, seed: int, augment: bool, start: int = 0, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Nothing is augmented."""
        batches = self.corpus.training_batches(
            batch_size=batch_size, seed=seed, augment=augment, start=start, rows=rows
        )
        return (dataclasses.replace(batch, actions=as_begun(batch.actions)) for batch in batches)

    def evaluation_songs(self, dataset: str, split: str, max_songs: int) -> Any:
        found = self.corpus.evaluation_songs(dataset, split, max_songs)
        return dataclasses.replace(found, actions=as_begun(found.actions))


def as_begun(actions: np.ndarray) -> np.ndarray:
    """Actions [N, T] in which a hold in the first frame, which would hold nothing, is its onset."""
    first = actions[:, 0]
    return np.concatenate([(first - tokens.is_hold(first))[:, None], actions[:, 1:]], axis=1)


class _Domain(Domain):
    """`gapt_jax.task.Domain`, of turn-taking."""

    metrics = METRICS
    headline = HEADLINE
    table = TABLE
    compared = COMPARED
    progress = PROGRESS
    examples = "conversations"
    after_a_run = "gapt listen {run} --rttm FILE"
    extras = ("floor_transfers",)
    quality = "clear_speech"
    quality_in_words = "speech while others are silent"
    symptoms = ON_EVALUATIONS

    @property
    def statistics(self) -> Any:
        return {"clear_speech": (("clear", "speech"), lambda clear, speech: share(clear.sum(), speech.sum()))}

    def open(self, data: DataConfig, folder: Path, run: Path, on_progress: Any) -> Opened:
        if data.songs == simulated.NAME:
            return Opened(TurnTaking(), Conversations(simulated.Simulated(data.max_frames)))
        from gapt_jax.data_pipeline.conversations.loader import open_corpus

        corpus = open_corpus(
            conversations=data.songs,
            mixture=data.mixture,
            out_of_domain=data.out_of_domain,
            max_frames=data.max_frames,
            frame_seconds=tokens.FRAME_SECONDS,
            encode=tokens.encode,
            data_dir=folder,
            on_progress=on_progress,
        )
        return Opened(TurnTaking(), Conversations(corpus))

    def load(self, data: DataConfig, run: Path) -> TurnTaking:
        return TurnTaking()

    def assumed(self, data: DataConfig) -> TurnTaking:
        return TurnTaking()

    def again(
        self, evaluator: Evaluator, policy: Params, songs: Any, actions: np.ndarray, sampling: str, change: Change
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Some conversations several times; and the floor transfers of what was played, for the report."""
        config, metrics = evaluator.config, dict[str, float]()
        assert isinstance(config, EvaluationConfig)
        if INDEPENDENT in evaluator.encoders and config.same_context:
            chosen = songs.context[: config.same_context]
            same = evaluator.same_context_vendi(policy, chosen, sampling=sampling)
            metrics["same_context_vendi_independent"] = same
        played = {"played": actions, "data": songs.actions}
        counts = {name: timing.offset_counts(heard(songs.context, part)).tolist() for name, part in played.items()}
        return metrics, {"floor_transfers": counts}

    def pages(self) -> Pages:
        return PAGES


DOMAIN = _Domain()
