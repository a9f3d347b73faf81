"""What the host does beside the training of one run: logs its metrics, saves it, stops it when it goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gapt_jax.errors import TrainingStopped
from gapt_jax.runtime.checkpoint import Checkpoints
from gapt_jax.runtime.health import Alarm
from gapt_jax.runtime.metrics import MetricLog


class Watch:
    """Follows one run, a member of a population or a supervised stage: `stopped` says why it does not go on."""

    def __init__(
        self,
        stage: str,
        log: MetricLog,
        saved: Checkpoints,
        facts: Mapping[str, Any],
        rows: int,
        max_nonfinite_steps: int,
        nonfinite_steps: int = 0,
    ) -> None:
        self.saved = saved
        self.stopped: TrainingStopped | None = None
        self._stage, self._log, self._facts, self._rows = stage, log, facts, rows
        self._limit, self._streak = max_nonfinite_steps, nonfinite_steps

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a step. Stops the run after too many skipped steps in a row."""
        self._log.write(self._stage, step, values)
        skipped = any(value > 0 for name, value in values.items() if name.endswith("skipped"))
        self._streak = self._streak + 1 if skipped else 0
        if self._streak >= self._limit:
            reason = (
                f"{self._stage} stopped at step {step}: {self._streak} steps in a row were skipped because "
                f"{culprit(values)} is not finite; the last checkpoint is intact"
            )
            self.stop(TrainingStopped(reason))

    def check(self) -> dict[str, Alarm]:
        """The alarms that were raised since the last check, by what they ask for. Raises the error of a save that went
        wrong in the background."""
        self.saved.check()
        return {alarm.action: alarm for alarm in self._log.take()}

    def save(self, step: int, state: Any, score: float | None, *, is_kept: bool) -> None:
        self.saved.save(step, state, {**self._facts, "data_position": step * self._rows}, score, is_kept=is_kept)

    def stop(self, reason: TrainingStopped) -> None:
        """The run does not go on, for this reason."""
        self.stopped = reason

    def stop_for(self, step: int, alarm: Alarm) -> None:
        """The run does not go on, for an alarm that asks it; this step is saved."""
        reason = (
            f"{self._stage} stopped at step {step}, which is saved: {alarm.alarm}, {alarm.message}; the same command "
            f"goes on regardless, and with health.actions.{alarm.alarm}=log none is stopped for it"
        )
        self.stop(TrainingStopped(reason))

    def raise_if_stopped(self) -> None:
        if self.stopped is not None:
            raise self.stopped

    def close(self) -> None:
        self._log.close()


def word(metric: str) -> str:
    """How a line of progress names a metric: ``kl``, ``valid loss``."""
    *groups, last = metric.split("/")
    return f"valid {last}" if groups == ["valid"] else last


def culprit(values: Mapping[str, float]) -> str:
    """The first quantity in the order of computation that is not finite: a reward term before the losses it spoils."""
    shut = {"discriminator/loss"} if values.get("discriminator/is_open") == 0 else set()  # which has none then
    bad = [name for name, value in values.items() if not math.isfinite(value) and name not in shut]
    order = ("reward/", "discriminator/reward", "kl", "value", "return", "ratio")
    known = [name for prefix in order for name in bad if name.startswith(prefix) and name != "reward/total"]
    return f"'{(known or bad or ['a gradient'])[0]}'"
