"""Uvicorn with limits, for every server here: connections, bytes of a head and of a body, seconds of a request; and an
end without tracebacks, whatever is under way."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.loopback import refuse

MAX_BODY = 1 << 20  # bytes of a request's body
MAX_HEAD = 64 << 10  # bytes of its line and headers
REQUEST_SECONDS = 20  # until a request must have come whole
MAX_CONNECTIONS = 4096
RETRY_SECONDS = 10  # when who is refused may try again
BACKLOG = 128  # connections that may wait to be accepted
_SOCKET_HEADERS, _SOCKET_LINE = 100, 8000  # headers of a handshake, and bytes of each
_LOG_SECONDS = 60  # between two lines about connections that are refused
_LOG = logging.getLogger(__name__)


def serve(
    app: Any,
    listening: socket.socket,
    console: Console,
    *,
    grace_s: int,
    message_bytes: int = MAX_BODY,
    refused: Callable[[], None] = lambda: None,
) -> None:
    """Runs an ASGI application until it is told to stop, as `bounded` has it."""
    files = _raise_file_limit()
    most = most_connections(files, _open_files())
    console.say(f"at most {most:,} connections at a time, of {files:,} open files")
    bounded(app, most, grace_s=grace_s, message_bytes=message_bytes, refused=refused).run(sockets=[listening])


def bounded(
    app: Any, most: int, *, grace_s: int, message_bytes: int, refused: Callable[[], None] = lambda: None
) -> uvicorn.Server:
    """A server of at most so many connections; `refused` is called for each one more. Requests under way have `grace_s`
    seconds when it is told to stop; `message_bytes` bounds a message of a WebSocket."""
    config = uvicorn.Config(
        _Bounded(app),
        http=functools.partial(_Protocol, places=_Places(most, refused)),  # type: ignore[arg-type]  # any maker will do
        log_level="warning",
        access_log=False,
        backlog=min(BACKLOG, most),
        timeout_graceful_shutdown=grace_s + 1,
        ws_max_size=message_bytes,
    )
    logging.getLogger("uvicorn.error").addFilter(_QUIET)
    return _Server(config, grace_s)


class _Quiet(logging.Filter):
    """No traceback for what clients do, nor for what ends with the server: those tell of faults of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, asyncio.CancelledError):
            return False
        if isinstance(error, UnicodeDecodeError) and "UTF-8" in record.getMessage():
            record.exc_info = None
        return True


_QUIET = _Quiet()


def most_connections(files: int, in_use: int) -> int:
    """Connections for so many open files: half of what is free, so that others are still told why they are refused."""
    most = min((files - in_use) // 2, MAX_CONNECTIONS)
    if most < 1:
        raise UserError(f"{files} open files leave no room for connections: raise the limit (ulimit -n)")
    return most


def _raise_file_limit() -> int:
    """How many files this process may open, after it has asked for as many as it may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 1 << 16
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS takes no limit that is infinite
        hard = soft
    return hard if hard >= 0 else 1 << 20


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 64


class _Places:
    """How many connections there may be, and when it was last said that there are too many."""

    def __init__(self, most: int, refused: Callable[[], None]) -> None:
        self.most = most
        self._refused = refused
        self._said = -float(_LOG_SECONDS)

    def say_full(self) -> None:
        self._refused()
        now = time.monotonic()
        if now - self._said >= _LOG_SECONDS:
            self._said = now
            _LOG.warning("all %s connections are taken: others are refused", self.most)


class _Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, places: _Places, **options: Any) -> None:
        super().__init__(*args, **options)
        self._places = places
        self._is_in_head, self._head = True, 0  # bytes of a head that has not come whole
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_request()
        if len(self.connections) > self._places.most:
            self._places.say_full()
            self._turn_away(503, f"all {self._places.most} connections are taken: try again in a moment")

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._await_request()
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._turn_away(431, f"the line and headers of a request may have {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_request()

    def on_headers_complete(self) -> None:
        self._is_in_head, self._head = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        self._cancel_deadline()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The parser of handshakes knows narrower limits, raises on what goes beyond them, and overlooks a body."""
        self._cancel_deadline()
        before = set(self.connections)
        try:
            if len(self.headers) > _SOCKET_HEADERS or max(map(len, sum(self.headers, (self.url,)))) > _SOCKET_LINE:
                raise ValueError
            fields = dict(self.headers)
            if b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
                raise ValueError
            super().handle_websocket_upgrade()
        except Exception:
            for connection in self.connections - before:
                self.connections.discard(connection)
            self._turn_away(400, "this is no handshake of a WebSocket")

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing is said of an upgrade to what is not spoken here: the request is answered as if it had none."""

    def send_400_response(self, msg: str) -> None:
        self._turn_away(400, "this is no HTTP request")

    def shutdown(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()  # the rest of the request would be waited for
        else:
            super().shutdown()

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._is_late)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _is_late(self) -> None:
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self._await_request()  # an earlier request is still being answered
        else:
            self._turn_away(408, f"a request must come whole within {REQUEST_SECONDS} s")

    def _turn_away(self, status: int, text: str) -> None:
        """Closes the connection; says why, unless an answer is being written."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps({"error": text})
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            head += f"retry-after: {RETRY_SECONDS}\r\n" * (status == 503)
            rest = f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
            self.transport.write((head + rest).encode())
        self.transport.close()


class _Bounded:
    """An ASGI application whose requests say how long they are, and end quietly when the server does."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" else None
        if refusal:
            await refuse(scope, send, *refusal)
            return
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] == "lifespan":
                raise


def _refusal(scope: Any) -> tuple[int, str] | None:
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return 411, "a request needs a Content-Length, and is not taken in chunks"
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 9 or int(length) > MAX_BODY:
        return 413, f"a request may have {MAX_BODY} bytes"
    return None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, grace_s: int) -> None:
        super().__init__(config)
        self._grace_s = grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        dropping = asyncio.get_running_loop().call_later(self._grace_s, self._drop)
        await super().shutdown(sockets)
        dropping.cancel()

    def _drop(self) -> None:
        """Leaves whoever does not read what is written to it."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
