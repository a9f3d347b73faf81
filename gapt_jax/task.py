"""The door between the method and a domain: what the learner asks of one, and nothing else about it.

In each frame the agent emits one token, its action, and then hears one, its context. The learner learns what tokens
mean through this door alone; domains are in `gapt_jax.tasks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from gapt_jax.types import Params

PAD, BOS, EOS = 0, 1, 2  # the first token ids of every task; PAD fills up an example after its end


class Task(Protocol):
    """A domain as the learner sees it. B examples, T frames, V tokens; pure functions, called inside compiled ones."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def rest(self) -> int:
        """The token that stands for the action before the first frame."""

    def to_json(self) -> str:
        """What the tokens mean; stored with every checkpoint, which only a task of the same tokens reads."""

    def valid_actions(self, previous: jax.Array) -> jax.Array:
        """[...] previous action -> [..., V] bool: the tokens that may follow it."""

    def rule_terms(self, context: jax.Array, actions: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        """Penalties [B, T] float32 by name, before their weights; `mask` [B, T] is 1 where an action counts."""

    def is_valid(self, actions: jax.Array, mask: jax.Array) -> jax.Array:
        """[B] bool: examples whose actions can be decoded."""

    def coherence(
        self, models: Any, members: Mapping[str, Params], context: jax.Array, actions: jax.Array
    ) -> dict[str, jax.Array]:
        """Scores [seeds, B] float32 of the pairs by every reward model of `models` (`gapt_jax.models.Models`) that has
        parameters in `members`, by name; these have a leading axis [seeds]."""

    def embed(
        self, models: Any, encoder: Params, context: jax.Array, actions: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """([B, D] embedding of the actions by one encoder, [B] its similarity to that of the context)."""
