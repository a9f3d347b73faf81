"""Both servers against strangers, floods and stops, over real sockets."""

import concurrent.futures
import json
import signal
import socket
import time

import httpx
import pytest

from gapt_jax.runtime.web import MAX_CONNECTIONS, MAX_HEAD, most_connections
from tests.serving.processes import answer_of, running
from tests.serving.wire import INFER, frame

KEY = "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"
UPGRADE = "Connection: Upgrade\nUpgrade: websocket\n"
BODY = json.dumps(frame("a", [], sequence_start=True)).encode()


@pytest.fixture(scope="module")
def serving(bundle_folder):
    with running("serve", bundle_folder) as found:
        yield found


@pytest.fixture(scope="module")
def jamming(bundle_folder):
    with running("jam", bundle_folder) as found:
        yield found


@pytest.fixture(params=["serving", "jamming"])
def server(request):
    return request.getfixturevalue(request.param)


def get(server, fields, path="/v2"):
    return server.ask(f"GET {'/healthz' if server.kind == 'jam' else path} HTTP/1.1\n{fields}\n")


def is_alive(server):
    status, _ = get(server, f"Host: localhost:{server.port}\nConnection: close\n")
    return status == 200 and "Traceback" not in "".join(server.said)


def test_names_that_are_answered(server):
    for name in ("localhost", "127.0.0.1", "127.3.2.1:1", f"[::1]:{server.port}", f"LOCALHOST:{server.port}"):
        assert get(server, f"Host: {name}\nConnection: close\n")[0] == 200
    for fields in (
        "Host: evil.example\n",
        f"Host: evil.example:{server.port}\nOrigin: http://evil.example:{server.port}\n",
        "Host: 192.168.1.5\n",
        "Host: localhost\nOrigin: http://[\n",
        "Host: localhost\nOrigin: null\n",
    ):
        status, text = get(server, fields)
        assert status == 403 and set(json.loads(text.partition("\r\n\r\n")[2])) == {"error"}
    for fields in ("", "Host:\nHost: localhost\n", "Host: localhost\nHost: localhost\n"):
        assert get(server, fields)[0] == 400
    assert is_alive(server)


def test_posts_of_other_pages_are_refused(serving):
    def post(fields):
        head = f"POST {INFER} HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: {len(BODY)}\n"
        return serving.ask(f"{head}{fields}\n", BODY)[0]

    assert post("") == post("Origin: http://localhost\n") == 200
    for origin in ("http://evil.example", "null", "http://localhost:3000", "http://[::1", "\xe4", ""):
        assert post(f"Origin: {origin}\n") == 403


def test_sockets_of_other_pages_are_refused(jamming):
    def shake(fields, path="/v1/live"):
        with jamming.connect() as connection:
            head = f"GET {path} HTTP/1.1\n{UPGRADE}{KEY}{fields}\n"
            connection.sendall(head.replace("\n", "\r\n").encode("latin-1"))
            return int(connection.recv(1 << 16).split()[1])

    here = f"localhost:{jamming.port}"
    assert shake(f"Host: {here}\n") == shake(f"Host: {here}\nOrigin: http://{here}\n") == 101
    evil = "Origin: http://evil.example\n"
    assert (
        shake(f"Host: evil.example\n{evil}") == shake(f"Host: {here}\n{evil}") == shake("Host: evil.example\n") == 403
    )
    assert shake(f"Host: {here}\nOrigin: http://[\n") == shake(f"Host: {here}\nOrigin: \xff\n") == 403
    assert shake(f"Host: {here}\nHost: {here}\n") == shake("") == 400
    assert shake(f"Host: {here}\n", "/") == shake(f"Host: {here}\n", "/app.js") == 404
    assert is_alive(jamming)


