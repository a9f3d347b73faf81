"""The host loop of a population: its members train in one program, each into a run folder of its own.

A member's folder is that of a single run: it can be evaluated, sampled, exported and gone on from like one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax.algorithm import population
from gapt_jax.algorithm.layout import pad_rows
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec, hyperparameters, init_state
from gapt_jax.config import Experiment, arm_name
from gapt_jax.errors import Preempted, TrainingStopped
from gapt_jax.runtime import hosts
from gapt_jax.runtime.checkpoint import Checkpoints, checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import strict_json, write_atomic
from gapt_jax.runtime.health import AlarmedLog, Health
from gapt_jax.runtime.mesh import MeshMembers
from gapt_jax.training.job import Job
from gapt_jax.training.systems import Evaluator
from gapt_jax.training.trainer import SCORE, SHOWN, STAGE, abstract_state, checkpoint_facts, first_monitor, monitor
from gapt_jax.training.watch import Watch
from gapt_jax.types import Params

STOPPED = "stopped.json"  # in the folder of a member that could not go on


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a population: all its members have the same `program`."""

    experiment: Experiment
    folder: Path

    @property
    def arm(self) -> str:
        return arm_name(self.experiment)

    def spec(self, spec: Spec) -> Spec:
        return dataclasses.replace(spec, config=self.experiment.algorithm)


class _Quiet:
    """A progress bar that shows nothing: the population has one for all members."""

    def update(self, step: int, **values: float) -> None: ...


class _Named(Console):
    """A console whose warnings say which member they are about."""

    def __init__(self, name: str, console: Console):
        self._name, self._console = name, console

    def warn(self, text: str) -> None:
        self._console.warn(f"{self._name}: {text}")


class _Diary:
    """What the host keeps of one member: its log, alarms and checkpoints, and why it was stopped, if it was."""

    def __init__(
        self, member: Member, spec: Spec, start: int | None, streak: int, saved: Checkpoints, console: Console
    ):
        self.member, self.saved, self.stopped = member, saved, ""
        self._facts, self._console = checkpoint_facts(member.spec(spec)), _Named(member.folder.name, console)
        runtime = member.experiment.runtime
        self._log = AlarmedLog(member.folder, STAGE, start, Health(member.experiment), self._console)
        self._watch = Watch(STAGE, self._log, _Quiet(), (), runtime.max_nonfinite_steps, streak)  # type: ignore[arg-type]
        self._kept = False

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One row of the log. What would stop a single run stops this member alone."""
        if self.stopped:
            return
        try:
            if step:
                self._watch.push(step, values)
                self._watch.flush()
            else:
                self._log.write(STAGE, 0, values)
            actions = {alarm.action: alarm for alarm in self._log.take()}
            self._kept |= "keep" in actions
            if "stop" in actions:
                raise TrainingStopped(f"{STAGE} stopped at step {step}: {actions['stop'].message}")
        except TrainingStopped as reason:
            self.stopped = str(reason)
            self._console.warn(f"{reason}; the others go on")
            write_atomic(self.member.folder / STOPPED, strict_json({"reason": self.stopped}))

    def save(self, step: int, state: LearnerState, score: float | None) -> None:
        if not self.stopped:
            position = {"data_position": step * self.member.experiment.algorithm.batch_size}
            self.saved.save(step, state, self._facts | position, score, is_kept=self._kept)
            self._kept = False

    def close(self) -> None:
        self._log.close()


def post_train(
    job: Job, members: Sequence[Member], frozen: Frozen, policy: Params, evaluator: Evaluator, spread: MeshMembers
) -> dict[str, str]:
    """Trains members of one `program`, from their last common checkpoint on if they have one, and returns why those
    were stopped that were, by folder name. Raises Preempted after a save.
    """
    experiment, console = members[0].experiment, job.console
    steps, runtime, rows = experiment.algorithm.steps, experiment.runtime, experiment.algorithm.batch_size
    spec = dataclasses.replace(job.spec, layout=spread.layout(runtime.microbatch_rows))
    songs = job.valid_songs(experiment.evaluation.monitor_songs)
    frozen = spread.everywhere(frozen)
    with contextlib.ExitStack() as stack:
        saved = [
            stack.enter_context(checkpoints(m.folder / "checkpoints", m.experiment.runtime, console)) for m in members
        ]
        start, states = _restored_or_new(job.spec, spec, members, saved, policy, spread)
        streaks = np.asarray(spread.everywhere(states.nonfinite_steps))
        diaries = [
            stack.enter_context(contextlib.closing(_Diary(m, job.spec, start, int(streaks[n]), saved[n], console)))
            for n, m in enumerate(members)
        ]
        progress = stack.enter_context(console.progress(f"{STAGE} × {len(members)}", steps, start or 0))

        def evaluated() -> list[dict[str, float]]:
            return [
                {} if diary.stopped else monitor(evaluator, member_of(states, n, spread), songs, experiment)
                for n, diary in enumerate(diaries)
            ]

        def write(step: int, measured: Mapping[str, np.ndarray], monitors: Sequence[Mapping[str, float]]) -> None:
            for n, diary in enumerate(diaries):
                diary.write(step, {name: x[n] for name, x in measured.items()} | dict(monitors[n]))
            alive = np.array([not diary.stopped for diary in diaries])
            shown = {
                name.rsplit("/")[-1]: x[: len(alive)][alive].mean() for name, x in measured.items() if name in SHOWN
            }
            progress.update(step, **shown if alive.any() else {})

        none: list[dict[str, float]] = [{} for _ in members]
        if start is None:
            first = first_monitor(evaluator, member_of(states, 0, spread), songs, experiment)
            write(0, {}, [first] * len(members))  # all begin with the same policy
        sources = {m.experiment.seed: job.batches(m.experiment.seed)(rows, start or 0) for m in members}
        pending: tuple[int, Any] | None = None
        for step in range((start or 0) + 1, steps + 1):
            batches = _batches(members, {seed: next(source) for seed, source in sources.items()}, spread)
            states, measured = population.iteration(spec, spread, states, frozen, batches)
            if pending:
                write(pending[0], jax.device_get(pending[1]), none)
            pending = (step, spread.everywhere(measured))
            is_evaluated, is_told = step % experiment.evaluation.every == 0 or step == steps, hosts.should_stop()
            is_due = is_told or step % runtime.checkpoint_every == 0 or step == steps
            if is_evaluated or is_due:
                monitors = evaluated() if is_evaluated else none
                write(step, jax.device_get(pending[1]), monitors)
                pending = None
                for n, diary in enumerate(diaries):
                    diary.saved.check()
                    if is_due:
                        diary.save(step, member_of(states, n, spread), monitors[n].get(SCORE))
            if is_told:
                raise Preempted(f"preempted at step {step} of {steps} of post-training, which is saved")
            if all(diary.stopped for diary in diaries):
                break
        return {diary.member.folder.name: diary.stopped for diary in diaries if diary.stopped}


def member_of(states: LearnerState, number: int, spread: MeshMembers) -> LearnerState:
    """The state of one member, whole on every device."""
    return _take(states, number, spread.whole)


@functools.partial(jax.jit, static_argnames="sharding")
def _take(states: LearnerState, number: jax.Array, sharding: Any) -> LearnerState:
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x[number], sharding), states)


def _batches(members: Sequence[Member], by_seed: Mapping[int, Any], spread: MeshMembers) -> Any:
    """Every member's songs [P, B, T]: those of its seed."""
    chosen = [pad_rows(by_seed[member.experiment.seed], spread.rows_filled(1)) for member in members]
    chosen += chosen[-1:] * (spread.filled(len(members)) - len(members))
    return spread.place(jax.tree.map(lambda *rows: np.stack(rows), *chosen))


