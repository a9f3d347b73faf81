"""Post-training of a population: its members train in one program, each into a run folder of its own.

A member's folder is that of a single run: it can be evaluated, sampled, exported and gone on from like one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gapt_jax.algorithm import population
from gapt_jax.algorithm.layout import pad_rows
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec, hyperparameters, init_state
from gapt_jax.config import Experiment, arm_name
from gapt_jax.errors import TrainingStopped
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.runtime import hosts
from gapt_jax.runtime.account import Account
from gapt_jax.runtime.checkpoint import Checkpoints, checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json, strict_json, write_atomic
from gapt_jax.runtime.health import AlarmedLog, Health
from gapt_jax.runtime.mesh import MeshMembers
from gapt_jax.runtime.profile import Profile
from gapt_jax.training.job import Job
from gapt_jax.training.loop import Loop
from gapt_jax.training.post_training import (
    STAGE,
    TITLE,
    abstract_state,
    account_writer,
    checkpoint_facts,
    first_monitor,
    monitor,
    saved_steps,
    schedule,
)
from gapt_jax.training.watch import Watch
from gapt_jax.types import Params

STOPPED = "stopped.json"  # in the folder of a member that was stopped: why, and the step that it goes on from


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

    @property
    def why_stopped(self) -> str:
        """The reason of a member that was stopped and not told to go on; else empty."""
        return self._stop()["reason"]

    @property
    def goes_on_from(self) -> int | None:
        """The step from which a member goes on, or went on, that was stopped; None of one that never was."""
        return self._stop()["step"]

    def write_stop(self, step: int, reason: str) -> None:
        write_atomic(self.folder / STOPPED, strict_json({"step": step, "reason": reason}))

    def go_on(self) -> None:
        """Lets a stopped member train on; from which step stays known, so that an interruption changes nothing."""
        self.write_stop(self._stop()["step"], "")

    def _stop(self) -> dict[str, Any]:
        path = self.folder / STOPPED
        if not path.exists():
            return {"step": None, "reason": ""}
        return {"step": max(saved_steps(self.folder), default=0)} | read_json(
            path, "gapt ablate"
        )  # an old record says no step


class _Named(Console):
    """A console whose warnings say which member they are about."""

    def __init__(self, name: str, console: Console):
        self._name, self._console = name, console

    def warn(self, text: str) -> None:
        self._console.warn(f"{self._name}: {text}")


class _MemberWatch(Watch):
    """Follows a member, whose folder knows that it was stopped."""

    def __init__(
        self, member: Member, spec: Spec, start: int | None, streak: int, saved: Checkpoints, console: Console
    ):
        self._member, self._console = member, _Named(member.folder.name, console)
        health, is_silent = Health(member.experiment), not hosts.is_first()
        log = AlarmedLog(member.folder, STAGE, start, health, self._console, is_silent=is_silent)
        facts, config = checkpoint_facts(member.spec(spec)), member.experiment
        rows, limit = config.algorithm.batch_size, config.runtime.max_nonfinite_steps
        super().__init__(STAGE, log, saved, facts, rows, limit, streak)

    def stop(self, reason: TrainingStopped) -> None:
        super().stop(reason)
        self._console.warn(str(reason))
        if hosts.is_first():
            self._member.write_stop(self.saved.latest() or 0, str(reason))


def post_train(
    job: Job, members: Sequence[Member], frozen: Frozen, policy: Params, evaluator: Evaluator, spread: MeshMembers
) -> None:
    """Trains members of one `program`, from their last common checkpoint on if they have one; a member that is stopped
    says so in its folder. Raises Preempted after a save.
    """
    experiment, console, folders = members[0].experiment, job.console, [member.folder for member in members]
    spec = dataclasses.replace(job.spec, layout=spread.layout(experiment.runtime.microbatch_rows))
    songs, frozen = job.valid_songs(experiment.evaluation.monitor_songs), spread.everywhere(frozen)
    account = Account(folders[0], spread.mesh.size, folders[1:])
    write_account = account_writer(account, experiment, job.spec, frozen, len(members))

    with account.listening(), contextlib.ExitStack() as stack:
        saved = [
            stack.enter_context(checkpoints(m.folder / "checkpoints", m.experiment.runtime, console)) for m in members
        ]
        with account.of("restore"):
            start, states = _restored_or_new(job.spec, spec, members, saved, policy, spread)
        streaks = np.asarray(spread.everywhere(states.nonfinite_steps))
        runs = []
        for m, streak, its in zip(members, streaks, saved, strict=False):  # the states may be filled up
            runs.append(_MemberWatch(m, job.spec, start, int(streak), its, console))
            stack.callback(runs[-1].close)
        if start is None:
            with account.of("evaluation"):
                first = first_monitor(evaluator, spread.one(states, 0), songs, experiment)
            for run in runs:
                run.write(0, first)  # all begin with the same policy
        loop = Loop[LearnerState](
            name=f"{STAGE} × {len(members)}",
            title=TITLE,
            schedule=schedule(experiment),
            runs=runs,
            advance=functools.partial(_advance, spec, spread, frozen),
            evaluate=lambda state: monitor(evaluator, state, songs, experiment),
            state_of=spread.one,
            account=account,
            profile=Profile(folders[0], experiment.runtime.profile_steps, console),
            on_saved=lambda step, states: write_account(step, spread.everywhere(states.gate_openings)),
        )
        loop.run(states, start or 0, _batches(job, members, start or 0, spread), console)


def _advance(
    spec: Spec, spread: MeshMembers, frozen: Frozen, states: LearnerState, batches: Any, call: Callable[..., Any]
) -> tuple[LearnerState, Any]:
    states, measured = call(population.iteration, spec, spread, states, frozen, batches)
    return states, spread.everywhere(measured)


def _batches(job: Job, members: Sequence[Member], start: int, spread: MeshMembers) -> Iterator[Any]:
    """Every member's songs [P, B, T], those of its seed, from batch number `start` on; of them this host loads what its
    devices hold."""
    rows, last = members[0].experiment.algorithm.batch_size, len(members) - 1
    seeds = [members[min(number, last)].experiment.seed for number in spread.members_here(len(members))]
    sources = {seed: job.batches(seed, rows_here=np.arange)(rows, start) for seed in seeds}
    for batches in zip(*sources.values(), strict=False):
        by_seed = {seed: pad_rows(batch, spread.rows_filled(1)) for seed, batch in zip(sources, batches, strict=True)}
        yield spread.place_here([by_seed[seed] for seed in seeds], len(members))


def _restored_or_new(
    single: Spec,
    spec: Spec,
    members: Sequence[Member],
    saved: Sequence[Checkpoints],
    policy: Params,
    spread: MeshMembers,
) -> tuple[int | None, LearnerState]:
    """(step, states [P, ...]) of the newest step that all members can read, (None, the first states) without one."""
    common = set(hosts.first_says(lambda: sorted(set.intersection(*(set(its.steps()) for its in saved)))))
    read: list[int] = []

    def restored() -> Iterator[LearnerState]:
        for member, checkpoint in zip(members, saved, strict=True):
            like = abstract_state(single, policy, member.experiment)
            found = checkpoint.restore(like, checkpoint_facts(member.spec(single)), common)
            assert found is not None  # it has all steps that are in common
            read.append(found[0])
            yield found[1]

    while common:
        read.clear()
        states = spread.together(restored(), len(members))
        if len(set(read)) == 1:
            return read[0], states
        common = {step for step in common if step <= min(read)}  # a member's newer one is damaged
    return None, spread.together(_first_states(spec, members, policy, spread), len(members))


def _first_states(spec: Spec, members: Sequence[Member], policy: Params, spread: MeshMembers) -> Iterator[LearnerState]:
    """What single runs of these members would start from."""
    frames = members[0].experiment.data.max_frames
    start = jax.jit(lambda seed, policy: init_state(spec, policy, seed, frames))
    whole = spread.everywhere(policy)
    for m in members:
        yield dataclasses.replace(start(m.experiment.seed, whole), hyper=hyperparameters(m.experiment.algorithm))
