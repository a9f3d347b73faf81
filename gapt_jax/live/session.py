"""One player at one socket: the messages of `docs/live-protocol.md`, checked and turned into engine calls."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from gapt_jax.live import limits
from gapt_jax.live.engine import FUTURE, RANGES, Controls, Engine, Planned
from gapt_jax.live.model import LEAST_PLANNED, LiveModel
from gapt_jax.live.notes import VELOCITY, Event, chord_entries, note_entries
from gapt_jax.live.recording import Recording
from gapt_jax.vocabulary import SILENCE

if TYPE_CHECKING:
    from gapt_jax.live.study import Take

STATS_EVERY = 32  # frames
MAX_EVENTS = 128  # of one message
MAX_DEPTH = 4  # of objects and lists in a message
MAX_GAP = limits.FRAMES_AT_ONCE  # frames that a tick may lie ahead of the engine
SLICE = 4  # frames that are committed in one go
_RANGES = RANGES | {"lookahead_frames": (LEAST_PLANNED, RANGES["lookahead_frames"][1])}  # 1: no chord is ever in time
_WHOLE = {"beats_per_bar", "seed", "lookahead_frames", "commit_frames", "intro_frames", "plan_per_tick"}


class Fault(Exception):
    """A message that cannot be used: the code and the sentence of the ``error``."""

    def __init__(self, code: str, text: str, *, is_fatal: bool = False) -> None:
        self.code, self.text, self.is_fatal = code, text, is_fatal

    def message(self) -> dict[str, Any]:
        return {"type": "error", "code": self.code, "msg": self.text, "fatal": self.is_fatal}


def warning(code: str, text: str) -> dict[str, Any]:
    """A ``warn`` for the player."""
    return {"type": "warn", "code": code, "msg": text}


class TooFast(Fault):
    """What is dropped because the player asks for more than it may; `what` names it in plural."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__("too_fast", text)
        self.what = what


