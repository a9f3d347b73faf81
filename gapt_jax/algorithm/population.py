"""The same iteration over a population of members, for example a grid of (λ, seed).

Every leaf of the members' states, batches and metrics has a leading axis [P]; the frozen models are held once.
Members share nothing else: none can touch another's numbers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from gapt_jax.algorithm import learner
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec
from gapt_jax.types import Batch, Metrics

T = TypeVar("T")
MEMBERS = "members"  # axis of the members that are computed in one vectorised pass


@dataclasses.dataclass(frozen=True)
class Members:
    """All members on one device. `runtime.mesh.MeshMembers` spreads them over devices."""

    is_vectorised: bool = True  # all in one pass; else one after the other, each of which then fits into a CPU's cache

    def each(self, fn: Callable[[Any, Any], T], members: Any, shared: Any) -> T:
        """fn(member, shared) for every member of trees with a leading axis [P]."""
        if self.is_vectorised:
            return jax.vmap(fn, in_axes=(0, None), axis_name=MEMBERS)(members, shared)
        return jax.lax.map(lambda member: fn(member, shared), members)


@functools.partial(jax.jit, static_argnames=("spec", "spread"), donate_argnames="states")
def iteration(
    spec: Spec, spread: Members, states: LearnerState, frozen: Frozen, batches: Batch
) -> tuple[LearnerState, Metrics]:
    """`learner.iteration` of every member: states [P, ...] after one more step, metrics [P] each."""

    def of_member(member: tuple[LearnerState, Batch], frozen: Frozen) -> tuple[LearnerState, Metrics]:
        state, batch = member
        return learner.iteration(spec, state, frozen, batch)

    return spread.each(of_member, (states, batches), frozen)
