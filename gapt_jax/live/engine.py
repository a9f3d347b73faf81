"""One session of live play, of any task, without network and sound: `Engine.tick` takes what happened, gives a plan.

Each tick first commits the frames that have passed, the action that was decided and the context that was heard, to the
network's cache; then it plans actions, and the context it imagines under them, for the frames ahead. The first of these
are decided for good. Plans are made in a branch, a copy of the cache, so there is nothing to take back. While the
partner does what was imagined the branch is only made longer; else it is begun anew. Where a machine can plan few
frames in a frame's time (`plan_per_tick`), a plan is made in up to `SPREAD` ticks, and the frames that it has not
reached yet are those of the plan before.

While the partner is alone at the begin (`intro_frames`) nothing is sounded. Before the last of these frames the anchor,
where there is one, reads all that was heard so far and its actions take the place of the policy's.

A network remembers a bounded number of frames. Two caches, half a window apart, take every frame; when the older is
full the younger takes over, so play goes on for ever without a pause, with half a window of context at least.

A frame's random numbers depend on the seed and the frame alone: the same events give the same actions, and a plan
changes only where what was heard changes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from gapt_jax.live.model import LEAST_PLANNED, MOST_AHEAD, LiveModel, State, copied
from gapt_jax.live.notes import NoteEar

INTRO_LEAD = 4  # frames before the end of the silent beats at which the anchor is asked
SPREAD = 3  # ticks that a plan may take, whatever is played meanwhile
FUTURE = 64  # frames ahead of the last tick that an event may lie


@dataclasses.dataclass(frozen=True)
class Controls:
    """What a player may set; units in the names, ranges in `RANGES`."""

    bpm: float = 120
    beats_per_bar: int = 4
    temperature: float = 1.0
    seed: int = 0
    lookahead_frames: int = 16
    commit_frames: int = 4
    intro_frames: int = 16
    plan_per_tick: int = MOST_AHEAD
    masked: bool = True


RANGES: dict[str, tuple[float, float]] = {
    "bpm": (30, 240),
    "beats_per_bar": (1, 16),
    "temperature": (0, 2),
    "seed": (0, 2**31 - 1),
    "lookahead_frames": (1, 32),
    "commit_frames": (0, 32),
    "intro_frames": (0, 64),
    "plan_per_tick": (LEAST_PLANNED, MOST_AHEAD),
}


class Happened(Protocol):
    """What a partner does in a frame."""

    @property
    def frame(self) -> int: ...


class Ear(Protocol):
    """Makes tokens of what a partner does; it may remember what goes on."""

    def token(self, events: Sequence[Any]) -> int:
        """What is heard in a frame in which these happened."""


class Planned(NamedTuple):
    """Actions from frame `base` on, those before `commit_until` decided for good; the context imagined under all but
    the last of them."""

    base: int
    commit_until: int
    actions: tuple[int, ...]
    context: tuple[int, ...]


class _Cache(NamedTuple):
    """The network's memory from frame `base` on."""

    base: int
    logits: Any
    state: State


@dataclasses.dataclass
class _Branch:
    """What is imagined from frame `start` on, after what was played before it."""

    start: int
    drawing: tuple[Any, ...]  # the controls that it was drawn with
    state: State
    actions: list[int] = dataclasses.field(default_factory=list)
    context: list[int] = dataclasses.field(default_factory=list)
    given: int = 0  # first actions that had been decided before
    ticks: int = 0
    is_whole: bool = False  # it reaches as far as was asked
    is_stale: bool = False  # since `start` something else was played

    @property
    def end(self) -> int:
        return self.start + len(self.actions)

    def passed(self, action: int, heard: int) -> None:
        """A frame has passed."""
        if not self.is_stale and self.actions[:1] == [action] and self.context[:1] == [heard]:
            del self.actions[0], self.context[0]
            self.start, self.given = self.start + 1, max(self.given - 1, 0)
        else:
            self.is_stale = True


