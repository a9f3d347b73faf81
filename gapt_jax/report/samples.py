"""The examples that a report shows: the same moment, as each system played it. No files."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gapt_jax.evaluation.results import Study

MOST = 3


class Sample(NamedTuple):
    """A context [T] and each system's actions [T] for it."""

    identity: str
    dataset: str
    context: np.ndarray
    actions: dict[str, np.ndarray]


def samples(study: Study) -> list[Sample]:
    """The first examples of the first run, with the actions of the lowest seed of each arm that played them; of runs
    that share the first one's tokens."""
    runs = [run for run in study.runs if run.task.identity == study.runs[0].task.identity]
    first = runs[0].samples
    found = []
    for row, identity in enumerate(first["ids"][:MOST]):
        actions: dict[str, Any] = {}
        for run in runs:
            kept = run.samples
            same = [i for i, other in enumerate(kept["ids"]) if other == identity]
            if same and kept["context"][same[0]] == first["context"][row]:
                for system, rows in kept["systems"].items():
                    actions.setdefault(system, np.array(rows[same[0]], np.int32))
        context = np.array(first["context"][row], np.int32)
        found.append(Sample(str(identity), str(first["dataset"]), context, actions))
    return found
