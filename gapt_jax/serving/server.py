"""Bundles over HTTP: Open Inference Protocol v2, sessions by sequence parameters, Prometheus metrics.

``POST /v2/models/{name}/infer`` takes either ``melody`` [B, T] (whole songs: ``chords`` [B, T] comes back), or, with
the parameter ``sequence_id``, ``note`` [1, n]: the notes heard since the last request, and gives ``chord`` [1, 1], that
of the next frame. ``sequence_start`` begins a session (n may be 0), ``sequence_end`` closes it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from gapt_jax import __version__
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.loopback import OwnHost, listen, refuse, url_of
from gapt_jax.runtime.web import MAX_BODY, serve
from gapt_jax.serving import protocol
from gapt_jax.serving.player import Player
from gapt_jax.serving.protocol import Refusal
from gapt_jax.serving.sessions import VERSION, Service

REQUESTS_PER_SECOND = 2_000  # of one address


class _Limits:
    """Refuses what has no length or comes too fast before anything of it is read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._second, self._counts = 0, dict[str, int]()  # requests of each address in the second under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal:
            await refuse(scope, send, *refusal)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        if self._is_too_fast((scope["client"] or ("",))[0]):
            return 429, f"more than {REQUESTS_PER_SECOND} requests a second"
        if scope["method"] == "POST" and not dict(scope["headers"]).get(b"content-length", b"").isdigit():
            return 411, "a request needs a Content-Length"
        return None

    def _is_too_fast(self, address: str) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._counts = second, {}
        self._counts[address] = self._counts.get(address, 0) + 1
        return self._counts[address] > REQUESTS_PER_SECOND


async def _body(request: Request) -> bytes:
    found = bytearray()
    try:
        async for part in request.stream():
            found += part
            if len(found) > MAX_BODY:
                raise Refusal(413, f"a request may have {MAX_BODY} bytes")
    except ClientDisconnect:
        raise Refusal(400, "the request did not come whole") from None
    return protocol.decompressed(bytes(found), request.headers.getlist("content-encoding"))


def make_app(players: Sequence[Player], sessions: int) -> FastAPI:
    """The application, its models loaded and compiled."""
    service = Service(players, sessions)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="gapt-jax", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan
    )

    app.add_middleware(_Limits)
    _answer_faults(app)
    _answer_questions(app, service)
    _answer_inference(app, service)
    return app


def _answer_faults(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> Response:
        return _error(refusal.status, refusal.text)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _error(400, f"{place or 'the request'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return _error(500, "the server failed at this request: its log says how")


def _answer_questions(app: FastAPI, service: Service) -> None:
    """What the server is and has, and how it fares."""

    @app.get("/v2")
    async def server() -> dict[str, Any]:
        return {"name": "gapt-jax", "version": __version__, "extensions": ["sequence", "binary_tensor_data"]}

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
    @app.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str = VERSION) -> dict[str, Any]:
        return {"name": service.player(name, version).name, "ready": True}

    @app.get("/v2/models/{name}")
    @app.get("/v2/models/{name}/versions/{version}")
    async def model(name: str, version: str = VERSION) -> dict[str, Any]:
        return _metadata(service.player(name, version))

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest(service.registry), media_type="text/plain; version=0.0.4")


def _answer_inference(app: FastAPI, service: Service) -> None:
    @app.post("/v2/models/{name}/infer")
    @app.post("/v2/models/{name}/versions/{version}/infer")
    async def infer(name: str, request: Request, version: str = VERSION) -> Response:
        status = 500
        try:
            player = service.player(name, version)
            raw, rest = protocol.split(await _body(request), request.headers.getlist(protocol.HEADER_LENGTH))
            found, json_bytes = await service.infer(player, raw, rest)
            status = 200
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            service.requests.labels(name if name in service.players else "", status).inc()
        if json_bytes is None:
            return Response(found, media_type="application/json")
        headers = {protocol.HEADER_LENGTH: str(json_bytes)}
        return Response(found, media_type="application/octet-stream", headers=headers)


def _metadata(player: Player) -> dict[str, Any]:
    manifest = player.bundle.manifest
    return {
        "name": player.name,
        "versions": [VERSION],
        "platform": "jax",
        "inputs": [
            {"name": "melody", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "note", "datatype": "INT64", "shape": [1, -1]},
        ],
        "outputs": [
            {"name": "chords", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "chord", "datatype": "INT64", "shape": [1, -1]},
            {"name": "symbols", "datatype": "BYTES", "shape": [-1, -1]},
        ],
        "parameters": {
            key: manifest[key] for key in ("max_frames", "frames_per_beat", "vocabulary_size", "weights_sha256")
        },
    }


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": text}, status, headers)


def run(bundles: Sequence[Path], console: Console, *, host: str, port: int, sessions: int) -> None:
    """Serves until it is told to stop."""
    with contextlib.closing(listen(host, port)) as listening:
        players = _loaded(bundles, console)
        app = OwnHost(make_app(players, sessions), host)
        for player in players:
            console.say(f"{url_of(host, listening)}/v2/models/{player.name}")
        console.say("stop with Ctrl-C")
        serve(app, listening, console, grace_s=5)


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
