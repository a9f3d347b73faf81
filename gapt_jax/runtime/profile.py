"""Traces of a few iterations for XProf and Perfetto, where `--profile` asks for them (docs/profile.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from gapt_jax.runtime.console import Console

FOLDER = "profile"  # in the folder of a run
SKIPPED = 3  # first iterations of an attempt: two compile, the third is timed phase by phase


class Profile:
    """Traces `steps` iterations of this attempt, each process into a folder of its own; 0 = none."""

    def __init__(self, folder: Path, steps: int, console: Console) -> None:
        self._steps, self._console, self._is_on = steps, console, False
        self._folder = folder / FOLDER / f"process-{jax.process_index()}"

    @contextlib.contextmanager
    def iteration(self, number: int, step: int, state: Any) -> Iterator[None]:
        """Marks iteration `number` of this attempt (from 1), which makes `step` from `state`."""
        if self._steps and number == SKIPPED + 1:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._folder)
            self._is_on = True
        elif self._is_on and number > SKIPPED + self._steps:
            jax.block_until_ready(state)  # the device may be behind the host
            self._stop()
        with jax.profiler.StepTraceAnnotation("iteration", step_num=step):
            yield

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        """Ends the trace that is being made, on every way out. The last step was read: the device is not behind."""
        if self._is_on:
            self._stop()
        elif self._steps:
            self._console.say(f"no trace: fewer than {SKIPPED + 1} steps were left")

    def _stop(self) -> None:
        self._is_on, self._steps = False, 0
        jax.profiler.stop_trace()
        self._console.say(f"wrote a trace into {self._folder}: docs/profile.md says how to read it")


def trace_runs(folder: Path, run: Callable[[], Any], steps: int) -> None:
    """Writes a trace of `steps` runs, one after the other, into the folder."""
    with jax.profiler.trace(folder):
        for step in range(steps):
            with jax.profiler.StepTraceAnnotation("run", step_num=step):
                jax.block_until_ready(run())


class NoProfile(contextlib.nullcontext[None]):
    """Traces nothing."""

    def iteration(self, number: int, step: int, state: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()