class Engine:
    """A session with one partner, whom an ear hears."""

    def __init__(self, model: LiveModel, controls: Controls, ear: Callable[[], Ear] = NoteEar) -> None:
        self.controls = controls
        self.late = 0  # events that came after their frame
        self._model, self._new_ear = model, ear
        self._begin()

    def _begin(self) -> None:
        self.heard: list[int] = []  # tokens of the context, frame by frame
        self.decided: list[int] = []  # actions that will not change any more
        self.is_introduced = False  # the actions of the silent beats are settled
        self._events: dict[int, list[Happened]] = {}
        self._ear = self._new_ear()
        self._older = _Cache(0, *self._model.empty())
        self._younger: _Cache | None = None
        self._younger_now = 0  # frames that the younger cache has taken
        self._branch: _Branch | None = None
        self._last_plan = Planned(0, 0, (), ())

    @property
    def model(self) -> LiveModel:
        return self._model

    @property
    def now(self) -> int:
        """Frames that have passed."""
        return len(self.heard)

    def reset(self) -> None:
        """Begins again at frame 0."""
        self._begin()

    def use(self, model: LiveModel) -> None:
        """Goes on with another policy of the same tokens; what is decided stays. One with another memory begins
        with half a window."""
        assert model.task.identity == self._model.task.identity
        if model.frames != self._model.frames:
            base = max(self._older.base, self.now - model.window // 2)
            self._older, self._younger = self._older._replace(base=base), None
        self._model = model
        self._remember()

    def _remember(self) -> None:
        """Makes the caches anew from what was played."""
        self._older = self._remembered(self._older.base, self.now)
        if self._younger:
            self._younger, self._younger_now = self._remembered(self._younger.base, self.now), self.now
        self._branch = None

    def _remembered(self, base: int, now: int) -> _Cache:
        return _Cache(base, *self._model.prefilled(self.decided[base:now], self.heard[base:now]))

    def hear(self, events: Iterable[Happened]) -> None:
        """Takes events in; those of frames that have passed are counted as late and dropped."""
        for event in events:
            if event.frame < self.now:
                self.late += 1
            else:
                self._events.setdefault(event.frame, []).append(event)

    def tick(self, now: int) -> Planned:
        """Frames before `now` have passed: commits them and plans from `now` on."""
        while self.now < now:
            self._commit()
        if now == len(self.decided) and (begun := self._last_planned(now)) is not None:
            self.decided.append(begun)  # frame `now` begins, or has begun: nothing later can change it
        if not self.is_introduced:
            self._introduce()
        self._last_plan = self._plan()
        return self._last_plan

    def commit(self, now: int) -> None:
        """Commits the frames before `now`, which have passed, and plans nothing: a part of what `tick` does, for those
        who let others compute in between."""
        while self.now < now:
            self._commit()
        self.catch_up()

    def catch_up(self) -> None:
        """Work that no plan waits for: the younger cache takes the frames that it has not. Whether and when this is
        called changes nothing but time."""
        while self._younger is not None and self._younger_now < self.now:
            frame, state = self._younger_now, self._younger.state
            taken = self._model.committed(self.decided[frame], self.heard[frame], state)
            self._younger, self._younger_now = _Cache(self._younger.base, *taken), frame + 1

    def _introduce(self) -> None:
        """Puts the anchor's actions in the place of what was played to the silent beats."""
        controls = self.controls
        first = max(controls.intro_frames - max(controls.commit_frames, INTRO_LEAD), 1)
        if self._model.intro is None or self.now > controls.intro_frames:
            self.is_introduced = True
        elif self.now >= first:
            self.decided[:] = self._model.intro(self.heard, controls.seed)  # the recording holds this list
            self.is_introduced = True
            self._remember()

    def _commit(self) -> None:
        frame = self.now
        if frame == len(self.decided):  # never settled: as the last plan said, else what sounds goes on
            planned, before = self._last_planned(frame), self.decided[-1] if self.decided else self._model.task.rest
            self.decided.append(self._model.held[before] if planned is None else planned)
        action, heard = self.decided[frame], self._ear.token(self._events.pop(frame, ()))
        window = self._model.window
        self._older = _Cache(self._older.base, *self._model.committed(action, heard, self._older.state))
        self.heard.append(heard)
        if self._branch:
            self._branch.passed(action, heard)
        if self._younger is not None and self.now - self._older.base >= window:
            self.catch_up()
            self._older, self._younger, self._branch = self._younger, None, None
        if self._younger is None and self.now - self._older.base >= window // 2:
            self._younger, self._younger_now = _Cache(self.now, *self._model.empty()), self.now

    def _last_planned(self, frame: int) -> int | None:
        """The action of a frame by the last plan, which is what is sounded."""
        base, actions = self._last_plan.base, self._last_plan.actions
        return actions[frame - base] if base <= frame < base + len(actions) else None

    def _plan(self) -> Planned:
        controls, now = self.controls, self.now
        drawing = controls.seed, controls.temperature, controls.masked
        most = now + self._model.most_ahead
        end = min(max(now + controls.lookahead_frames, len(self.decided)), most)  # with all that is decided
        branch = self._branch
        if (
            branch is None
            or branch.end <= now
            or branch.drawing != drawing
            or (branch.is_stale and (branch.is_whole or branch.ticks >= SPREAD))
        ):
            branch = _Branch(now, drawing, copied(self._older.state))
        reach = max(max(branch.end, now) + controls.plan_per_tick, len(self.decided) + 1, now + 1)
        self._extend(branch, min(reach, end))
        branch.ticks, branch.is_whole = branch.ticks + 1, branch.end >= end
        self._branch = branch
        until = min(now + controls.commit_frames, branch.end)
        self.decided += branch.actions[len(self.decided) - branch.start : until - branch.start]
        return self._planned(branch, end)

    def _extend(self, branch: _Branch, end: int) -> None:
        """Plans frames until `end`; those that are decided stay. A branch goes on from its last frame, whose
        context is still to be imagined."""
        if end <= branch.end:
            return
        kept, rest = branch.actions[-1:], self._model.task.rest
        first = branch.end - len(kept)
        if first > branch.start:
            before = branch.actions[-2], branch.context[-1]
        else:
            before = (self.decided[first - 1], self.heard[first - 1]) if first else (rest, rest)
        known = self.decided[branch.end : end]
        branch.given = len(branch.actions) + len(known) if known else branch.given
        given = np.array([*kept, *known, *[-1] * (end - branch.end - len(known))], np.int32)
        uniforms = _uniforms(self.controls.seed, first, end - first)
        options = self.controls.temperature, self.controls.masked
        logits = self._older.logits  # of the first frame of a new branch: the last one of an older one is given
        planned, imagined, branch.state = self._model.planned(logits, *before, given, uniforms, *options, branch.state)
        branch.actions += planned[len(kept) :].tolist()
        branch.context += imagined.tolist()

    def _planned(self, branch: _Branch, end: int) -> Planned:
        """The plan of a branch; beyond its end what the last plan said."""
        now, last = self.now, self._last_plan
        skipped, rest, until = now - branch.start, max(branch.end - last.base, 0), max(end - last.base, 0)
        actions = [*branch.actions[skipped : end - branch.start], *last.actions[rest:until]]
        context = [*branch.context[skipped:], *last.context[max(rest - 1, 0) :]]
        return Planned(now, max(len(self.decided), now), tuple(actions), tuple(context[: len(actions) - 1]))


def _uniforms(seed: int, first: int, count: int) -> np.ndarray:
    """[count, 2] float32 in [0, 1) of the frames from `first` on: of each frame the same, whatever is asked beside."""
    frames = [np.random.default_rng((seed, frame)).random(2, np.float32) for frame in range(first, first + count)]
    return np.stack(frames)
