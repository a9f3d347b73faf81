"""Names and pages that the servers answer, in one process; where they listen."""

import asyncio
import contextlib
import json
import socket

import pytest

from gapt_jax.errors import UserError
from gapt_jax.runtime.loopback import OwnHost, is_own_name, is_own_origin, listen, url_of


@pytest.mark.parametrize(
    "authority",
    ["localhost", "LocalHost:1", "localhost:", "127.0.0.1:8080", "127.9.8.7", "[::1]", "[::1]:65535", "box.lan:8080"],
)
def test_own_names(authority):
    assert is_own_name(authority, "box.lan")


@pytest.mark.parametrize(
    "authority",
    [
        *("", ":80", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example#localhost"),
        *("localhost:x", "localhost:70000", "localhost:-1", "localhost:80:80", "localhost@evil.example", "localhost/"),
        *("[::1", "::1", "[::2]", "[::1]x", "[localhost]", "[127.0.0.1]x", "192.168.1.5", "10.0.0.1:8080", "0.0.0.0"),
        *("127.1", "127.0.0.256", "128.0.0.1", "local host", "localhost,evil.example", "lоcalhost", "localhost\n"),
    ],
)
def test_other_names(authority):
    assert not is_own_name(authority, "box.lan") and not is_own_name(authority, "127.0.0.1")


def test_addresses_of_digits_where_every_interface_is_open():
    for host in ("0.0.0.0", "::"):
        assert is_own_name("192.168.1.5:8080", host) and is_own_name("[fe80::1]", host)
        assert is_own_name("localhost", host) and not is_own_name("evil.example", host)
    assert is_own_name("192.168.1.5", "192.168.1.5")
    assert is_own_name("[::a]", "0:0::a") and is_own_name("[::a]", "[::a]")
    assert not is_own_name("192.168.1.6", "192.168.1.5")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("https://LOCALHOST", "localhost"),
        ("http://[::1]:8080", "[::1]:8080"),
        (None, "localhost"),
    ],
)
def test_own_pages(origin, host):
    assert is_own_origin(origin, host)


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "",
            "null",
            "localhost:8080",
            "http://",
            "http://[::1",
            "http://[",
            "http://localhost:8081",
            "file://",
            "\xff",
        ),
        *(
            "http://localhost:8080/",
            "http://a@localhost:8080",
            "ftp://localhost:8080",
            "http://localhost:8080 http://a",
        ),
        *("http://evil.example", "http://localhost:99999999999999999999", "http://127.0.0.1:8080"),
    ],
)
def test_other_pages(origin):
    assert not is_own_origin(origin, "localhost:8080")


def asked(kind="http", path="/", method="POST", **headers):
    """The status that an application behind `OwnHost` gives to a request; a list of values repeats its header."""
    fields = {"host": "localhost:8080"} | headers
    pairs = [
        (name.encode(), value.encode("latin-1"))
        for name, values in fields.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    scope = {"type": kind, "path": path, "method": method, "headers": pairs}
    scope["extensions"] = {"websocket.http.response": {}}
    sent = []

    async def app(scope, receive, send):
        await send({"type": "answer", "status": 200})

    async def send(message):
        sent.append(message)

    asyncio.run(OwnHost(app, "127.0.0.1", ["/live"])(scope, None, send))
    if sent[0]["status"] != 200:
        assert set(json.loads(sent[1]["body"])) == {"error"}
        assert sent[0]["type"].startswith("http" if kind == "http" else "websocket.http")
    return sent[0]["status"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_from_elsewhere_are_refused(kind):
    evil = "http://evil.example"
    assert asked(kind, "/live") == asked(kind, "/live", origin="http://localhost:8080") == 200
    assert asked(kind, "/live", host="evil.example") == asked(kind, "/live", host="evil.example", origin=evil) == 403
    assert asked(kind, "/live", origin=evil) == asked(kind, "/live", origin="null") == 403
    assert asked(kind, "/live", origin="http://[") == asked(kind, "/live", origin="\xff\xfe") == 403
    assert asked(kind, "/live", host=[]) == asked(kind, "/live", host=["localhost", "localhost"]) == 400
    assert asked(kind, "/live", origin=["http://localhost:8080"] * 2) == 400
    assert asked(kind, "/elsewhere") == (200 if kind == "http" else 404)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2", " 127.0.0.1 ", "LOCALHOST"])
def test_listening_on_loopback(host):
    with contextlib.closing(listen(host, 0)) as listening:
        assert listening.getsockname()[0].startswith("127.")
        assert url_of(host, listening) == f"http://{host.strip().lower()}:{listening.getsockname()[1]}"


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_listening_on_ipv6(host):
    with contextlib.closing(listen(host, 0)) as listening:
        place = listening.getsockname()
        assert place[0] == "::1" and url_of(host, listening) == f"http://[::1]:{place[1]}"
        socket.create_connection(place[:2], 5).close()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("", "--host is empty"),
        (" ", "--host is empty"),
        ("[]", "--host is empty"),
        ("0", "would open every interface"),
        ("0x0", "would open every interface"),
        ("::0", "would open every interface"),
        ("256.0.0.1", "choose another --host"),
        ("no such host", "choose another --host"),
        ("a" * 300, "choose another --host"),
        ("203.0.113.7", "choose another --host"),
    ],
)
def test_hosts_that_are_refused_for_their_own_reason(host, words):
    with pytest.raises(UserError) as refusal:
        listen(host, 0)
    assert words in str(refusal.value) and "--port" not in str(refusal.value)


def test_a_taken_port_is_the_ports_fault():
    taken = listen("127.0.0.1", 0)
    with contextlib.closing(taken), pytest.raises(UserError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
