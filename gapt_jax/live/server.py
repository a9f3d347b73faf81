"""``gapt jam``: the page and its WebSocket (docs/live-protocol.md). The models compute in one thread; nothing waits in
the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect, WebSocketState

from gapt_jax import __version__
from gapt_jax.errors import UserError
from gapt_jax.live.engine import Controls
from gapt_jax.live.model import LiveModel, open_models
from gapt_jax.live.recording import Recording, sound_font, to_wav
from gapt_jax.live.session import Fault, LiveSession, paced, read_controls, read_message
from gapt_jax.live.songs import song_model
from gapt_jax.runtime.console import Console

PROTOCOL = "gapt-live.1"
MESSAGE_BYTES = 16 << 10
MESSAGES_PER_SECOND = 200
RESUME_SECONDS = 30
RECORDINGS = 100  # that are kept
SESSIONS = 64
_LOG = logging.getLogger(__name__)
_PAGE = Path(__file__).with_name("page")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; worker-src 'self' blob:; connect-src 'self' ws: wss:; "
    "style-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class _Studio:
    """Models, sessions and recordings of one server."""

    def __init__(self, models: Sequence[LiveModel], sessions: int) -> None:
        self.models = {model.name: model for model in models}
        self.limit = sessions
        self.sessions: dict[str, LiveSession] = {}
        self.attached: set[str] = set()  # sessions that a socket plays in
        self.recordings: OrderedDict[str, Recording] = OrderedDict()
        self.worker = ThreadPoolExecutor(1, "model")

    def model(self, name: Any) -> LiveModel:
        if name is None:
            return next(iter(self.models.values()))
        if not isinstance(name, str) or name not in self.models:
            raise Fault("unknown_model", f"there is no such model: there are {', '.join(self.models)}")
        return self.models[name]

    async def start(self, message: dict[str, Any]) -> LiveSession:
        """A new session, or the one that a player comes back to."""
        wanted = message.get("session")
        if wanted is not None:
            found = self.sessions.get(wanted) if isinstance(wanted, str) else None
            if found is None or wanted in self.attached:
                raise Fault("no_session", "that session is over")
            found.change("set", read_controls(message, found.controls))
            self.attached.add(wanted)
            return found
        model = self.model(message.get("model"))
        controls = paced(message, read_controls(message, Controls()), model)
        if controls.lookahead_frames > model.most_ahead:
            raise Fault("bad_value", f"{model.name} plans at most {model.most_ahead} frames: lower lookahead_frames")
        self._make_room()
        identity = secrets.token_urlsafe(12)
        self.attached.add(identity)
        try:
            self.sessions[identity] = await self.compute(LiveSession, identity, model, controls)
        except BaseException:
            self.attached.discard(identity)
            raise
        return self.sessions[identity]

    async def compute(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.worker, work, *arguments)

    def detach(self, session: LiveSession) -> None:
        """The player went away without a word; for a while it may come back."""
        self.attached.discard(session.identity)
        session.last_used = time.monotonic()
        self.keep(session)

    def finish(self, session: LiveSession) -> None:
        self.attached.discard(session.identity)
        self.sessions.pop(session.identity, None)
        self.keep(session)

    def keep(self, session: LiveSession) -> None:
        self.recordings[session.identity] = session.recording
        self.recordings.move_to_end(session.identity)
        while len(self.recordings) > RECORDINGS:
            self.recordings.popitem(last=False)

    def _make_room(self) -> None:
        """Forgets players who went away: those who stay away too long, and for a newcomer the first who went."""
        if len(self.attached) >= self.limit:
            raise Fault("busy", f"all {self.limit} places are taken")
        idle = sorted(self.sessions.keys() - self.attached, key=lambda identity: self.sessions[identity].last_used)
        while idle and (
            len(self.attached) + len(idle) >= self.limit
            or time.monotonic() - self.sessions[idle[0]].last_used > RESUME_SECONDS
        ):
            del self.sessions[idle.pop(0)]


class _Player:
    """One socket. Messages are read as they come; ticks wait in a mailbox of one."""

    def __init__(self, studio: _Studio, socket: WebSocket) -> None:
        self._studio, self._socket = studio, socket
        self._session: LiveSession | None = None
        self._tick: tuple[int, Any, float] | None = None
        self._news = asyncio.Event()
        self._second, self._count = 0, 0

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
                except Fault as fault:
                    await self._send(fault.message())
                    if fault.is_fatal:
                        break
        except WebSocketDisconnect:
            pass
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            if self._session:
                self._studio.detach(self._session)
            if self._socket.client_state is WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError):
                    await self._socket.close(1008)

    def _ready(self) -> dict[str, Any]:
        models = [
            {"name": model.name, "family": model.system, "weights_sha256": model.weights_sha256}
            for model in self._studio.models.values()
        ]
        limits = {
            "message_bytes": MESSAGE_BYTES,
            "messages_per_second": MESSAGES_PER_SECOND,
            "sessions": self._studio.limit,
        }
        return {"type": "ready", "proto": PROTOCOL, "models": models, "limits": limits, "server_t": time.time()}

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return message.get("text") or ""

    async def _send(self, message: dict[str, Any]) -> None:
        if self._socket.client_state is WebSocketState.CONNECTED:
            await self._socket.send_text(json.dumps(message))

    def _check_rate(self, text: str) -> None:
        if len(text) > MESSAGE_BYTES:
            raise Fault("too_large", f"a message may have {MESSAGE_BYTES} bytes", is_fatal=True)
        second = int(time.monotonic())
        self._second, self._count = second, self._count + 1 if second == self._second else 1
        if self._count > MESSAGES_PER_SECOND:
            raise Fault("too_fast", f"more than {MESSAGES_PER_SECOND} messages a second", is_fatal=True)

    async def _handle(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "ping":
            now = time.time()
            await self._send({"type": "pong", "t": message.get("t"), "t_recv": now, "t_send": time.time()})
        elif kind == "start":
            await self._start(message)
        elif kind in ("notes", "tick", "set", "reset", "stop"):
            if self._session is None:
                raise Fault("no_session", "begin with start")
            await getattr(self, f"_{kind}_message")(self._session, message)
        else:
            raise Fault("unknown_type", f"there is no message {kind[:32]!r}")

    async def _start(self, message: dict[str, Any]) -> None:
        if self._session:
            self._leave()
        session = await self._studio.start(message)
        self._session, self._tick = session, None
        await self._send(
            {
                "type": "started",
                "session": session.identity,
                "model": session.engine.model.name,
                "weights_sha256": session.engine.model.weights_sha256,
                "controls": vars(session.controls),
            }
        )

    def _leave(self) -> None:
        assert self._session
        self._studio.finish(self._session)
        self._session, self._tick = None, None

    async def _notes_message(self, session: LiveSession, message: dict[str, Any]) -> None:
        session.notes(message)

    async def _tick_message(self, session: LiveSession, message: dict[str, Any]) -> None:
        now = session.check_tick(message)
        session.coalesced += self._tick is not None
        self._tick = now, message.get("t"), time.monotonic()
        self._news.set()

    async def _set_message(self, session: LiveSession, message: dict[str, Any]) -> None:
        current = session.engine.model
        if "model" in message:
            model = self._studio.model(message["model"])
            if model.vocabulary.hash != current.vocabulary.hash:
                raise Fault("unknown_model", f"{model.name} has other chords than {current.name}: start anew with it")
            session.change("model", model)
            current = model
        controls = read_controls(message, session.controls)
        if "bpm" in message or "model" in message:
            controls = paced(message, controls, current)
        if controls.lookahead_frames > current.most_ahead:
            raise Fault("bad_value", f"{current.name} plans at most {current.most_ahead} frames ahead")
        if controls != session.controls:
            session.change("set", controls)

    async def _reset_message(self, session: LiveSession, _: dict[str, Any]) -> None:
        self._tick = None
        await self._studio.compute(session.reset)

    async def _stop_message(self, session: LiveSession, _: dict[str, Any]) -> None:
        self._leave()

    async def _answer_ticks(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            session, tick = self._session, self._tick
            self._tick = None
            if session is None or tick is None:
                continue
            recording = session.recording
            try:
                messages = await self._studio.compute(session.tick, *tick)
            except Exception:
                _LOG.exception("a tick of the session %s failed", session.identity)
                await self._send(Fault("internal", "the model failed", is_fatal=True).message())
                await self._socket.close(1011)
                return
            for message in messages:
                if self._session is session and session.recording is recording:  # not what a reset has left behind
                    await self._send(message)
            await self._studio.compute(session.engine.catch_up)


def is_own_origin(origin: str | None, host: str | None) -> bool:
    """Whether a page of this server, or a program that is no browser, asks."""
    return origin is None or urlsplit(origin).netloc == host


def make_app(models: Sequence[LiveModel], sessions: int = SESSIONS) -> FastAPI:
    """The application, its models compiled."""
    studio = _Studio(models, sessions)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
        studio.worker.shutdown(cancel_futures=True)

    app = FastAPI(
        title="gapt-jax live", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )

    @app.websocket("/v1/live")
    async def live(socket: WebSocket) -> None:
        if not is_own_origin(socket.headers.get("origin"), socket.headers.get("host")):
            await socket.close(1008)
            return
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        await _Player(studio, socket).play()

    @app.get("/healthz")
    @app.get("/readyz")
    async def healthy() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/api/models")
    async def names() -> list[dict[str, str]]:
        return [{"name": model.name, "family": model.system} for model in studio.models.values()]

    @app.api_route("/api/sessions/{name}", methods=["GET", "HEAD"])
    async def recorded(name: str, request: Request) -> Response:
        identity, _, ending = name.rpartition(".")
        recording = studio.recordings.get(identity)
        if recording is None:
            return JSONResponse({"error": "that recording is not kept any more"}, 404)
        disposition = {"Content-Disposition": f'attachment; filename="gapt-session.{ending}"'}
        if ending == "json":
            return JSONResponse(recording.to_dict(), headers=disposition)
        if ending == "mid":
            return Response(recording.to_midi(), media_type="audio/midi", headers=disposition)
        font = sound_font()
        if ending != "wav" or font is None:
            return JSONResponse({"error": "there is no such form of a recording here"}, 404)
        if request.method == "HEAD":  # the page asks whether there is sound, which need not be made for that
            return Response(media_type="audio/wav", headers=disposition)
        sound = await asyncio.to_thread(to_wav, recording.to_midi(), font)
        return Response(sound, media_type="audio/wav", headers=disposition)

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
    paths: Sequence[Path], console: Console, *, host: str, port: int, sessions: int, songs: Path | None = None
) -> None:
    """Serves the page until it is told to stop; `songs` are played as they are, in a policy's place."""
    models = open_models(paths, console)
    if songs:
        models.append(song_model(songs, models[0].vocabulary))
    for model in models:
        model.warm_up()
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be had ({error.strerror}): choose another --port") from None
    console.say(f"open http://{host}:{listening.getsockname()[1]} in a browser; stop with Ctrl-C")
    config = uvicorn.Config(
        make_app(models, sessions),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        ws_max_size=4 * MESSAGE_BYTES,
    )
    uvicorn.Server(config).run(sockets=[listening])
