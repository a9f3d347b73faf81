"""What this process is doing now: kept by whoever does it, read by the endpoint for Prometheus (`endpoint`)."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Iterator

ITERATIONS = 20  # that the shown rate is measured over


@dataclasses.dataclass
class Status:
    """The state of a run, as the host knows it: it does not wait for the device inside an iteration."""

    stage: str = ""  # what the line of progress calls it
    step: int = 0  # of this stage, logged
    phase: str = ""  # input, iterations, evaluation, checkpoint, restore
    alarms: dict[str, int] = dataclasses.field(default_factory=dict)  # the step at which each was raised last
    frames: int = 0  # of an iteration
    mfu_at_one: float | None = None  # share of the peak that one iteration a second would be
    _began: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=ITERATIONS + 1))

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """`phase` is what goes on in the block."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def begin_iteration(self) -> None:
        self._began.append(time.monotonic())

    @property
    def iterations_per_s(self) -> float | None:
        """The rate of the last 20 iterations up to now: it falls while there are none. None before there are two."""
        began = list(self._began)
        return (len(began) - 1) / max(time.monotonic() - began[0], 1e-9) if len(began) > 1 else None


NOW = Status()  # of this process, which does one thing at a time
