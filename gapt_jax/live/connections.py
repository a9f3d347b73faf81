"""Connections of one server: so many at most, none that says nothing, and no traceback for what a client does."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 16 << 10  # of a request
PATIENCE = 10.0  # seconds that a request may take to come
GRACE = 2  # seconds that those who are connected get when the server ends
BACKLOG = 64  # connections that may wait to be taken
_SPARE_FILES = 128
_LEAST = 8
_TOLD_EVERY = 60  # seconds
_LOG = logging.getLogger(__name__)
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 10\r\n"
    b"connection: close\r\ncontent-length: 40\r\n\r\nToo many are connected: come again soon\n"
)


def most_connections() -> int:
    """How many connections this process can hold, two open files each, with some to spare."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 16
    listed = Path("/proc/self/fd")
    held = len(os.listdir(listed)) if listed.is_dir() else 64
    return max(_LEAST, (limit - held - min(_SPARE_FILES, limit // 4)) // 2)


def settings(app: Any, most: int, refused: Callable[[], None] = lambda: None, **more: Any) -> uvicorn.Config:
    """How uvicorn serves an application to at most so many connections; `refused` is called for each one more."""
    config = uvicorn.Config(
        app,
        http=_protocol(most, refused),
        h11_max_incomplete_event_size=HEADER_BYTES,
        log_level="warning",
        access_log=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE,
        **more,
    )
    logging.getLogger("uvicorn.error").addFilter(_QUIET)
    return config


def _protocol(most: int, refused: Callable[[], None]) -> type[H11Protocol]:
    told = -float(_TOLD_EVERY)

    def refuse(transport: Any) -> None:
        nonlocal told
        refused()
        if time.monotonic() - told >= _TOLD_EVERY:
            told = time.monotonic()
            _LOG.warning("all %d connections are taken, others are sent away: raise the limit of open files", most)
        transport.write(_FULL)
        transport.close()

    class Protocol(H11Protocol):
        """HTTP that ends a connection over the limit, and one on which no request gets whole."""

        _handed: Any = None  # the WebSocket protocol that has taken over
        _seen: Any = None
        _patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                refuse(transport)
            else:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._patience:
                self._patience.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if not self.transport.is_closing():
                super().data_received(data)

        def handle_websocket_upgrade(self, event: Any) -> None:
            super().handle_websocket_upgrade(event)
            self._handed = self.transport.get_protocol()
            if not getattr(self._handed, "handshake_initiated", True):  # it has thrown away what it cannot read
                self.send_400_response("This is no WebSocket handshake.")

        def _wait(self) -> None:
            self._patience = self.loop.call_later(PATIENCE, self._look)

        def _look(self) -> None:
            if self._handed is not None:
                is_idle = not getattr(self._handed, "handshake_complete", True)
            else:
                is_idle = self.cycle is self._seen and (self.cycle is None or self.cycle.response_complete)
                self._seen = self.cycle
            if is_idle:
                self.transport.abort()
            elif self._handed is None:
                self._wait()

    return Protocol


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
