"""Live accompaniment as a task of `gapt_jax.task`: the policy plays chords over a melody, or the other way round."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np

from gapt_jax.algorithm.rewards import at_last
from gapt_jax.algorithm.state import Spec
from gapt_jax.errors import UserError
from gapt_jax.runtime.files import write_atomic
from gapt_jax.task import RewardModel, Task
from gapt_jax.tasks.accompaniment import harmony, metrics, rules
from gapt_jax.tasks.accompaniment.interaction import summarize_melody
from gapt_jax.tasks.accompaniment.reward_models import in_place, reward_models
from gapt_jax.vocabulary import SILENCE, TokenTables, Vocabulary

FILE_NAME = "vocabulary.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Accompaniment(Task):
    """The task of the agent that plays `part` ("chords" or "melody") and hears the other one."""

    vocabulary: Vocabulary
    part: str = "chords"

    rest = SILENCE

    @property
    def vocab_size(self) -> int:
        return self.vocabulary.size

    @property
    def tables(self) -> TokenTables:
        """Token tables with the roles of `part`: `is_chord` holds for tokens of the agent's own part."""
        return self.vocabulary.tables_for(self.part)

    @functools.cached_property
    def reward_models(self) -> dict[str, RewardModel]:
        return reward_models(self.vocabulary, self.part)

    def facts(self) -> dict[str, str]:
        return {"vocabulary": self.vocabulary.to_json()}

    @property
    def identity(self) -> dict[str, str]:
        return {"vocabulary": self.vocabulary.hash}

    @property
    def role(self) -> dict[str, str]:
        return {} if self.part == "chords" else {"part": self.part}

    def save(self, folder: Path) -> None:
        write_atomic(folder / FILE_NAME, self.vocabulary.to_json())

    def valid_actions(self, previous: jax.Array) -> jax.Array:
        return rules.valid_tokens(previous, self.tables)

    def valid_context(self, previous: jax.Array) -> jax.Array:
        other = {"chords": "melody", "melody": "chords"}[self.part]
        return rules.valid_tokens(previous, self.vocabulary.tables_for(other))

    @functools.cached_property
    def going_on(self) -> np.ndarray:
        """The HOLD of each note and chord; SILENCE and others are their own."""
        tables = self.vocabulary.tables
        first = {int(event): token for token, event in enumerate(tables.event) if tables.is_hold[token]}
        return np.array([first.get(int(event), token) for token, event in enumerate(tables.event)], np.int32)

    def rule_terms(self, context: jax.Array, actions: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        """Silence is punished frame by frame, all else on the last frame."""
        terminal = {
            "early_stop": rules.early_stop(actions, mask),
            "invalid": rules.invalid_output(actions, mask, self.tables),
            "long_note": rules.long_note(actions, mask),
            "repetition": rules.repetition(actions, mask, self.tables),
        }
        terms = {name: at_last(value, mask) for name, value in terminal.items()}
        return terms | {"silence": rules.silence(actions, context, mask)}

    def is_valid(self, actions: jax.Array, mask: jax.Array) -> jax.Array:
        return rules.invalid_output(actions, mask, self.tables) == 0

    def measure(self, context: np.ndarray, actions: np.ndarray, data: np.ndarray) -> dict[str, float]:
        if self.part == "melody":
            return summarize_melody(actions, context, self.vocabulary)
        return metrics.summarize(context, actions, data, self.vocabulary)

    def counts(self, context: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        counted = harmony.note_in_chord(*in_place(self.part, context, actions), self.vocabulary.tables)
        return {"hits": counted.hits.astype(np.int32), "frames": counted.frames.astype(np.int32)}


def accompaniment(task: Task) -> Accompaniment:
    """The task, known to be this one. Raises UserError."""
    if not isinstance(task, Accompaniment):
        raise UserError("this command is for chords and melodies: give a run of a music experiment")
    return task


def accompaniment_of(spec: Spec) -> Accompaniment:
    """The task of a learner that plays chords or a melody."""
    return accompaniment(spec.task)
