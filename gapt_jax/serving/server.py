"""Bundles over HTTP: Open Inference Protocol v2, sessions by sequence parameters, Prometheus metrics.

``POST /v2/models/{name}/infer`` takes either ``melody`` [B, T] (whole songs: ``chords`` [B, T] comes back), or, with
the parameter ``sequence_id``, ``note`` [1, n]: the notes heard since the last request, and gives ``chord`` [1, 1], that
of the next frame. ``sequence_start`` begins a session (n may be 0), ``sequence_end`` closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from gapt_jax import __version__
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.loopback import OwnHost, listen, url_of
from gapt_jax.serving.player import Player, Sampling, Session, is_note

MAX_BODY = 1 << 20  # bytes of a request
MAX_SONGS = 64
REQUESTS_PER_SECOND = 2_000  # of one address
IDLE_SECONDS = 300  # until a session that nobody asks for is forgotten
WAITING = 256  # requests that may wait for the device
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class _Refusal(Exception):
    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text


class _Tensor(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str = Field(max_length=64)
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]
    datatype: str = Field(max_length=16)
    data: Annotated[list[Any], Field(max_length=MAX_BODY)]

    def array(self) -> np.ndarray:
        """The values as [B, T] int32 token ids of a melody."""
        if self.datatype not in ("INT32", "INT64"):
            raise _Refusal(400, f"input '{self.name}' has the datatype {self.datatype}, not INT32")
        try:
            values = np.array(self.data)
        except ValueError:
            values = np.array(["uneven"])
        if values.size == 0:
            values = np.zeros(0, np.int64)
        if not np.issubdtype(values.dtype, np.integer) or values.size != max(0, self.shape[0]) * max(0, self.shape[1]):
            raise _Refusal(400, f"input '{self.name}' does not hold whole numbers of the shape {self.shape}")
        tokens = values.reshape(self.shape)
        if not is_note(tokens).all():
            raise _Refusal(400, f"input '{self.name}' has a token that is no note: 3 is silence, 4 to 259 are notes")
        return tokens.astype(np.int32)


class _Parameters(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    sequence_id: Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=1)] | None = None
    sequence_start: bool = False
    sequence_end: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    temperature: Annotated[float, Field(ge=0, le=10, strict=False)] = 1.0
    masked: bool = True

    def sampling(self) -> Sampling:
        return Sampling(self.seed, self.temperature, self.masked)


class _Infer(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    id: Annotated[str, Field(max_length=128)] | None = None
    parameters: _Parameters = _Parameters()
    inputs: Annotated[list[_Tensor], Field(min_length=1, max_length=1)]


class _Held:
    """A session and when it was last asked for; one request at a time."""

    def __init__(self, session: Session) -> None:
        self.session, self.used, self.is_busy = session, time.monotonic(), False


class _Service:
    """The models, their sessions and the one thread that computes."""

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

    def player(self, name: str) -> Player:
        if name not in self.players:
            raise _Refusal(404, f"there is no model '{name[:64]}': there are {', '.join(self.players)}")
        return self.players[name]

    async def infer(self, name: str, request: _Infer) -> dict[str, Any]:
        player, start = self.player(name), time.monotonic()
        kind = "song" if request.parameters.sequence_id is None else "frame"
        answer = self._song if kind == "song" else self._frame
        outputs = await answer(player, request)
        self._seconds.labels(name, kind).observe(time.monotonic() - start)
        found = {"model_name": name, "model_version": "1", "outputs": outputs}
        return found | ({"id": request.id} if request.id is not None else {})

    async def _compute(self, work: Callable[..., Any], *arguments: Any) -> Any:
        if self._waiting >= WAITING:
            raise _Refusal(503, "too many requests are waiting: try again in a moment")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)
        finally:
            self._waiting -= 1

    async def _song(self, player: Player, request: _Infer) -> list[dict[str, Any]]:
        melody = _input(request, "melody")
        songs, frames = melody.shape
        if not 1 <= songs <= MAX_SONGS or not 1 <= frames <= player.frames:
            raise _Refusal(400, f"melody must be of 1 to {MAX_SONGS} songs and 1 to {player.frames} frames")
        chords = await self._compute(player.accompany, melody, request.parameters.sampling())
        return _chords_out("chords", chords, player)

    async def _frame(self, player: Player, request: _Infer) -> list[dict[str, Any]]:
        parameters, notes = request.parameters, _input(request, "note")
        key = player.name, str(parameters.sequence_id)
        if notes.shape[0] != 1:
            raise _Refusal(400, "note must be of one session: its shape is [1, n]")
        if parameters.sequence_start:
            self._make_room(key)
            held = self._held[key] = _Held(await self._compute(player.begin, parameters.sampling()))
        elif key in self._held:
            held = self._held[key]
        else:
            raise _Refusal(404, f"there is no session '{key[1]}': begin it with sequence_start")
        if held.is_busy:
            raise _Refusal(409, f"session '{key[1]}' is still computing: wait for its answer")
        if held.session.frame + notes.shape[1] >= player.frames:
            raise _Refusal(409, f"session '{key[1]}' would be longer than {player.frames} frames: begin a new one")
        held.is_busy, held.used = True, time.monotonic()
        self._held.move_to_end(key)
        try:
            chord = await self._compute(_heard, player, held.session, notes[0])
        finally:
            held.is_busy = False
            if parameters.sequence_end:
                self._held.pop(key, None)
        return _chords_out("chord", np.array([[chord]], np.int32), player)

    def _make_room(self, key: tuple[str, str]) -> None:
        if key in self._held:
            raise _Refusal(409, f"session '{key[1]}' is under way: end it with sequence_end, or take another id")
        now = time.monotonic()
        for other, held in list(self._held.items()):
            if now - held.used > IDLE_SECONDS and not held.is_busy:
                del self._held[other]
        if len(self._held) >= self._limit:
            raise _Refusal(503, f"all {self._limit} sessions are taken: try again later")

    def close(self) -> None:
        self._worker.shutdown(cancel_futures=True)


def _heard(player: Player, session: Session, notes: np.ndarray) -> int:
    for note in notes:
        player.advance(session, int(note))
    return session.chord


def _input(request: _Infer, name: str) -> np.ndarray:
    tensor = request.inputs[0]
    if tensor.name != name:
        raise _Refusal(400, f"the input is called '{name}' here, not '{tensor.name}'")
    return tensor.array()


def _chords_out(name: str, chords: np.ndarray, player: Player) -> list[dict[str, Any]]:
    shape = list(chords.shape)
    return [
        {"name": name, "shape": shape, "datatype": "INT32", "data": chords.reshape(-1).tolist()},
        {"name": "symbols", "shape": shape, "datatype": "BYTES", "data": player.symbols(chords)},
    ]


class _Limits:
    """Refuses what is too large or comes too fast before anything of it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._second, self._counts = 0, dict[str, int]()  # requests of each address in the second under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        if self._is_too_fast((scope["client"] or ("",))[0]):
            return _error(429, f"more than {REQUESTS_PER_SECOND} requests a second")
        if scope["method"] == "POST":
            length = dict(scope["headers"]).get(b"content-length", b"")
            if not length.isdigit():
                return _error(411, "a request needs a Content-Length")
            if int(length) > MAX_BODY:
                return _error(413, f"a request may have {MAX_BODY} bytes")
        return None

    def _is_too_fast(self, address: str) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._counts = second, {}
        self._counts[address] = self._counts.get(address, 0) + 1
        return self._counts[address] > REQUESTS_PER_SECOND


