"""What the host does beside a training loop: read metrics one step late, log them, stop what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gapt_jax.errors import TrainingStopped
from gapt_jax.runtime.console import Progress
from gapt_jax.runtime.metrics import MetricLog


class Watch:
    """Follows one stage. The device never waits: step n is read while step n + 1 runs."""

    def __init__(
        self,
        stage: str,
        log: MetricLog,
        progress: Progress,
        shown: Sequence[str],
        max_nonfinite_steps: int,
        nonfinite_steps: int = 0,
    ) -> None:
        self._stage, self._log, self._progress, self._shown = stage, log, progress, shown
        self._limit, self._streak = max_nonfinite_steps, nonfinite_steps
        self._last_step: int | None = None
        self._pending: tuple[int, Mapping[str, Any]] | None = None

    def push(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a step that may still be running."""
        self.flush()
        self._pending, self._last_step = (step, metrics), step

    def flush(self) -> None:
        """Reads what is pending. Raises TrainingStopped after too many skipped steps in a row."""
        if self._pending is None:
            return
        step, metrics = self._pending
        self._pending = None
        values = {name: float(value) for name, value in jax.device_get(dict(metrics)).items()}
        self._log.write(self._stage, step, values)
        self._progress.update(step, **{_word(n): values[n] for n in self._shown if n in values})
        self._check(step, values)

    def finish(self, start: int, steps: int) -> None:
        """Ends the stage, which began after step `start`. Raises TrainingStopped if it did not reach its last step."""
        self.flush()
        reached = start if self._last_step is None else self._last_step
        if reached < steps:
            raise TrainingStopped(f"{self._stage} ran out of songs at step {reached} of {steps}")

    def _check(self, step: int, values: Mapping[str, float]) -> None:
        skipped = any(value > 0 for name, value in values.items() if name.endswith("skipped"))
        self._streak = self._streak + 1 if skipped else 0
        if self._streak >= self._limit:
            raise TrainingStopped(
                f"{self._stage} stopped at step {step}: {self._streak} steps in a row were skipped because "
                f"{culprit(values)} is not finite; the last checkpoint is intact"
            )


def _word(metric: str) -> str:
    """How a line of progress names a metric: ``kl``, ``valid loss``."""
    *groups, last = metric.split("/")
    return f"valid {last}" if groups == ["valid"] else last


def culprit(values: Mapping[str, float]) -> str:
    """The first quantity in the order of computation that is not finite: a reward term before the losses it spoils."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    order = ("reward/", "discriminator/reward", "kl", "value", "return", "ratio")
    known = [name for prefix in order for name in bad if name.startswith(prefix) and name != "reward/total"]
    return f"'{(known or bad or ['a gradient'])[0]}'"