def _restored_or_new(
    single: Spec,
    spec: Spec,
    members: Sequence[Member],
    saved: Sequence[Checkpoints],
    policy: Params,
    spread: MeshMembers,
) -> tuple[int | None, LearnerState]:
    """(step, states [P, ...]) of the newest step that all members can read, (None, the first states) without one."""
    common = set.intersection(*(set(checkpoint.steps()) for checkpoint in saved))

    def restored(member: Member, checkpoint: Checkpoints) -> tuple[int, LearnerState]:
        like = abstract_state(single, policy, member.experiment)
        found = checkpoint.restore(like, checkpoint_facts(member.spec(single)), common)
        assert found is not None  # it has all steps that are in common
        return found

    while common:
        steps, states = zip(*(restored(*pair) for pair in zip(members, saved, strict=True)), strict=True)
        if len(set(steps)) == 1:
            return steps[0], _together(states, spread)
        common = {step for step in common if step <= min(steps)}  # a member's newer one is damaged
    return None, _first_states(spec, members, policy, spread)


def _first_states(spec: Spec, members: Sequence[Member], policy: Params, spread: MeshMembers) -> LearnerState:
    """What single runs of these members would start from."""
    frames = members[0].experiment.data.max_frames
    start = jax.jit(lambda seed, policy: init_state(spec, policy, seed, frames))
    whole = spread.everywhere(policy)
    return _together(
        [
            dataclasses.replace(start(m.experiment.seed, whole), hyper=hyperparameters(m.experiment.algorithm))
            for m in members
        ],
        spread,
    )


def _together(states: Sequence[LearnerState], spread: MeshMembers) -> LearnerState:
    """[P, ...], filled up with copies of the last member, of which nobody reads, until every device has as many."""
    filled = [*states, *[states[-1]] * (spread.filled(len(states)) - len(states))]
    return spread.place(jax.tree.map(lambda *leaves: jnp.stack(leaves), *filled))
