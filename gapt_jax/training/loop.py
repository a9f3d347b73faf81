"""The one host loop: advances, logs one step late, evaluates, saves, stops. A run, a population and a stage use it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from gapt_jax.errors import Preempted, TrainingStopped
from gapt_jax.runtime import hosts
from gapt_jax.runtime.account import Account, NoAccount
from gapt_jax.runtime.console import Console, Progress
from gapt_jax.runtime.profile import NoProfile, Profile
from gapt_jax.training.watch import Watch, word

State = TypeVar("State")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long is trained, and what is done beside at which step."""

    steps: int
    is_evaluated: Callable[[int], bool]  # whether this step is
    is_saved: Callable[[int], bool]
    shown: Sequence[str]  # metrics on the line of progress
    score: str = ""  # the metric by which the best checkpoint is chosen


@dataclasses.dataclass
class Loop(Generic[State]):
    """Trains one run, or the members of a population at once: then a metric is an array with one value for each.

    Every decision follows from what all processes know, so that they take the same ones.
    """

    name: str  # as a line of progress calls it
    title: str  # as a sentence calls it
    schedule: Schedule
    runs: Sequence[Watch]
    advance: Callable[[State, Any, Callable[..., Any]], tuple[State, Mapping[str, Any]]]  # (state, batch, call)
    evaluate: Callable[[Any], Mapping[str, Any]]  # of the state of one run
    state_of: Callable[[State, int], Any] = lambda state, number: state  # of one run
    account: Account | NoAccount = dataclasses.field(default_factory=NoAccount)
    profile: Profile | NoProfile = dataclasses.field(default_factory=NoProfile)
    on_saved: Callable[[int, State], Any] = lambda step, state: None  # runs in every process after each save
    _pending: tuple[int, Any] | None = dataclasses.field(default=None, init=False)

    def run(self, state: State, start: int, batches: Iterator[Any], console: Console) -> State:
        """The state after the last step, or after the one at which the last run was stopped. `batches` are those after
        step `start`. Raises Preempted, after a save, when any host is told to stop, TrainingStopped without songs."""
        steps = self.schedule.steps
        if 0 < start < steps:
            console.say(f"{self.name}: goes on from step {start} of {steps}")
        with self.profile, console.progress(self.name, steps, start) as progress:
            for step in range(start + 1, steps + 1):
                with self.account.of("input"):
                    batch = next(batches, None)
                if batch is None:
                    self._read(progress)
                    if self._going():
                        raise TrainingStopped(f"{self.name} ran out of songs at step {step - 1} of {steps}")
                    break
                number = step - start
                with self.profile.iteration(number, step, state), self.account.iteration(number, state) as call:
                    state, metrics = self.advance(state, batch, call)
                    self._read(progress)  # waits for the iteration before
                evaluations = self._evaluate(state) if self.schedule.is_evaluated(step) else {}
                self._pending = step, (metrics, evaluations)
                is_told = hosts.should_stop()
                is_due = is_told or self.schedule.is_saved(step)
                if is_due or evaluations:
                    self._read(progress)  # an evaluation raises its alarms at once
                self._save(step, state, evaluations, is_due, progress)
                if is_told:
                    raise Preempted(f"preempted at step {step} of {steps} of {self.title}, which is saved")
                if not self._going():
                    break
            self._read(progress)
        return state

    def _going(self) -> dict[int, Watch]:
        """The runs that were not stopped, by number."""
        return {number: run for number, run in enumerate(self.runs) if run.stopped is None}

    def _evaluate(self, state: State) -> dict[int, Mapping[str, Any]]:
        with self.account.of("evaluation"):
            return {number: self.evaluate(self.state_of(state, number)) for number in self._going()}

    def _read(self, progress: Progress) -> None:
        """Logs the step that is pending, if one is; a run that cannot go on is stopped there."""
        if self._pending is None:
            return
        (step, measured), self._pending = self._pending, None
        metrics, evaluations = jax.device_get(measured)
        rows = {}
        for number, run in self._going().items():
            of_run = {name: np.ravel(value)[number] for name, value in metrics.items()}
            values = {**of_run, **evaluations.get(number, {})}
            rows[number] = {name: float(value) for name, value in values.items()}
            run.write(step, rows[number])
        going = [rows[number] for number in self._going()]
        names = [name for name in self.schedule.shown if going and name in going[0]]
        progress.update(step, **{word(name): float(np.mean([row[name] for row in going])) for name in names})

    def _save(
        self, step: int, state: State, evaluations: Mapping[int, Mapping[str, Any]], is_due: bool, progress: Progress
    ) -> None:
        """Saves all runs where a save is due, else those of which an alarm asks it; stops those that one stops."""
        alarms = {number: run.check() for number, run in self._going().items()}
        if not any(is_due or found.keys() & {"keep", "stop"} for found in alarms.values()):
            return
        self._read(progress)  # a step that stops a run is not saved
        going = self._going()
        with self.account.of("checkpoint"):
            for number, run in going.items():
                if is_due or alarms[number].keys() & {"keep", "stop"}:
                    score = evaluations.get(number, {}).get(self.schedule.score)
                    run.save(step, self.state_of(state, number), score, is_kept="keep" in alarms[number])
        if going:
            self.on_saved(step, state)
        for number, run in going.items():
            if "stop" in alarms[number]:
                run.stop_for(step, alarms[number]["stop"])
