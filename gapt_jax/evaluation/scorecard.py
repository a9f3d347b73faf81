"""All metrics of docs/method.md §12 for one system on one set of songs, and for several on several sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gapt_jax.evaluation import adaptation, embeddings, harmony
from gapt_jax.evaluation.adaptation import Adaptation, Shift
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.tasks.accompaniment.task import accompaniment_of
from gapt_jax.types import Params
from gapt_jax.vocabulary import EOS, PAD

SAMPLES_PER_MELODY = 16
INDEPENDENT = "independent"  # encoder
_OTHER_DRAWS = 1  # seed of the accompaniments of one melody


@dataclasses.dataclass(frozen=True)
class Scorecard:
    """One system on one set of N songs, of which n have a chord at all."""

    metrics: dict[str, float]
    chords: np.ndarray  # [N, T] int32: what was played
    song: np.ndarray  # [n] int32: row of the set
    hits: np.ndarray  # [n] int32: frames whose note is in the chord
    frames: np.ndarray  # [n] int32: frames where both sound
    independent: np.ndarray | None  # [n, D] float32: chords in the independent encoder, if there is one
    adaptation: Adaptation | None  # none of data, which hears nothing


@dataclasses.dataclass(frozen=True)
class System:
    """One system on all sets."""

    sets: dict[str, Scorecard]  # by "dataset/split"
    decode_step: dict[str, float] | None  # its time; none of data, which nothing decodes


def score_systems(
    evaluator: Evaluator,
    songs: Mapping[str, Any],
    policies: Mapping[str, Params | None],
    sampling: str,
    shift: Shift,
    known: Mapping[str, System],
) -> dict[str, System]:
    """Every system of `policies` on every set of `songs` (data_pipeline.loader.EvaluationSongs); a system that is
    `known` already is taken as it is. The policy of "data", which comes first, is None."""
    systems: dict[str, System] = {}
    for system, policy in policies.items():
        if system in known:
            systems[system] = System({name: known[system].sets[name] for name in songs}, known[system].decode_step)
            continue
        cards = {}
        for name, chosen in songs.items():
            data = systems["data"].sets[name] if systems else None
            cards[name] = score(evaluator, chosen, policy, data, sampling, shift)
        heard = next(iter(songs.values())).context[0]
        systems[system] = System(cards, evaluator.decode_step(policy, heard, sampling=sampling) if policy else None)
    return systems


def score(
    evaluator: Evaluator, songs: Any, policy: Params | None, data: Scorecard | None, sampling: str, shift: Shift
) -> Scorecard:
    """The scorecard of a policy beside that of data, or (both None) that of data itself."""
    melody, chords = songs.context, songs.actions
    if policy:
        chords = evaluator.play(policy, melody, songs.index, sampling=sampling)
    metrics, embedded = evaluator.judge(melody, chords, songs.actions)
    kept = sounding(melody, chords)
    independent = embedded[INDEPENDENT][kept] if INDEPENDENT in embedded else None
    if independent is not None:
        to = independent if data is None or data.independent is None else data.independent
        metrics |= {
            f"{name}_{INDEPENDENT}": measure(independent, to)
            for name, measure in (
                ("frechet", embeddings.frechet_distance),
                ("precision", embeddings.precision),
                ("coverage", embeddings.coverage),
            )
        }
    adapted = None
    if policy:
        metrics |= evaluator.divergence(policy, melody, chords, sampling=sampling)
        if evaluator.config.post_hoc_steps:
            metrics["post_hoc_accuracy"] = evaluator.post_hoc_accuracy(chords, songs.actions)
        if INDEPENDENT in embedded and evaluator.config.same_melody_songs:
            metrics["same_melody_vendi_independent"] = same_melody_vendi(evaluator, policy, melody, sampling)
        if accompaniment_of(evaluator.spec).part == "chords" and evaluator.config.adaptation_songs:
            adapted = adapt(evaluator, policy, melody, chords, songs.index, sampling, shift)
            metrics |= {
                "adaptation_recovery_beats": adapted.recovery_beats,
                "adaptation_area_lost": adapted.area_lost,
            }
    task = accompaniment_of(evaluator.spec)
    counts = harmony.note_in_chord(*task.in_place(melody, chords), task.vocabulary.tables)
    return Scorecard(
        metrics=metrics,
        chords=chords,
        song=np.flatnonzero(kept).astype(np.int32),
        hits=counts.hits[kept].astype(np.int32),
        frames=counts.frames[kept].astype(np.int32),
        independent=None if independent is None else independent.astype(np.float32),
        adaptation=adapted,
    )


def sounding(melody: np.ndarray, chords: np.ndarray) -> np.ndarray:
    """[N] bool: songs with something played before their end; the others have no embedding (`metrics.summarize`)."""
    return np.any(np.where(melody == PAD, PAD, chords) > EOS, axis=1)


def same_melody_vendi(evaluator: Evaluator, policy: Params, melody: np.ndarray, sampling: str) -> float:
    """`embeddings.mean_vendi` over 16 accompaniments of each of the first melodies of a set."""
    heard = np.repeat(melody[: evaluator.config.same_melody_songs], SAMPLES_PER_MELODY, axis=0)
    index = np.arange(len(heard), dtype=np.int32)
    chords = evaluator.play(policy, heard, index, sampling=sampling, seed=_OTHER_DRAWS)
    embedded, _ = evaluator.embed(INDEPENDENT, heard, chords)
    shape = (-1, SAMPLES_PER_MELODY)
    return embeddings.mean_vendi(embedded.reshape(*shape, embedded.shape[1]), sounding(heard, chords).reshape(shape))


def adapt(
    evaluator: Evaluator,
    policy: Params,
    melody: np.ndarray,
    chords: np.ndarray,
    index: np.ndarray,
    sampling: str,
    shift: Shift,
) -> Adaptation:
    """Plays the first songs that are long enough again with the shift, on the same random numbers."""
    tables = accompaniment_of(evaluator.spec).vocabulary.tables
    chosen = np.flatnonzero(adaptation.long_enough(melody, shift))[: evaluator.config.adaptation_songs]
    if not len(chosen):
        nothing = np.full(melody.shape[1] // 4, np.nan)
        return Adaptation(shift, nothing, nothing)
    moved = adaptation.shifted(melody[chosen], shift, tables)
    answered = evaluator.play(policy, moved, index[chosen], sampling=sampling)
    unperturbed = adaptation.curve(melody[chosen], chords[chosen], tables)
    return Adaptation(shift, unperturbed, adaptation.curve(moved, answered, tables))


def rows_of(systems: Mapping[str, System]) -> dict[str, np.ndarray]:
    """What statistics over songs need, keyed "<system>|<dataset>|<array>"."""
    fields: Sequence[str] = ("song", "hits", "frames", "independent")
    return {
        f"{system}|{name}|{field}": getattr(card, field)
        for system, scored in systems.items()
        for name, card in scored.sets.items()
        for field in fields
        if getattr(card, field) is not None
    }
