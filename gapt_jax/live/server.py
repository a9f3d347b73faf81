"""``gapt jam``: the page and its WebSocket (docs/live-protocol.md). The models compute in one thread; nothing waits in
the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest
from starlette.websockets import WebSocketDisconnect, WebSocketState

from gapt_jax import __version__
from gapt_jax.live import limits
from gapt_jax.live.downloads import RETRY_SECONDS, refusal
from gapt_jax.live.model import LiveModel, open_models
from gapt_jax.live.session import (
    Fault,
    LiveSession,
    TooFast,
    paced,
    read_controls,
    read_message,
    read_time,
    warning,
)
from gapt_jax.live.studio import Studio
from gapt_jax.live.study import (
    HIGH,
    LOW,
    QUESTIONS,
    StudyLog,
    check_models,
)
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.loopback import OwnHost, listen, url_of
from gapt_jax.runtime.web import serve
from gapt_jax.vocabulary import Vocabulary

PROTOCOL = "gapt-live.1"
MESSAGE_BYTES = 16 << 10
SOCKET_BYTES = 4 * MESSAGE_BYTES  # beyond, a message ends its connection without an answer
GRACE = 2  # seconds that requests under way get when the server ends
MESSAGES_PER_SECOND = 200
SESSIONS = 64
_LOG = logging.getLogger(__name__)
_PAGE = Path(__file__).with_name("page")
_STATUS = {"no_session": 404, "unknown_model": 404, "bad_value": 404, "too_large": 413, "busy": 503}  # of a retake
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; worker-src 'self' blob:; connect-src 'self' ws: wss:; "
    "style-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Player:
    """One socket. Messages are read as they come; ticks wait in a mailbox of one."""

    def __init__(self, studio: Studio, socket: WebSocket) -> None:
        self._studio, self._socket = studio, socket
        self._session: LiveSession | None = None
        self._tick: tuple[int, Any, float] | None = None
        self._news = asyncio.Event()
        self._second, self._count = 0, 0
        self._frames = limits.Allowance(limits.FRAMES_PER_SECOND, limits.FRAMES_AT_ONCE)
        self._notes = limits.Allowance(limits.NOTES_PER_SECOND, limits.NOTES_AT_ONCE)
        self._told = -math.inf
        self._play = 0  # counts starts and resets: what belongs to an earlier one is not wanted any more

    async def play(self) -> None:
        """Until the player leaves."""
        ticking = asyncio.create_task(self._answer_ticks())
        try:
            await self._send(self._ready())
            while True:
                text = await self._receive()
                try:
                    self._check_rate(text)
                    await self._handle(read_message(text))
                except TooFast as fault:
                    await self._dropped(fault)
                except Fault as fault:
                    if fault.code == "future_frame":
                        self._studio.counts.dropped.labels("ahead").inc()
                    await self._send(fault.message())
                    if fault.is_fatal:
                        break
        except WebSocketDisconnect:
            pass
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await ticking
            if self._session:
                await self._studio.detach(self._session)
            if self._socket.client_state is WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError):
                    await self._socket.close(1008)

    def _ready(self) -> dict[str, Any]:
        most = {
            "message_bytes": MESSAGE_BYTES,
            "messages_per_second": MESSAGES_PER_SECOND,
            "frames_per_second": limits.FRAMES_PER_SECOND,
            "notes_per_second": limits.NOTES_PER_SECOND,
            "sessions": self._studio.limit,
        }
        ready = {"type": "ready", "proto": PROTOCOL, "models": self._studio.described(), "limits": most}
        if self._studio.study:
            questions = [{"name": name, **question} for name, question in QUESTIONS.items()]
            ready["study"] = {"questions": questions, "scale": [LOW, HIGH]}
        return ready | {"server_t": time.time()}

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return message.get("text") or ""

    async def _send(self, message: dict[str, Any]) -> None:
        if self._socket.client_state is WebSocketState.CONNECTED:
            await self._socket.send_text(json.dumps(message))

    def _check_rate(self, text: str) -> None:
        if len(text.encode(errors="replace")) > MESSAGE_BYTES:
            raise Fault("too_large", f"a message may have {MESSAGE_BYTES} bytes", is_fatal=True)
        second = int(time.monotonic())
        self._second, self._count = second, self._count + 1 if second == self._second else 1
        if self._count > MESSAGES_PER_SECOND:
            raise Fault("too_fast", f"more than {MESSAGES_PER_SECOND} messages a second", is_fatal=True)

    async def _pay(self, frames: int) -> None:
        """Takes what a message costs from the player's frames; who has not enough left waits."""
        await asyncio.sleep(self._frames.owe(frames, time.monotonic()))

    async def _dropped(self, fault: TooFast) -> None:
        """Counts what was dropped; the player is told once a second."""
        self._studio.counts.dropped.labels(fault.what).inc()
        if self._session:
            self._session.too_fast += 1
            if time.monotonic() - self._told >= 1:
                self._told = time.monotonic()
                await self._send(warning(fault.code, fault.text) | {"dropped": self._session.too_fast})

    async def _handle(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ping":
            now = time.time()
            await self._send({"type": "pong", "t": read_time(message), "t_recv": now, "t_send": time.time()})
        elif kind == "start":
            await self._start(message)
        elif kind == "answers" and self._studio.study:
            await self._send({"type": "answered", "session": await self._studio.answer(message)})
        elif kind in ("notes", "tick", "set", "reset", "stop"):
            if self._session is None:
                raise Fault("no_session", "begin with start")
            await getattr(self, f"_{kind}_message")(self._session, message)
        else:
            raise Fault("unknown_type", f"there is no message {kind[:32]!r}")

    async def _start(self, message: dict[str, Any]) -> None:
        await self._pay(limits.START_FRAMES)
        if self._session:
            await self._leave(self._session)
        session = await self._studio.start(message)
        if session.allowed:  # it goes on
            self._frames = session.allowed
        session.allowed = self._frames
        self._session, self._tick = session, None
        if self._studio.study:
            known = {"model": session.model_name, "take": session.take and session.take.order}
        else:
            known = {"model": session.model_name, "weights_sha256": session.engine.model.weights_sha256}
        await self._send({"type": "started", "session": session.identity, **known, "controls": vars(session.controls)})

    async def _leave(self, session: LiveSession) -> None:
        self._session, self._tick = None, None
        self._play += 1
        await self._studio.finish(session)

    async def _notes_message(self, session: LiveSession, message: dict[str, Any]) -> None:
        events = message.get("events")
        if isinstance(events, list) and not self._notes.take(len(events), time.monotonic()):
            raise TooFast("notes", "too many notes in so short a time: some were dropped")
        session.notes(message)

    async def _tick_message(self, session: LiveSession, message: dict[str, Any]) -> None:
        echo, now = read_time(message), session.check_tick(message)
        session.coalesced += self._tick is not None
        self._tick = now, echo, time.monotonic()
        self._news.set()

    async def _set_message(self, session: LiveSession, message: dict[str, Any]) -> None:
        current = session.engine.model
        if "model" in message:
            if self._studio.study:
                raise Fault("bad_value", "in a study a take is played with one model: start anew with another")
            name, model = self._studio.choose(message["model"])
            if model.vocabulary.hash != current.vocabulary.hash:
                raise Fault("unknown_model", f"{model.name} has other chords than {current.name}: start anew with it")
            await self._pay(limits.MODEL_FRAMES)
            session.model_name = name
            session.change("model", model)
            current = model
        controls = read_controls(message, session.controls)
        if "bpm" in message or "model" in message:
            controls = paced(message, controls, current)
        if controls.lookahead_frames > current.most_ahead:
            raise Fault("bad_value", f"{session.model_name} plans at most {current.most_ahead} frames ahead")
        if controls != session.controls:
            session.change("set", controls)

    async def _reset_message(self, session: LiveSession, _: dict[str, Any]) -> None:
        await self._pay(limits.START_FRAMES)
        self._tick = None
        self._play += 1
        await self._studio.compute(session.reset)

    async def _stop_message(self, session: LiveSession, _: dict[str, Any]) -> None:
        await self._leave(session)

    async def _answer_ticks(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            session, tick = self._session, self._tick
            self._tick = None
            if session is None or tick is None:
                continue
            play = self._play

            def is_wanted(play: int = play) -> bool:
                return self._play == play

            try:
                messages = await self._studio.tick(session, *tick, is_wanted)
            except Exception:
                _LOG.exception("a tick of the session %s failed", session.identity)
                await self._send(Fault("internal", "the model failed", is_fatal=True).message())
                await self._socket.close(1011)
                return
            for message in messages:
                if is_wanted():  # not what a reset has left behind
                    await self._send(message)
            await self._studio.catch_up(session)


def make_app(models: Sequence[LiveModel], sessions: int = SESSIONS, study: StudyLog | None = None) -> FastAPI:
    """The application, its models compiled. With a study their names are hidden, and takes are logged."""
    studio = Studio(models, sessions, study)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        trying = asyncio.create_task(studio.keep_trying())
        yield
        trying.cancel()
        await studio.close()

    app = FastAPI(
        title="gapt-jax live", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )

    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        await _Player(studio, socket).play()

    @app.get("/healthz")
    @app.get("/readyz")
    async def healthy() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/api/models")
    async def names() -> list[dict[str, Any]]:
        return [
            {name: text for name, text in model.items() if name != "weights_sha256"} for model in studio.described()
        ]

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest(studio.counts.registry), media_type="text/plain; version=0.0.4")

    @app.api_route("/api/sessions/{name}", methods=["GET", "HEAD"])
    async def recorded(name: str, request: Request) -> Response:
        identity, _, ending = name.rpartition(".")
        is_asked, is_blind = request.method == "HEAD", studio.study is not None
        found = studio.recordings.get(identity)
        return await studio.downloads.answer(found, ending, is_asked=is_asked, is_blind=is_blind)

    @app.post("/api/sessions/{identity}/retake")
    async def retake(identity: str, request: Request) -> Response:
        async def is_wanted() -> bool:
            return not await request.is_disconnected()

        try:
            made = await studio.retake(identity, request.query_params.get("model", ""), is_wanted)
        except Fault as fault:
            headers = {"Retry-After": str(RETRY_SECONDS)} if fault.code == "busy" else None
            return refusal(_STATUS[fault.code], fault.text, headers)
        return JSONResponse({"session": made})

    app.state.studio = studio
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    app.add_middleware(_Headers)
    return app


class _Headers:
    """Puts the security headers on every answer."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message = message | {"headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def run(
    paths: Sequence[Path],
    console: Console,
    *,
    host: str,
    port: int,
    sessions: int,
    names: Sequence[str] = (),
    songs: Callable[[Vocabulary], LiveModel] | None = None,
    study: Path | None = None,
) -> None:
    """Serves the page until it is told to stop. `names` are those of the policies, in the place of their folders';
    `songs` makes one more model, for the vocabulary of the first policy; `study` is the folder of a study's log."""
    if study:
        check_models(len(paths) + bool(songs))
    with contextlib.closing(listen(host, port)) as listening:
        log = StudyLog(study) if study else None
        models = open_models(paths, console, names)
        if songs:
            models.append(songs(models[0].vocabulary))
        for model in models:
            model.warm_up()
        console.say(f"open {url_of(host, listening)} in a browser; stop with Ctrl-C")
        if log:
            console.say(f"takes are written to {log.folder}; then: gapt study analyse {log.ratings}")
        app = make_app(models, sessions, log)
        own = OwnHost(app, host, ["/v1/live"])
        refused = app.state.studio.counts.dropped.labels("connections").inc
        serve(own, listening, console, grace_s=GRACE, message_bytes=SOCKET_BYTES, refused=refused)
