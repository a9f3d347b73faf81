"""Counts what post-training spends its time on, over all attempts of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from gapt_jax.runtime import chips
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json, strict_json, write_atomic
from gapt_jax.runtime.status import NOW

FILE_NAME = "account.json"
BEFORE, AFTER = ("compile", "restore", "input"), ("checkpoint", "evaluation", "idle", "lost")  # the phases between
SAMPLE_EVERY = 11  # iterations, of which one is timed phase by phase; prime: a gate may open every few
_ITERATIONS = "iterations"  # their time before it is divided among the phases
_COMPILING = "/jax/core/compile/"


class Account:
    """Seconds by what they were spent on, in this process.

    The host does not wait for the device inside an iteration, so that its clock cannot tell the phases apart. One
    iteration in 11 is timed with a wait after each phase; the time of all iterations is divided in these
    proportions, and what exceeds them is idle. Lost is the time of an attempt from its last checkpoint, or its start,
    to its last sign of life. Members of a population have one account; each of their folders gets it.
    """

    def __init__(self, folder: Path, devices: int, others: Sequence[Path] = ()) -> None:
        self._path, self._devices = folder / FILE_NAME, devices
        self._paths = [self._path, *(other / FILE_NAME for other in others)]
        known = read_json(self._path, "gapt run") if self._path.exists() else {}
        self._seconds: dict[str, float] = known.get("raw_s", {})
        self._phases: dict[str, list[float]] = known.get("phases_s", {})
        self._iterations, self._attempts = known.get("iterations", 0), known.get("attempts", 0) + 1
        self._compiling = 0.0
        signs_of_life = folder / "metrics.jsonl"
        if known and signs_of_life.exists():
            self._add("lost", max(signs_of_life.stat().st_mtime - known["written"], 0.0))

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Adds the time of every compilation to the account."""

        def heard(event: str, duration_secs: float, **_: Any) -> None:
            if event.startswith(_COMPILING):
                self._compiling += duration_secs
                self._add("compile", duration_secs)

        jax.monitoring.register_event_duration_secs_listener(heard)
        try:
            yield
        finally:
            jax.monitoring.unregister_event_duration_listener(heard)

    @contextlib.contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Counts a block; what is compiled in it counts as compilation."""
        started, compiling = time.monotonic(), self._compiling
        try:
            with NOW.during(name):
                yield
        finally:
            self._add(name, time.monotonic() - started - (self._compiling - compiling))

    @contextlib.contextmanager
    def iteration(self, number: int, state: Any) -> Iterator[Callable[..., Any]]:
        """Counts iteration `number` of this attempt (from 1), which starts from `state`; gives the `call` that runs
        its phases."""
        self._iterations += 1
        NOW.begin_iteration()
        with self.of(_ITERATIONS):
            if number % SAMPLE_EVERY != 3:  # the first two compile
                yield lambda phase, *inputs: phase(*inputs)
                return
            jax.block_until_ready(state)  # else the first phase would be charged with the iteration before
            marked = time.monotonic()

            found: dict[str, float] = {}

            def timed(phase: Callable[..., Any], *inputs: Any) -> Any:
                nonlocal marked
                outputs = jax.block_until_ready(phase(*inputs))
                now = time.monotonic()
                found[phase.__name__] = round(now - marked, 4)
                marked = now
                return outputs

            yield timed
            # Phases of another program, as an earlier attempt may have run, would be counted beside these.
            self._phases = {name: [*self._phases.get(name, []), seconds] for name, seconds in found.items()}

    def divided(self) -> dict[str, float]:
        """Seconds by what they were spent on, in the order of a run."""
        known, spent = dict(self._seconds), self._seconds.get(_ITERATIONS, 0.0)
        means = {phase: sum(times) / len(times) for phase, times in self._phases.items()}
        busy = self._iterations * sum(means.values())
        for phase, seconds in means.items():
            known[phase] = self._iterations * seconds * min(1.0, spent / busy)
        known["idle"] = max(spent - busy, 0.0) if busy else spent
        return {name: round(known[name], 2) for name in (*BEFORE, *means, *AFTER) if name in known}

    def write(self, frames: int, flops: float) -> dict[str, Any]:
        """Writes the account; `frames` of one iteration, `flops` of the matmuls that a mean one is worth."""
        seconds = self.divided()
        spent = self._seconds.get(_ITERATIONS, 0.0) + self._seconds.get("input", 0.0)
        rate = self._iterations / spent if spent else None
        chip = chips.BY_DEVICE_KIND.get(jax.devices()[0].device_kind)
        NOW.frames, NOW.mfu_at_one = frames, flops / (chip.flops * self._devices) if chip and flops else None
        account = {
            "seconds": seconds,
            "iterations": self._iterations,
            "attempts": self._attempts,
            "frames_per_s": rate and round(rate * frames, 1),
            "tokens_per_s": rate and round(2 * rate * frames, 1),  # an action and its context
            "flops_per_s": rate and rate * flops,
            "mfu": rate * flops / (chip.flops * self._devices) if rate and chip else None,  # of bfloat16 peak
            "phases_s": self._phases,
            "raw_s": {name: round(value, 3) for name, value in self._seconds.items()},
            "written": time.time(),
        }
        if len(self._paths) > 1:
            account["members"] = len(self._paths)
        for path in self._paths:
            write_atomic(path, strict_json(account, indent=1))
        return account


class NoAccount:
    """Counts nothing, but says what goes on."""

    def of(self, name: str) -> contextlib.AbstractContextManager[None]:
        return NOW.during(name)

    def iteration(self, number: int, state: Any) -> contextlib.AbstractContextManager[Callable[..., Any]]:
        return self._calling()

    @contextlib.contextmanager
    def _calling(self) -> Iterator[Callable[..., Any]]:
        with NOW.during(_ITERATIONS):
            yield lambda phase, *inputs: phase(*inputs)


def show(account: dict[str, Any], console: Console) -> None:
    """The account as a table."""
    total = sum(account["seconds"].values()) or 1.0
    rows = [[name, f"{value:.1f}", f"{100 * value / total:.1f}"] for name, value in account["seconds"].items()]
    title = f"time of post-training: {account['iterations']} iterations, {account['attempts']} attempt(s)"
    if account["frames_per_s"]:
        mfu = "" if account["mfu"] is None else f", MFU {100 * account['mfu']:.1f} %"
        title += f", {account['frames_per_s']:.0f} frames/s, {account['flops_per_s'] / 1e9:.3g} GFLOP/s{mfu}"
    console.table(title, ["", "s", "%"], rows)
