"""``gapt jam``: the page and its WebSocket (docs/live-protocol.md). The models compute in one thread; nothing waits in
the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.websockets import WebSocketDisconnect, WebSocketState

from gapt_jax import __version__
from gapt_jax.live.model import LiveModel, open_models
from gapt_jax.live.recording import sound_font, to_wav
from gapt_jax.live.session import Fault, LiveSession, paced, read_controls, read_message
from gapt_jax.live.songs import song_model
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

PROTOCOL = "gapt-live.1"
MESSAGE_BYTES = 16 << 10
MESSAGES_PER_SECOND = 200
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


class _Player:
    """One socket. Messages are read as they come; ticks wait in a mailbox of one."""

    def __init__(self, studio: Studio, socket: WebSocket) -> None:
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
                await self._studio.detach(self._session)
            if self._socket.client_state is WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError):
                    await self._socket.close(1008)

    def _ready(self) -> dict[str, Any]:
        limits = {
            "message_bytes": MESSAGE_BYTES,
            "messages_per_second": MESSAGES_PER_SECOND,
            "sessions": self._studio.limit,
        }
        ready = {"type": "ready", "proto": PROTOCOL, "models": self._studio.described(), "limits": limits}
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
        elif kind == "answers" and self._studio.study:
            await self._send({"type": "answered", "session": await self._studio.answer(message)})
        elif kind in ("notes", "tick", "set", "reset", "stop"):
            if self._session is None:
                raise Fault("no_session", "begin with start")
            await getattr(self, f"_{kind}_message")(self._session, message)
        else:
            raise Fault("unknown_type", f"there is no message {kind[:32]!r}")

    async def _start(self, message: dict[str, Any]) -> None:
        if self._session:
            await self._leave(self._session)
        session = await self._studio.start(message)
        self._session, self._tick = session, None
        if self._studio.study:
            known = {"model": session.model_name, "take": session.take and session.take.order}
        else:
            known = {"model": session.model_name, "weights_sha256": session.engine.model.weights_sha256}
        await self._send({"type": "started", "session": session.identity, **known, "controls": vars(session.controls)})

    async def _leave(self, session: LiveSession) -> None:
        self._session, self._tick = None, None
        await self._studio.finish(session)

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
            if self._studio.study:
                raise Fault("bad_value", "in a study a take is played with one model: start anew with another")
            name, model = self._studio.choose(message["model"])
            if model.vocabulary.hash != current.vocabulary.hash:
                raise Fault("unknown_model", f"{model.name} has other chords than {current.name}: start anew with it")
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
        self._tick = None
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


def make_app(models: Sequence[LiveModel], sessions: int = SESSIONS, study: StudyLog | None = None) -> FastAPI:
    """The application, its models compiled. With a study their names are hidden, and takes are logged."""
    studio = Studio(models, sessions, study)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> Any:
        yield
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
    async def names() -> list[dict[str, str]]:
        return [
            {name: text for name, text in model.items() if name != "weights_sha256"} for model in studio.described()
        ]

    @app.api_route("/api/sessions/{name}", methods=["GET", "HEAD"])
    async def recorded(name: str, request: Request) -> Response:
        identity, _, ending = name.rpartition(".")
        recording = studio.recordings.get(identity)
        if recording is None:
            return JSONResponse({"error": "that recording is not kept any more"}, 404)
        disposition = {"Content-Disposition": f'attachment; filename="gapt-session.{ending}"'}
        if ending == "json" and studio.study:
            return JSONResponse({"error": "in a study this form, which names the model, is not handed out"}, 404)
        if ending == "json":
            return JSONResponse(recording.to_dict(), headers=disposition)
        if ending == "mid":
            return Response(recording.to_midi(), media_type="audio/midi", headers=disposition)
        font = sound_font()
        if ending != "wav" or font is None:
            return JSONResponse({"error": "there is no such form of a recording here"}, 404)
        if request.method == "HEAD":  # the page asks whether there is sound, which need not be made for that
            return Response(media_type="audio/wav", headers=disposition)
        try:
            sound = await asyncio.to_thread(to_wav, recording.to_midi(), font)
        except (subprocess.SubprocessError, OSError):
            _LOG.exception("FluidSynth failed")
            return JSONResponse({"error": "FluidSynth could not render this recording: take the MIDI file"}, 500)
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
    paths: Sequence[Path],
    console: Console,
    *,
    host: str,
    port: int,
    sessions: int,
    songs: Path | None = None,
    study: Path | None = None,
) -> None:
    """Serves the page until it is told to stop; `songs` are played as they are, in a policy's place; `study` is the
    folder of a study's log."""
    if study:
        check_models(len(paths) + bool(songs))
    with contextlib.closing(listen(host, port)) as listening:
        log = StudyLog(study) if study else None
        models = open_models(paths, console)
        if songs:
            models.append(song_model(songs, models[0].vocabulary))
        for model in models:
            model.warm_up()
        console.say(f"open {url_of(host, listening)} in a browser; stop with Ctrl-C")
        if log:
            console.say(f"takes are written to {log.folder}; then: gapt study analyse {log.ratings}")
        app = OwnHost(make_app(models, sessions, log), host, ["/v1/live"])
        serve(app, listening, console, grace_s=2, message_bytes=4 * MESSAGE_BYTES)
