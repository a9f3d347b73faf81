"""Where the servers listen, and who may talk to them: requests that call the server by its own name, and of browsers
only its own pages. A page of another site could otherwise reach it by a name that it makes point here (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import re
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{0,5}))?")
_LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
_ANY = ("0.0.0.0", "::")  # every interface of the machine
_PORT_FAULTS = (errno.EADDRINUSE, errno.EACCES, errno.EPERM)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at `host`, a name or an address, and `port`, 0 for a free one."""
    name = _bare(host)
    if not name:
        raise UserError("--host is empty, which would open every interface: name an address, as 127.0.0.1")
    try:
        places = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UserError(f"there is no address '{host}': choose another --host, as 127.0.0.1 or ::1") from None
    family, _, _, _, place = min(places, key=lambda found: found[0] != socket.AF_INET)  # localhost is 127.0.0.1
    if ipaddress.ip_address(str(place[0]).partition("%")[0]).is_unspecified and name not in _ANY:
        raise UserError(f"--host '{host}' would open every interface: write 0.0.0.0 if that is meant")
    try:
        return socket.create_server(place, family=family)
    except OSError as error:
        if error.errno in _PORT_FAULTS:
            raise UserError(f"port {port} of {host} cannot be had ({error.strerror}): choose another --port") from None
        raise UserError(f"this machine cannot listen at {host} ({error.strerror}): choose another --host") from None


def url_of(host: str, listening: socket.socket) -> str:
    """The address for a browser."""
    name = _bare(host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}"


@contextlib.contextmanager
def until_stopped(console: Console) -> Iterator[None]:
    """Ctrl-C inside is how a server ends, not an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        console.say("the server stopped")


def is_own_name(authority: str, host: str) -> bool:
    """Whether ``name:port`` names a server that listens at `host`: loopback names always, `host` itself, and any
    address of digits where `host` is every interface (no page of another site comes from one of those)."""
    parsed = _parsed(authority)
    if parsed is None:
        return False
    name, own = _bare(parsed[0]), _bare(host)
    address = _address(name)
    if address is None:
        return name in ("localhost", own)
    return any(address in network for network in _LOOPBACK) or own in _ANY or address == _address(own)


def is_own_origin(origin: str | None, host: str | None) -> bool:
    """Whether a page of this server, or a program that is no browser, asks; `host` is the Host header."""
    if origin is None:
        return True
    scheme, _, authority = origin.partition("://")
    page = _parsed(authority)
    return scheme in ("http", "https") and page is not None and host is not None and page == _parsed(host)


class OwnHost:
    """An ASGI application that refuses whoever calls the server by another name, or asks from another site's page.
    `sockets` are the paths of its WebSockets."""

    def __init__(self, app: Any, host: str, sockets: Sequence[str] = ()) -> None:
        self._app, self._host, self._sockets = app, host, sockets

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        refusal = self._refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal:
            await refuse(scope, send, *refusal)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Any) -> tuple[int, str] | None:
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if len(hosts) != 1 or len(origins) > 1:
            return 400, "a request has one Host header, and at most one Origin header"
        if not is_own_name(hosts[0], self._host):
            return 403, "the Host header does not name this server: use localhost, or the --host it was started with"
        if origins and not is_own_origin(origins[0], hosts[0]):
            return 403, "the Origin header names another site, and pages of other sites are not answered"
        if scope["type"] == "websocket" and scope["path"] not in self._sockets:
            return 404, "there is no WebSocket at this path"
        return None


async def refuse(scope: Any, send: Any, status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Answers a request with ``{"error": text}`` and closes the connection, or refuses a WebSocket."""
    kind = scope["type"] if scope["type"] == "http" else "websocket.http"
    if kind != "http" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": text}).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": f"{kind}.response.start", "status": status, "headers": [*fields, (b"connection", b"close"), *headers]}
    )
    await send({"type": f"{kind}.response.body", "body": body})


def _values(scope: Any, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for field, value in scope["headers"] if field == name]


def _parsed(authority: str) -> tuple[str, str | None] | None:
    """(name, port) of ``name:port``, None where it is neither."""
    found = _AUTHORITY.fullmatch(authority.lower())
    return None if found is None or int(found[2] or 0) > 65535 else (found[1], found[2])


def _bare(host: str) -> str:
    """A host without the brackets of an IPv6 address, in lower case."""
    name = host.strip().lower()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