def read_message(text: str) -> dict[str, Any]:
    """A JSON object with a `type`, at most `MAX_DEPTH` deep. Raises Fault."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Fault("bad_message", "a message is one JSON object") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Fault("bad_message", "a message is a JSON object with a type")
    if not _is_flat(message, MAX_DEPTH):
        raise Fault("bad_message", f"a message is at most {MAX_DEPTH} lists and objects deep")
    return message


def _is_flat(value: Any, depth: int) -> bool:
    """Whether a JSON value has at most `depth` lists and objects within each other."""
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(_is_flat(v, depth - 1) for v in (value.values() if isinstance(value, dict) else value))


def read_time(message: dict[str, Any]) -> float | None:
    """The `t` of a message, which its answer repeats. Raises Fault where it is no number."""
    value = message.get("t")
    if value is not None and not (type(value) in (int, float) and abs(value) <= 1e300):  # NaN neither
        raise Fault("bad_value", "t must be a number")
    return value


def read_controls(message: dict[str, Any], before: Controls) -> Controls:
    """The controls of a message over those that hold. Raises Fault on a value that is out of its range."""
    changes: dict[str, Any] = {}
    for name, (low, high) in _RANGES.items():
        if name in message:
            value = message[name]
            kinds = (int,) if name in _WHOLE else (int, float)
            if type(value) not in kinds or not low <= value <= high:
                raise Fault("bad_value", f"{name} must be a {'whole ' * (name in _WHOLE)}number in {low:g}..{high:g}")
            changes[name] = value
    if "masked" in message:
        if not isinstance(message["masked"], bool):
            raise Fault("bad_value", "masked must be true or false")
        changes["masked"] = message["masked"]
    found = dataclasses.replace(before, **changes)
    if found.commit_frames > found.lookahead_frames:
        if "commit_frames" in message:
            raise Fault("bad_value", "commit_frames must not be above lookahead_frames")
        found = dataclasses.replace(found, commit_frames=found.lookahead_frames)
    return found


def paced(message: dict[str, Any], controls: Controls, model: LiveModel) -> Controls:
    """The controls of a message with as many frames planned in a tick as this machine can, where it does not say."""
    if "plan_per_tick" in message:
        return controls
    return dataclasses.replace(controls, plan_per_tick=model.affordable(15 / controls.bpm))


def _whole(message: dict[str, Any], name: str, low: int, high: int) -> int:
    value = message.get(name)
    if type(value) is not int or not low <= value <= high:
        raise Fault("bad_value", f"{name} must be a whole number in {low}..{high}")
    return value


def read_events(message: dict[str, Any]) -> list[Event]:
    """The events of a ``notes`` message. Raises Fault."""
    events = message.get("events")
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        raise Fault("bad_message", f"events must be a list of at most {MAX_EVENTS}")
    found = []
    for event in events:
        if not isinstance(event, dict) or not isinstance(event.get("on"), bool):
            raise Fault("bad_message", "an event has a frame f, on, a pitch p and a velocity v")
        frame, pitch = _whole(event, "f", 0, 2**31), _whole(event, "p", 0, 127)
        found.append(Event(frame, event["on"], pitch, _whole(event | {"v": event.get("v", VELOCITY)}, "v", 0, 127)))
    return found


class LiveSession:
    """An engine with its recording and its clock. `tick` computes and belongs into the model's thread; what comes in
    between waits until the next one."""

    def __init__(self, identity: str, model: LiveModel, controls: Controls) -> None:
        self.identity = identity
        self.engine = Engine(model, controls)
        self.recording = Recording(identity, self.engine)
        self.model_name = model.name  # for the player; a letter in a study
        self.take: Take | None = None  # of a study, where the player agreed to be recorded
        self.last_used = time.monotonic()
        self.late_plans = self.coalesced = 0
        self.allowed: limits.Allowance | None = None  # frames that the player may ask for; None: any
        self.too_fast = 0  # ticks and notes that were dropped because more were asked for than may be
        self._rev = 0
        self._pending: list[Event] = []
        self._changes: dict[str, Any] = {}
        self._late_told = 0
        self._end_told: Recording | None = None
        self._last_tick = 0
        self._milliseconds: list[float] = []
        self._next_stats = STATS_EVERY

    @property
    def controls(self) -> Controls:
        """What holds from the next tick on."""
        return self._changes.get("set", self.engine.controls)

    @property
    def has_begun(self) -> bool:
        """Whether a tick has come since its begin, or since the last reset."""
        return bool(self.recording.entries)

    def notes(self, message: dict[str, Any]) -> None:
        """Keeps events for the next tick."""
        events = read_events(message)
        if any(event.frame > self._last_tick + FUTURE for event in events):
            raise Fault("future_frame", f"an event lies more than {FUTURE} frames ahead of the last tick")
        if len(self._pending) + len(events) > 8 * MAX_EVENTS:
            raise TooFast("notes", "too many notes between two ticks: some were dropped")
        self._pending += events

    def change(self, kind: str, value: Any) -> None:
        """Keeps a change of controls or model for the next tick; the last of each kind counts. Raises Fault where it
        would change chords that are final."""
        if kind == "set" and self.has_begun and value.intro_frames != self.controls.intro_frames:
            raise Fault("bad_value", "intro_frames cannot change while a session plays: start anew with it")
        self._changes[kind] = value

    def check_tick(self, message: dict[str, Any]) -> int:
        """The frame of a tick that may come next. Raises Fault, TooFast where the player asks for too many frames."""
        now = _whole(message, "now_frame", 0, 2**31)
        if now < self._last_tick:
            raise Fault("late_frame", f"frame {now} lies before the last tick, {self._last_tick}")
        if now > self.engine.now + MAX_GAP:
            raise Fault("future_frame", f"a tick may be {MAX_GAP} frames ahead of what the band has played")
        if self.allowed and not self.allowed.take(max(1, now - self._last_tick), time.monotonic()):
            raise TooFast("ticks", "too many frames in so short a time: ticks were dropped")
        self._last_tick = now
        return now

    def reset(self) -> None:
        """Begins again at frame 0; the recording begins anew too."""
        self.engine.controls = self.controls
        self.engine.reset()
        self.recording = Recording(self.identity, self.engine)
        if self.take:
            self.take.forget()
        self._pending, self._changes, self._last_tick = [], {}, 0
        self._next_stats = STATS_EVERY

    def is_behind(self, now: int) -> bool:
        """Whether more frames have passed before `now` than one slice commits."""
        return now - self.engine.now > SLICE

    def commit(self, now: int) -> None:
        """Commits one slice of the frames before `now`; `tick` does the rest."""
        until = min(now, self.engine.now + SLICE)
        self._take_in("commit", until)
        self.engine.commit(until)

    def _take_in(self, kind: str, now: int) -> None:
        """What came since the last step goes to the engine, and with the step into the recording."""
        events, self._pending = self._pending, []
        changes, self._changes = self._changes, {}
        for change, value in changes.items():
            if change == "model":
                self.engine.use(value)
                self.recording.add("model", weights_sha256=value.weights_sha256)
            else:
                self.engine.controls = value
                self.recording.add("set", controls=dataclasses.asdict(value))
        self.engine.hear(events)
        self.recording.add(kind, now_frame=now, events=[list(event) for event in events])

    def tick(self, now: int, echo: Any, received: float) -> list[dict[str, Any]]:
        """Commits and plans: the messages for the player. `received` is when the tick came, in monotonic seconds."""
        began = time.monotonic()
        self.last_used = began
        self._take_in("tick", now)
        due = max(len(self.engine.decided), now + 1) - now  # frames until one begins that was not settled
        was_introduced = self.engine.is_introduced
        plan = self.engine.tick(now)
        done = time.monotonic()
        messages = [self._plan_message(plan, echo, due, began - received, done - began)]
        if self.take and not self.recording.is_full:
            self.take.saw(plan, messages[0], received)
        intro = self.engine.controls.intro_frames
        if intro and (now == 0 or (self.engine.is_introduced and not was_introduced)):
            played = [*self.engine.decided[:now], *plan.actions][:intro]
            messages.append(
                {"type": "intro", "chords": chord_entries(0, played, SILENCE, self.engine.model.vocabulary)}
            )
        messages += self._warnings()
        self._milliseconds = [*self._milliseconds[-255:], 1000 * (done - received)]
        if now >= self._next_stats:
            self._next_stats = now + STATS_EVERY
            messages.append(self._stats())
        return messages

    def _warnings(self) -> list[dict[str, Any]]:
        found = []
        if self.engine.late > self._late_told:
            self._late_told = self.engine.late
            found.append(warning("late_frame", "a note came after its frame and was dropped"))
        if self.recording.is_full and self._end_told is not self.recording:
            self._end_told = self.recording
            found.append(warning("recording_full", "the recording is full and ends here; play goes on"))
        return found

    def _plan_message(self, plan: Planned, echo: Any, due: int, queued: float, computed: float) -> dict[str, Any]:
        controls, vocabulary = self.engine.controls, self.engine.model.vocabulary
        before = self.engine.decided[plan.base - 1] if plan.base else SILENCE
        chords = chord_entries(plan.base, plan.actions, before, vocabulary)
        for entry in chords:
            if entry["f"] < controls.intro_frames:
                entry |= {"sym": "", "pitches": [], "on": False}
            elif entry["f"] == controls.intro_frames and entry["pitches"]:
                entry["on"] = True  # what the intro has left sounding is struck where it ends
        self._rev += 1
        slack = due * 15_000 / controls.bpm - 1000 * (queued + computed)
        late = slack < 0
        self.late_plans += late
        return {
            "type": "plan",
            "rev": self._rev,
            "base_frame": plan.base,
            "commit_until": plan.commit_until,
            "chords": chords,
            "melody": note_entries(plan.base, plan.context),
            "compute_ms": round(1000 * computed, 2),
            "queue_ms": round(1000 * queued, 2),
            "slack_ms": round(slack, 2),
            "late": late,
            "t": echo,
        }

    def _stats(self) -> dict[str, Any]:
        p50, p95 = np.percentile(self._milliseconds, (50, 95)).round(2).tolist()
        return {
            "type": "stats",
            "p50_ms": p50,
            "p95_ms": p95,
            "late": self.late_plans,
            "dropped": self.engine.late,
            "coalesced": self.coalesced,
            "too_fast": self.too_fast,
            "frames": self.engine.now,
        }
