"""What one player, and all of them together, may ask of the server (docs/live-protocol.md), and the counts of what was
refused. Knows no network."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

FRAMES_PER_SECOND = 20  # that a player may ask for: a quarter more than 16, the fastest tempo (240 BPM)
FRAMES_AT_ONCE = 512  # of which so many at once: half a minute at the fastest tempo, for who was cut off
NOTES_PER_SECOND, NOTES_AT_ONCE = 128, 1024  # keys that go down or up
START_FRAMES, MODEL_FRAMES = 8, 32  # what a start or reset, and another model, cost of the frames
RECORDING_SIZE = 200_000  # steps, events and frames of a recording: at least 100 minutes at the fastest tempo
RECORDINGS_SIZE = 1_000_000  # of all recordings together
RETAKE_FRAMES = 4096  # of a recording that another model may play: eight and a half minutes at 120 BPM
RETAKES = 4  # that may wait or be made at once


class Allowance:
    """So much at once, and so much more each second; what is not taken is kept up to what may be taken at once."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self._per_second, self._at_once = per_second, at_once
        self._left, self._since = at_once, 0.0

    def take(self, amount: float, at: float) -> bool:
        """Takes an amount at a time in monotonic seconds; takes nothing and says False where less is left."""
        self._left = min(self._at_once, self._left + self._per_second * max(0.0, at - self._since))
        self._since = at
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def owe(self, amount: float, at: float) -> float:
        """Takes an amount even where less is left: the seconds until 2 may be taken again."""
        if not self.take(amount, at):
            self._left -= amount
        return max(0.0, (2 - self._left) / self._per_second)


class Counts:
    """The numbers at ``/metrics``."""

    def __init__(self, sessions: Callable[[], float], unsaved: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        for name, text, read in (
            ("gapt_live_sessions", "sessions that a player plays in", sessions),
            ("gapt_live_unsaved_takes", "takes of a study that wait to be written", unsaved),
        ):
            Gauge(name, text, registry=self.registry).set_function(read)
        self.ticks = Counter("gapt_live_ticks", "ticks that were answered", registry=self.registry)
        text = "what was dropped or refused because too much was asked"
        self.dropped = Counter("gapt_live_dropped", text, ["what"], registry=self.registry)
        for what in ("ticks", "notes", "ahead", "players", "recordings", "downloads", "retakes", "connections"):
            self.dropped.labels(what)
