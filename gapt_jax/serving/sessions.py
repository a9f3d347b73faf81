"""The models that are served, their sessions, and the one thread that computes. Knows no network."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gapt_jax.serving import protocol
from gapt_jax.serving.player import Player, Sampling, Session
from gapt_jax.serving.protocol import Output, Refusal, Request

MAX_SONGS = 64
IDLE_SECONDS = 300  # until a session that nobody asks for is forgotten
WAITING = 256  # requests that may wait for the device
VERSION = "1"  # of every model
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class _Held:
    """A session and when it was last asked for; one request at a time. It has no state until its start is computed."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.used, self.is_busy = time.monotonic(), False


class Service:
    """Answers requests for `players`, with so many sessions at a time."""

    def __init__(self, players: Sequence[Player], sessions: int) -> None:
        self.players = {player.name: player for player in players}
        self._limit, self._waiting = sessions, 0
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "model")
        self.registry = CollectorRegistry()
        self.requests = Counter("gapt_requests", "answered requests", ["model", "status"], registry=self.registry)
        self._seconds = Histogram(
            "gapt_seconds", "from request to answer", ["model", "kind"], buckets=_BUCKETS, registry=self.registry
        )
        self._open = Gauge("gapt_sessions", "sessions under way", registry=self.registry)
        self._open.set_function(lambda: len(self._held))

    def player(self, name: str, version: str = VERSION) -> Player:
        if name not in self.players:
            raise Refusal(404, f"there is no model {name[:64]!r}: there are {', '.join(self.players)}")
        if version != VERSION:
            raise Refusal(404, f"model '{name}' has no version {version[:64]!r}: it has {VERSION}")
        return self.players[name]

    async def infer(self, player: Player, raw: Any, rest: bytes) -> tuple[bytes, int | None]:
        """The answer to a request, as `protocol.answer` gives it. The session that the request ends is over,
        whatever becomes of the request."""
        start, ended = time.monotonic(), protocol.ended_session(raw)
        try:
            request = protocol.parsed(raw, rest)
            is_frame = request.parameters.sequence_id is not None
            outputs = await (self._frame if is_frame else self._song)(player, request)
        finally:
            if ended is not None:
                self._held.pop((player.name, ended), None)
        self._seconds.labels(player.name, "frame" if is_frame else "song").observe(time.monotonic() - start)
        return protocol.answer(request, player.name, outputs)

    async def _song(self, player: Player, request: Request) -> list[Output]:
        songs, frames = _checked(request, "melody", "chords").shape
        if not 1 <= songs <= MAX_SONGS or not 1 <= frames <= player.frames:
            raise Refusal(400, f"melody must be of 1 to {MAX_SONGS} songs and 1 to {player.frames} frames")
        self._check_queue()
        return _outputs(
            "chords", await self._compute(player.accompany, request.tokens, request.parameters.sampling()), player
        )

    async def _frame(self, player: Player, request: Request) -> list[Output]:
        """Everything is checked, and the session's place taken, before anything is waited for."""
        parameters, notes = request.parameters, _checked(request, "note", "chord")
        if notes.shape[0] != 1:
            raise Refusal(400, "note must be of one session: its shape is [1, n]")
        identity = str(parameters.sequence_id)
        key, is_start = (player.name, identity), parameters.sequence_start
        held = self._held.get(key)
        if held is not None and held.is_busy:
            raise Refusal(409, f"session {identity!r} is still computing: wait for its answer")
        begun = held.session if held is not None and not is_start else None
        if begun is None and not is_start:
            raise Refusal(404, f"there is no session {identity!r}: begin it with sequence_start")
        frame = (begun.frame if begun else 0) + notes.shape[1]
        if frame > player.frames - (not parameters.sequence_end):
            raise Refusal(409, f"session {identity!r} would be longer than {player.frames} frames: begin a new one")
        self._check_queue()
        if held is None or is_start:
            held = self._take_place(key)
        held.is_busy, held.used = True, time.monotonic()
        self._held.move_to_end(key)
        try:
            held.session, chords = await self._compute(_heard, player, begun, parameters.sampling(), notes[0])
        except BaseException:
            if self._held.get(key) is held:
                del self._held[key]  # its state may be used up
            raise
        finally:
            held.is_busy = False
        return _outputs("chord", chords, player)

    def _check_queue(self) -> None:
        if self._waiting >= WAITING:
            raise Refusal(503, "too many requests are waiting: try again in a moment")

    async def _compute(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)
        finally:
            self._waiting -= 1

    def _take_place(self, key: tuple[str, str]) -> _Held:
        """A place for a session that begins; one of the same name is forgotten."""
        now = time.monotonic()
        for other, held in list(self._held.items()):
            if now - held.used > IDLE_SECONDS and not held.is_busy:
                del self._held[other]
        if key not in self._held and len(self._held) >= self._limit:
            raise Refusal(503, f"all {self._limit} sessions are taken: try again later")
        found = self._held[key] = _Held()
        return found

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)


def _heard(
    player: Player, session: Session | None, sampling: Sampling, notes: np.ndarray
) -> tuple[Session, np.ndarray]:
    """The session, begun if there is none, after the notes [n], and the chord [1, 1] of its next frame; [1, 0] where
    there is no next one."""
    session = session or player.begin(sampling)
    for note in notes:
        player.advance(session, int(note))
    return session, np.array([[session.chord] if session.frame < player.frames else []], np.int32)


def _checked(request: Request, name: str, output: str) -> np.ndarray:
    if request.name != name:
        raise Refusal(400, f"the input is called '{name}' here, not {request.name!r}")
    request.check_outputs((output, "symbols"))
    return request.tokens


def _outputs(name: str, chords: np.ndarray, player: Player) -> list[Output]:
    symbols = np.array(player.symbols(chords), object).reshape(chords.shape)
    return [Output(name, chords.astype(np.int64)), Output("symbols", symbols)]
