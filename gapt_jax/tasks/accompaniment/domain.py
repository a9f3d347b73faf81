"""What all accompaniment experiments share: how data is opened, metrics and alarms, what is played again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gapt_jax.evaluation.evaluator import INDEPENDENT, Evaluator
from gapt_jax.evaluation.statistics import share
from gapt_jax.task import Collapse, Domain, Opened, Pages
from gapt_jax.tasks.accompaniment import adaptation
from gapt_jax.tasks.accompaniment.adaptation import Adaptation, Shift
from gapt_jax.tasks.accompaniment.config import DataConfig, EvaluationConfig
from gapt_jax.tasks.accompaniment.metrics import (
    COMPARED,
    HEADLINE,
    METRICS,
    PROGRESS,
    PUBLISHED,
    PUBLISHED_REWARDS,
    TABLE,
)
from gapt_jax.tasks.accompaniment.pages import PAGES
from gapt_jax.tasks.accompaniment.symptoms import ON_EVALUATIONS
from gapt_jax.tasks.accompaniment.task import FILE_NAME, Accompaniment, accompaniment_of
from gapt_jax.types import Batch, Params
from gapt_jax.vocabulary import FRAMES_PER_BEAT, Vocabulary, read_vocabulary

ASSUMED_QUALITIES = 107  # interval sets that cover 99.9 % of the training chords of Hooktheory, POP909 and Nottingham


@dataclasses.dataclass(frozen=True)
class Songs:
    """A corpus of songs (`data_pipeline.loader.Corpus`), transposed in training where the settings say so."""

    corpus: Any
    transpose: bool

    @property
    def fingerprint(self) -> str:
        return self.corpus.fingerprint

    def training_batches(
        self, *, batch_size: int, seed: int, augment: bool, start: int = 0, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        transpose = augment and self.transpose
        return self.corpus.training_batches(
            batch_size=batch_size, seed=seed, transpose=transpose, start=start, rows=rows
        )

    def evaluation_songs(self, dataset: str, split: str, max_songs: int) -> Any:
        return self.corpus.evaluation_songs(dataset, split, max_songs)


def open_songs(data: DataConfig, folder: Path, vocabulary: Vocabulary | None = None, on_progress: Any = None) -> Any:
    """The corpus of these settings, prepared in `folder` if need be."""
    from gapt_jax.data_pipeline.loader import open_corpus

    return open_corpus(
        songs=data.songs,
        mixture=data.mixture,
        out_of_domain=data.out_of_domain,
        max_frames=data.max_frames,
        chord_coverage=data.chord_coverage,
        data_dir=folder,
        part=data.part,
        crops_on=data.crops_on,
        vocabulary=vocabulary,
        on_progress=on_progress,
    )


class _Domain(Domain):
    """`gapt_jax.task.Domain`, of accompaniment."""

    metrics = METRICS
    after_a_run = "gapt sample {run}"
    seen_in_words = "have 20 successive steps of their melody, in any key, from a song of the training splits"
    headline = HEADLINE
    table = TABLE
    compared = COMPARED
    progress = PROGRESS
    published = PUBLISHED
    published_rewards = PUBLISHED_REWARDS
    extras = ("adaptation",)
    quality = "note_in_chord"
    quality_in_words = "melody that is in the chord"
    collapse = Collapse(0.8)
    statistics: ClassVar = {"note_in_chord": (("hits", "frames"), lambda hits, frames: share(hits.sum(), frames.sum()))}
    symptoms = ON_EVALUATIONS

    def open(self, data: DataConfig, folder: Path, run: Path, on_progress: Any) -> Opened:
        from gapt_jax.data_pipeline.upstream import restriction

        path = run / FILE_NAME
        vocabulary = read_vocabulary(path) if path.exists() else None
        corpus = open_songs(data, folder, vocabulary, on_progress)
        return Opened(
            Accompaniment(corpus.vocabulary, data.part),
            Songs(corpus, data.transpose),
            {"unlisted_chord_share": corpus.unlisted_chord_share},
            [sentence for name in corpus.datasets if (sentence := restriction(name))],
        )

    def load(self, data: DataConfig, run: Path) -> Accompaniment:
        return Accompaniment(read_vocabulary(run / FILE_NAME), data.part)

    def assumed(self, data: DataConfig) -> Accompaniment:
        return Accompaniment(Vocabulary.synthetic(ASSUMED_QUALITIES), data.part)

    def change(self, text: str | None, frames: int) -> Shift:
        return adaptation.parse_shift(text, frames) if text else adaptation.default_shift(frames)

    def again(
        self, evaluator: Evaluator, policy: Params, songs: Any, actions: np.ndarray, sampling: str, change: Shift
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """One melody several times, and melodies that change key."""
        config, found = evaluator.config, dict[str, float]()
        assert isinstance(config, EvaluationConfig)
        if INDEPENDENT in evaluator.encoders and config.same_melody_songs:
            melodies = songs.context[: config.same_melody_songs]
            same = evaluator.same_context_vendi(policy, melodies, sampling=sampling)
            found["same_melody_vendi_independent"] = same
        if accompaniment_of(evaluator.spec).part != "chords" or not config.adaptation_songs:
            return found, {}
        long_enough = np.flatnonzero(adaptation.long_enough(songs.context, change))[: config.adaptation_songs]
        adapted = adapt(evaluator, policy, songs, actions, long_enough, sampling, change)
        found |= {
            "adaptation_recovery_beats": adapted.recovery_beats,
            "adaptation_area_lost": adapted.area_lost,
        }
        return found, {"adaptation": adapted.curves()}

    def pages(self) -> Pages:
        return PAGES


DOMAIN = _Domain()


def adapt(
    evaluator: Evaluator,
    policy: Params,
    songs: Any,
    chords: np.ndarray,
    chosen: np.ndarray,
    sampling: str,
    shift: Shift,
) -> Adaptation:
    """Plays the `chosen` of the songs again with the shift, on the same random numbers."""
    tables, melody = accompaniment_of(evaluator.spec).vocabulary.tables, songs.context[chosen]
    if not len(chosen):
        nothing = np.full(melody.shape[1] // FRAMES_PER_BEAT, np.nan)
        return Adaptation(shift, nothing, nothing)
    moved = adaptation.shifted(melody, shift, tables)
    answered = evaluator.play(policy, moved, songs.index[chosen], sampling=sampling)
    unperturbed = adaptation.curve(melody, chords[chosen], tables)
    return Adaptation(shift, unperturbed, adaptation.curve(moved, answered, tables))
