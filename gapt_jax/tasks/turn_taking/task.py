"""Turn-taking as a task of `gapt_jax.task`: the policy is one participant of a conversation and hears the others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np

from gapt_jax.algorithm.rewards import at_last
from gapt_jax.runtime.files import write_atomic
from gapt_jax.task import Task
from gapt_jax.tasks.turn_taking import metrics, rules, tokens
from gapt_jax.tasks.turn_taking.reward_models import reward_models

FILE_NAME = "tokens.json"


@dataclasses.dataclass(frozen=True, eq=False)
class TurnTaking(Task):
    """The tokens are always the same (`tokens`)."""

    vocab_size = tokens.SIZE
    rest = tokens.REST
    reward_models: ClassVar = reward_models()

    def facts(self) -> dict[str, str]:
        return {"tokens": json.dumps([tokens.FRAME_SECONDS, *tokens.names()])}

    def save(self, folder: Path) -> None:
        write_atomic(folder / FILE_NAME, self.facts()["tokens"])

    def valid_actions(self, previous: jax.Array) -> jax.Array:
        return rules.valid_tokens(previous)

    def valid_context(self, previous: jax.Array) -> jax.Array:
        return rules.valid_context(previous)

    @property
    def going_on(self) -> np.ndarray:
        """The hold of each onset; of what is heard, that nothing changes."""
        token = np.arange(tokens.SIZE, dtype=np.int32)
        unchanged = token - (token - tokens.CONTEXT) % 4
        return np.where(token >= tokens.CONTEXT, unchanged, token + tokens.is_onset(token)).astype(np.int32)

    def rule_terms(self, context: jax.Array, actions: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        """Monologues and chatter are punished frame by frame, all else on the last frame."""
        return {
            "chatter": rules.chatter(actions, mask),
            "invalid": at_last(rules.invalid(actions, mask), mask),
            "monologue": rules.monologue(actions, mask),
            "mute": at_last(rules.mute(actions, mask), mask),
        }

    def is_valid(self, actions: jax.Array, mask: jax.Array) -> jax.Array:
        return rules.invalid(actions, mask) == 0

    def measure(self, context: np.ndarray, actions: np.ndarray, data: np.ndarray) -> dict[str, float]:
        return metrics.summarize(context, actions, data)

    def counts(self, context: np.ndarray, actions: np.ndarray) -> dict[str, np.ndarray]:
        clear, speech = metrics.clear_speech(context, actions)
        return {"clear": clear.astype(np.int32), "speech": speech.astype(np.int32)}
