"""Live accompaniment as a task of `gapt_jax.task`: the policy plays chords over a melody, or the other way round."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gapt_jax.algorithm.rewards import at_last
from gapt_jax.algorithm.state import Spec
from gapt_jax.models import Models
from gapt_jax.models.networks import part
from gapt_jax.tasks.accompaniment import coherence, rules
from gapt_jax.types import Array, Params
from gapt_jax.vocabulary import SILENCE, TokenTables, Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Accompaniment:
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

    def to_json(self) -> str:
        return self.vocabulary.to_json()

    def in_place(self, context: Array, actions: Array) -> tuple[Array, Array]:
        """(melody, chords), whichever of the two the agent plays."""
        return (actions, context) if self.part == "melody" else (context, actions)

    def valid_actions(self, previous: jax.Array) -> jax.Array:
        return rules.valid_tokens(previous, self.tables)

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

    def coherence(
        self, models: Models, members: Mapping[str, Params], context: jax.Array, actions: jax.Array
    ) -> dict[str, jax.Array]:
        return coherence.scores(models, members, *self.in_place(context, actions), self.vocabulary.tables)

    def embed(
        self, models: Models, encoder: Params, context: jax.Array, actions: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        melody, chords, _ = models.contrastive(encoder, *map(part, self.in_place(context, actions)))
        return melody if self.part == "melody" else chords, jnp.sum(melody * chords, axis=-1)


def accompaniment_of(spec: Spec) -> Accompaniment:
    """The task of a learner that plays chords or a melody."""
    assert isinstance(spec.task, Accompaniment)
    return spec.task
