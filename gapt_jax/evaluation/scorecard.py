"""All metrics of docs/method.md §12 for one system on one set of songs, and for several on several sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gapt_jax.evaluation import embeddings
from gapt_jax.evaluation.evaluator import INDEPENDENT, Evaluator, sounding
from gapt_jax.task import Change, Domain
from gapt_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Unseen:
    """The headline metrics of one system on the songs of a set that training does not hear (docs/method.md §12.1), of
    those that need no more play; none without such a song."""

    metrics: dict[str, float]
    songs: int


@dataclasses.dataclass(frozen=True)
class Scorecard:
    """One system on one set of N songs, in n of which something is played at all."""

    metrics: dict[str, float]
    actions: np.ndarray  # [N, T] int32: what was played
    songs: dict[str, np.ndarray]  # of n songs: row of the set [n], `Task.counts`, actions in the independent encoder
    extras: dict[str, Any]  # what was played beside (`Domain.again`); none of data, which hears nothing
    reward_models: dict[str, Any]  # `Evaluator.reward_model_quality`, of data alone
    unseen: Unseen | None  # without the songs that training hears too, where these are known

    @property
    def independent(self) -> np.ndarray | None:
        """[n, D] float32: what was played, in the independent encoder, if there is one."""
        return self.songs.get(INDEPENDENT)


@dataclasses.dataclass(frozen=True)
class System:
    """One system on all sets."""

    sets: dict[str, Scorecard]  # by "dataset/split"
    decode_step: dict[str, float] | None  # its time; none of data, which nothing decodes


def score_systems(
    evaluator: Evaluator,
    domain: Domain,
    songs: Mapping[str, Any],
    policies: Mapping[str, Params | None],
    sampling: str,
    change: Change,
    known: Mapping[str, System],
) -> dict[str, System]:
    """Every system of `policies` on every set of `songs` (`Corpus.evaluation_songs`); a system that is
    `known` already is taken as it is. The policy of "data", which comes first, is None."""
    systems: dict[str, System] = {}
    for system, policy in policies.items():
        if system in known:
            systems[system] = System({name: known[system].sets[name] for name in songs}, known[system].decode_step)
            continue
        cards = {}
        for name, chosen in songs.items():
            data = systems["data"].sets[name] if systems else None
            cards[name] = score(evaluator, domain, chosen, policy, data, sampling, change)
        heard = next(iter(songs.values())).context[0]
        systems[system] = System(cards, evaluator.decode_step(policy, heard, sampling=sampling) if policy else None)
    return systems


def score(
    evaluator: Evaluator,
    domain: Domain,
    songs: Any,
    policy: Params | None,
    data: Scorecard | None,
    sampling: str,
    change: Change,
) -> Scorecard:
    """The scorecard of a policy beside that of data, or (both None) that of data itself."""
    context, actions = songs.context, songs.actions
    if policy:
        actions = evaluator.play(policy, context, songs.index, sampling=sampling)
    metrics, embedded = evaluator.judge(context, actions, songs.actions)
    unseen = _unseen(evaluator, domain, songs, actions, metrics)
    kept = sounding(context, actions)
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
    extras: dict[str, Any] = {}
    if policy:
        metrics |= evaluator.divergence(policy, context, actions, sampling=sampling)
        if evaluator.config.post_hoc_steps:
            metrics["post_hoc_accuracy"] = evaluator.post_hoc_accuracy(actions, songs.actions)
        found, extras = domain.again(evaluator, policy, songs, actions, sampling, change)
        metrics |= found
    counts = {name: x[kept] for name, x in evaluator.spec.task.counts(context, actions).items()}
    rows = {"song": np.flatnonzero(kept).astype(np.int32), **counts}
    if independent is not None:
        rows[INDEPENDENT] = independent.astype(np.float32)
    tested = {} if policy else evaluator.reward_model_quality(context, actions)
    return Scorecard(metrics, actions, rows, extras, tested, unseen)


def _unseen(
    evaluator: Evaluator, domain: Domain, songs: Any, actions: np.ndarray, metrics: dict[str, float]
) -> Unseen | None:
    """What `metrics` of all songs are without those that are `seen`."""
    seen = getattr(songs, "seen", None)
    if seen is None:
        return None
    chosen = ~seen
    if chosen.any() and not chosen.all():
        metrics = evaluator.judge(songs.context[chosen], actions[chosen], songs.actions[chosen])[0]
    shown = {name: metrics[name] for name in domain.headline if name in metrics}
    return Unseen(shown if chosen.any() else {}, int(chosen.sum()))


def rows_of(systems: Mapping[str, System]) -> dict[str, np.ndarray]:
    """What statistics over songs need, keyed "<system>|<dataset>|<array>"."""
    return {
        f"{system}|{name}|{field}": rows
        for system, scored in systems.items()
        for name, card in scored.sets.items()
        for field, rows in card.songs.items()
    }