@pytest.mark.parametrize(
    "fields",
    [
        UPGRADE,
        UPGRADE + KEY,
        UPGRADE + KEY.replace("AA==", "==="),
        UPGRADE + KEY.replace("AA==", "\xff"),
        UPGRADE + KEY.replace("13", "12"),
        UPGRADE + KEY + KEY,
        UPGRADE + KEY + "Sec-WebSocket-Extensions: permessage-deflate; x=\";\n",
        UPGRADE + KEY + "Sec-WebSocket-Protocol: ,;\xff,\n",
        UPGRADE.replace("websocket", "h2c") + KEY,
        UPGRADE.replace("websocket", "websocket, h2c") + KEY,
        UPGRADE + KEY + "X-Long: " + "a" * 20_000 + "\n",
        UPGRADE + KEY + "X: \x80\n" * 300,
    ],
    ids=range(12),
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bad_handshakes_are_no_fault_of_ours(server, method, fields):
    for path in ("/", "/v1/live?a=%ff", INFER, "/%ff"):
        with server.connect() as connection:
            head = f"{method} {path} HTTP/1.1\nHost: localhost\nContent-Length: 0\n{fields}\n"
            connection.sendall(head.replace("\n", "\r\n").encode("latin-1"))
            assert int(connection.recv(1 << 16).split()[1]) < 500
    assert is_alive(server)


@pytest.mark.parametrize(
    ("start", "part", "status"),
    [
        ("GET /v2 HTTP/1.1\nHost: localhost\nX: ", b"a" * 65536, 431),
        ("GET /v2 HTTP/1.1\nHost: localhost\n", b"X: y\r\n" * 10_000, 431),
        ("GET /", b"a" * 65536, 431),
        ("", b"\r\n" * 32_768, 431),
        ("POST /v2 HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n0\nX: ", b"a" * 65536, 411),
        (f"POST {INFER} HTTP/1.1\nHost: localhost\nContent-Length: 120000000\n\n", b"a" * 65536, 413),
    ],
    ids=["header", "headers", "path", "nothing", "trailer", "body"],
)
def test_120_mb_delay_nobody(server, start, part, status):
    """Who sends too much is told so at once, and meanwhile others are answered."""
    slowest, is_over = 0.0, False

    def watch():
        nonlocal slowest
        while not is_over:
            began = time.monotonic()
            assert is_alive(server)
            slowest = max(slowest, time.monotonic() - began)

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        sent = 0
        with server.connect() as connection:
            try:
                connection.sendall(start.replace("\n", "\r\n").encode())
                while sent < 120_000_000:
                    connection.sendall(part)
                    sent += len(part)
            except OSError:
                pass
            found, _ = answer_of(connection)
        is_over = True
        watching.result()
    assert sent < 20_000_000 and slowest < 1
    assert found in (status, None)  # None: the reset came before the answer was read


def test_a_large_head_is_answered_with_a_sentence(server):
    status, text = get(server, f"Host: localhost\nX: {'a' * 600_000}\n")
    assert status == 431 and str(MAX_HEAD) in json.loads(text.partition("\r\n\r\n")[2])["error"]
    assert get(server, f"Host: localhost\nX: {'a' * 40_000}\nConnection: close\n")[0] == 200


def test_what_is_no_http_gets_an_object(server):
    for text in ("nothing\n\n", "GET / HTTP/9.9\n\n", "GET /v2 HTTP/1.1\nHost : localhost\n\n", "\x16\x03\x01\n\n"):
        status, said = server.ask(text)
        assert status == 400 and set(json.loads(said.partition("\r\n\r\n")[2])) == {"error"}
    assert is_alive(server)


def test_places_for_connections():
    assert most_connections(1024, 24) == 500 and most_connections(1 << 20, 40) == MAX_CONNECTIONS
    with pytest.raises(Exception, match="ulimit -n"):
        most_connections(40, 39)


@pytest.mark.parametrize("kind", ["serve", "jam"])
def test_at_the_limit_of_files_one_is_told_and_halves_are_dropped_quietly(bundle_folder, kind):
    with running(kind, bundle_folder, files=256) as server:
        said = next(line for line in server.said if "connections at a time" in line)
        most = int(said.split()[2])
        assert "256 open files" in said and 60 < most <= 128  # the soft limit was 128
        early = httpx.Client(base_url=server.url, timeout=10)
        path = "/v2" if kind == "serve" else "/healthz"
        assert early.get(path).status_code == 200
        idle = []
        for number in range(most - 1):
            idle.append(server.connect())
            if number % 2:
                idle[-1].sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode())
        time.sleep(0.5)
        for _ in range(80):
            status, text = answer_of(server.connect())
            assert status == 503 and f"all {most} connections are taken" in json.loads(text[text.index("{") :])["error"]
        assert early.get(path).status_code == 200  # who was there before is answered
        for connection in idle[:10]:
            connection.close()
        time.sleep(0.5)
        assert is_alive(server)
        began = time.monotonic()
        code, said = server.end(signal.SIGTERM)
        assert time.monotonic() - began < 10 and code in (0, -signal.SIGTERM)
        assert "Traceback" not in said and said.count("connections are taken") == 1
        assert len(said.splitlines()) < 12, said
        for connection in idle:
            connection.close()


def test_a_request_must_come_whole_in_time(bundle_folder):
    """Some drip, some say nothing, some do not read: all are left within the time."""
    program = (
        "from gapt_jax.runtime import web; web.REQUEST_SECONDS = 1; from gapt_jax.commands.main import main; main()"
    )
    with running("serve", bundle_folder, program=program) as server:
        halves = ["", "\r\n", "GET", f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{"]
        connections = [server.connect() for _ in halves]
        began = time.monotonic()
        for connection, half in zip(connections, halves, strict=True):
            connection.sendall(half.encode())
            status, text = answer_of(connection)
            assert status == 408 and "within 1 s" in text
        assert time.monotonic() - began < 5
        with httpx.Client(base_url=server.url) as client:  # between two requests nothing is due
            assert client.get("/v2").status_code == 200
            time.sleep(2)
            assert client.get("/v2").status_code == 200
        assert is_alive(server)


@pytest.mark.parametrize("kind", ["serve", "jam"])
def test_ctrl_c_says_that_the_server_stopped(bundle_folder, kind):
    with running(kind, bundle_folder) as server:
        code, said = server.end(signal.SIGINT)
        assert code == 0 and "the server stopped" in said
        assert "same command" not in said and "Traceback" not in said


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(bundle_folder):
    with running("serve", bundle_folder, "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:") and is_alive(server)
