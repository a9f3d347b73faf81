"""Shows Prometheus what this process is doing, where `--metrics-port` asks for that (docs/health.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from gapt_jax.errors import UserError, install
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.status import ITERATIONS, NOW, Status


class _Collector:
    """Gives the state at the time of the question."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily as Gauge

        now = self._status
        step = Gauge("gapt_step", "step of the stage under way", labels=["stage"])
        step.add_metric([now.stage], now.step)
        phase = Gauge("gapt_phase", "1 for what the host is doing", labels=["phase"])
        phase.add_metric([now.phase], 1)
        alarm = Gauge("gapt_alarm_step", "step at which an alarm was raised last, by this process", labels=["alarm"])
        for name, raised in dict(now.alarms).items():
            alarm.add_metric([name], raised)
        yield from (step, phase, alarm)
        rate = now.iterations_per_s
        if rate is not None and now.frames:
            text = f"frames played and learnt from, over the last {ITERATIONS} iterations"
            yield Gauge("gapt_frames_per_second", text, value=rate * now.frames)
            if now.mfu_at_one is not None:
                yield Gauge("gapt_mfu", "share of the peak of bfloat16, over the same", value=rate * now.mfu_at_one)


@contextlib.contextmanager
def served(place: tuple[str, int] | None, console: Console) -> Iterator[None]:
    """Answers ``GET /metrics`` at (address, port) inside the block, if a place is given; port 0 takes a free one."""
    if place is None:
        yield
        return
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError:
        raise UserError(f"--metrics-port needs prometheus_client: {install('live')}") from None
    address, port = place
    registry = CollectorRegistry()
    registry.register(_Collector(NOW))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise UserError(f"--metrics-port {address}:{port} cannot be had ({error.strerror}): choose another") from None
    console.say(f"metrics for Prometheus: http://{address}:{server.server_port}/metrics")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