def make_app(players: Sequence[Player], sessions: int) -> FastAPI:
    """The application, its models loaded and compiled."""
    service = _Service(players, sessions)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="gapt-jax", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )

    app.add_middleware(_Limits)

    @app.exception_handler(_Refusal)
    async def refused(_: Request, refusal: _Refusal) -> Response:
        return _error(refusal.status, refusal.text)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(400, f"{place or 'the request'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail))

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": "gapt-jax", "version": __version__, "extensions": ["sequence"]}

    @app.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.get("/v2/models")
    async def models() -> list[str]:
        return list(service.players)

    @app.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> dict[str, Any]:
        return {"name": service.player(name).name, "ready": True}

    @app.get("/v2/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        return _metadata(service.player(name))

    @app.post("/v2/models/{name}/infer")
    async def infer(name: str, body: _Infer) -> Response:
        try:
            found = await service.infer(name, body)
        except _Refusal as refusal:
            service.requests.labels(name if name in service.players else "", refusal.status).inc()
            raise
        service.requests.labels(name, 200).inc()
        return JSONResponse(found)

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest(service.registry), media_type="text/plain; version=0.0.4")

    return app


def _metadata(player: Player) -> dict[str, Any]:
    manifest = player.bundle.manifest
    return {
        "name": player.name,
        "versions": ["1"],
        "platform": "jax",
        "inputs": [
            {"name": "melody", "datatype": "INT32", "shape": [-1, -1]},
            {"name": "note", "datatype": "INT32", "shape": [1, -1]},
        ],
        "outputs": [
            {"name": "chords", "datatype": "INT32", "shape": [-1, -1]},
            {"name": "chord", "datatype": "INT32", "shape": [1, 1]},
            {"name": "symbols", "datatype": "BYTES", "shape": [-1, -1]},
        ],
        "parameters": {
            key: manifest[key] for key in ("max_frames", "frames_per_beat", "vocabulary_size", "weights_sha256")
        },
    }


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)


def run(bundles: Sequence[Path], console: Console, *, host: str, port: int, sessions: int) -> None:
    """Serves until it is told to stop."""
    with contextlib.closing(listen(host, port)) as listening:
        players = _loaded(bundles, console)
        app = OwnHost(make_app(players, sessions), host)
        for player in players:
            console.say(f"{url_of(host, listening)}/v2/models/{player.name}")
        console.say("stop with Ctrl-C")
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
        uvicorn.Server(config).run(sockets=[listening])


def _loaded(bundles: Sequence[Path], console: Console) -> list[Player]:
    players: list[Player] = []
    for folder in bundles:
        console.say(f"loading {folder}")
        player = Player(folder)
        if player.name in {other.name for other in players}:
            raise UserError(f"two folders are called {player.name}, as their models would be: rename one")
        player.warm_up()
        players.append(player)
    return players
