"""Clients that speak no HTTP, half of it, or are too many, against the server as ``gapt jam`` runs it: real sockets, a
process of its own where it has to end."""

import asyncio
import base64
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
pytest.importorskip("websockets", reason="the extra 'live' is not installed")
from gapt_jax.live import client as live_client
from gapt_jax.live import downloads, recording
from gapt_jax.live.client import served
from gapt_jax.live.server import GRACE
from gapt_jax.runtime import web

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).parents[2]
KEY = base64.b64encode(b"0123456789abcdef").decode()
HANDSHAKE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}


def request(method="GET", path="/v1/live", more=(), **changes):
    """A handshake with some headers changed, or left out where they are None."""
    fields = {"Host": "127.0.0.1"} | HANDSHAKE | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in [*fields.items(), *more] if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def frame(opcode, payload, first=0x80, length=None):
    """A masked frame of a client."""
    size = bytes([0x80 | len(payload)]) if length is None else length
    return bytes([first | opcode]) + size + bytes(4) + payload


HANDSHAKES = {
    "no key": request(Sec_WebSocket_Key=None),
    "short key": request(Sec_WebSocket_Key="aa"),
    "key in Latin-1": request(Sec_WebSocket_Key="\xff\xfe"),
    "two keys": request(more=[("Sec-WebSocket-Key", KEY)]),
    "old version": request(Sec_WebSocket_Version="8"),
    "no version": request(Sec_WebSocket_Version=None),
    "extensions": request(Sec_WebSocket_Extensions=";;;"),
    "quoted extension": request(Sec_WebSocket_Extensions='permessage-deflate; client_max_window_bits="x'),
    "subprotocols": request(Sec_WebSocket_Protocol=",,\x7f"),
    "subprotocols in Latin-1": request(Sec_WebSocket_Protocol="\xe9"),
    "POST": request("POST"),
    "another path": request(path="/"),
    "an endpoint": request(path="/api/models"),
    "escapes": request(path="/v1/live%ff%00"),
    "a body": request(Content_Length="5") + b"hello",
    "chunks": request(Transfer_Encoding="chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "many headers": request(more=[(f"X-{n}", "1") for n in range(300)]),
    "a long header": request(X="a" * 20_000),
    "a huge header": request(X="a" * 1_000_000),
    "a long path": request(path="/v1/live?" + "a" * 12_000),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
}
FRAMES = {
    "no UTF-8": frame(1, b"\xff\xfe"),
    "no UTF-8 in pieces": frame(1, b"h", 0) + frame(0, b"\xff"),
    "no mask": b"\x81\x02hi",
    "reserved bits": frame(1, b"hi", 0xF0),
    "reserved opcode": frame(3, b"hi"),
    "continues nothing": frame(0, b"hi"),
    "text within text": frame(1, b"h", 0) + frame(1, b"i", 0),
    "endless": frame(1, b"", length=b"\xff" + b"\x7f" + b"\xff" * 7),
    "short close": frame(8, b"a"),
    "close of code 1": frame(8, b"\x00\x01"),
    "close without UTF-8": frame(8, b"\x03\xe8\xff\xff"),
    "long ping": frame(9, b"a" * 255, length=b"\xfe\x00\xff"),
}
MESSAGES = {
    "binary": frame(2, b"hi"),
    "empty": frame(1, b""),
    "deep time": frame(1, b'{"type":"ping","t":' + b"[" * 40 + b"]" * 40 + b"}"),
    "infinite time": frame(1, b'{"type":"ping","t":1e999}'),
    "half a surrogate": frame(1, b'{"type":"\\ud800"}'),
}


@pytest.fixture(scope="module")
def place(make_model):
    make_model().warm_up()
    with served([make_model()]) as url:
        yield "127.0.0.1", int(url.rpartition(":")[2])


def said(place, *parts, wait=20.0):
    """All that the server says until it closes; what comes last is its answer to the last part."""
    heard = b""
    with socket.create_connection(place, timeout=wait) as client:
        for number, part in enumerate(parts):
            client.sendall(part)
            while number + 1 < len(parts) and b"ready" not in heard:
                heard += client.recv(1 << 16)
        try:
            while data := client.recv(1 << 16):
                heard += data
        except ConnectionResetError:
            pass
    return heard


@pytest.fixture
def tracebacks():
    """Those in uvicorn's log, which goes by pytest's."""
    found = []

    class Handler(logging.Handler):
        def emit(self, record):
            found.extend([record] * bool(record.exc_info))

    handler, logger = Handler(), logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_bad_handshake_is_refused_at_once(name, place, tracebacks):
    began = time.monotonic()
    answer = said(place, HANDSHAKES[name])
    assert re.match(rb"HTTP/1.1 4\d\d ", answer), answer[:200]
    assert time.monotonic() - began < 8 and not tracebacks


@pytest.mark.parametrize("name", FRAMES)
def test_a_bad_frame_ends_the_connection(name, place, tracebacks):
    answer = said(place, request(), FRAMES[name])
    code = int.from_bytes(answer[answer.rindex(b"\x88") + 2 :][:2])
    assert code in (1002, 1007, 1009), answer[-80:]
    assert not tracebacks


@pytest.mark.parametrize("name", MESSAGES)
def test_a_bad_message_is_answered(name, place, tracebacks):
    with socket.create_connection(place, timeout=20) as player:
        player.sendall(request())
        heard = b""
        for word, answered in ((b"ready", MESSAGES[name]), (b'"type": "error"', frame(1, b'{"type":"ping"}'))):
            while word not in heard:
                heard += player.recv(1 << 16)
            player.sendall(answered)
        while b"pong" not in heard:  # it goes on
            heard += player.recv(1 << 16)
    assert b'"fatal": false' in heard and not tracebacks


def test_who_says_nothing_is_let_go(place, monkeypatch):
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.3)
    for half in (b"", b"GET / HT", request()[:40], b"GET /app.js HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"):
        began = time.monotonic()
        said(place, half)
        assert time.monotonic() - began < 5
    with socket.create_connection(place, timeout=5) as player:  # who plays stays
        player.sendall(request())
        time.sleep(1)
        assert b"ready" in player.recv(1 << 16)
        player.sendall(frame(1, b'{"type":"ping"}'))
        assert b"pong" in player.recv(1 << 16)


def test_too_many_connections_are_told(make_model, monkeypatch, caplog):
    monkeypatch.setattr(live_client, "MAX_CONNECTIONS", 3)
    with served([make_model()]) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        held = [socket.create_connection(place, timeout=10) for _ in range(3)]
        for client in held[:2]:
            client.sendall(request())
            assert b"101" in client.recv(1 << 16)
        for _ in range(4):
            answer = said(place, b"")
            assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 10" in answer and b"try again" in answer
        held[2].close()
        time.sleep(0.3)
        counted = urlopen(f"{url}/metrics", timeout=10).read().decode()
        for client in held:
            client.close()
    assert 'gapt_live_dropped_total{what="connections"} 4.0' in counted
    assert sum("connections are taken" in record.message for record in caplog.records) == 1


SERVER = """
import sys
from pathlib import Path
from gapt_jax.live import server
from gapt_jax.commands.live import song_model
from gapt_jax.runtime.console import Console
from tests.export.bundles import VOCABULARY
import resource
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
server.open_models = lambda paths, console, names: [song_model(Path(sys.argv[1]), VOCABULARY)]
server.run([], Console(), host="127.0.0.1", port=0, sessions=8)
"""


class Process:
    """``gapt jam`` as a process, with songs in the policy's place: where it listens, and what it says."""

    def __init__(self, folder, *arguments):
        self.log = folder / "log.txt"
        tune = folder / "tune.abc"
        tune.write_text('X:1\nT:a\nM:4/4\nL:1/4\nK:C\n"C" CDEF | "G" GABc |\n')
        with self.log.open("w") as log:
            command = [sys.executable, "-c", SERVER, str(tune), *map(str, arguments)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + 90
        while not (found := re.search(r"open http://127.0.0.1:(\d+)", self.said)):
            assert self.process.poll() is None and time.monotonic() < until, self.said
            time.sleep(0.1)
        self.place = "127.0.0.1", int(found[1])

    @property
    def said(self):
        return self.log.read_text()

    def end(self, number=signal.SIGTERM):
        """Seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - began


@pytest.fixture
def start(tmp_path):
    found = []

    def begin(*arguments):
        found.append(Process(tmp_path, *arguments))
        return found[-1]

    yield begin
    for process in found:
        process.process.kill()
        process.process.wait(10)


def test_half_requests_do_not_hold_up_the_end(start):
    server = start()
    head = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    kinds = [
        b"GET / HT",
        b"GET /" + head,
        b"POST /" + head + b"Content-Length: 100\r\n\r\nabc",
        b"GET /api/models" + head + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
        b"POST /v1/live" + head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        request()[:60],
        request(),
        request() + b"\x81",
    ]
    clients = [socket.create_connection(server.place, timeout=10) for _ in range(160)]
    for number, client in enumerate(clients):
        client.sendall(kinds[number % len(kinds)])
    for client in clients[6::8]:  # who plays, and does not listen
        client.recv(1 << 16)
        client.sendall(frame(1, b'{"type":"start","intro_frames":0}'))
        for now in (0, 500):
            tick = json.dumps({"type": "tick", "now_frame": now}).encode()
            client.sendall(frame(1, tick))
    time.sleep(0.5)
    assert server.end() < GRACE + 5
    for client in clients:
        client.close()
    assert "Traceback" not in server.said and server.said.count("\n") < 30, server.said


def test_few_open_files_are_no_silence(start):
    server = start(120)
    clients, answers = [], []
    for _ in range(200):
        client = socket.create_connection(server.place, timeout=20)
        clients.append(client)
        client.settimeout(0.05)
        try:
            answers.append(client.recv(1 << 12))
        except TimeoutError:
            answers.append(None)
        client.settimeout(20)
    refused = [answer for answer in answers if answer]
    assert len(refused) > 100 and all(answer.startswith(b"HTTP/1.1 503") for answer in refused)
    assert answers[:4] == [None] * 4
    clients[0].sendall(
        b"GET /app.js HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    )  # who was there is served
    assert clients[0].recv(1 << 12).startswith(b"HTTP/1.1 200")
    for client in clients:
        client.close()
    time.sleep(0.5)
    assert urlopen("http://{}:{}/healthz".format(*server.place), timeout=10).status == 200
    assert server.end() < GRACE + 5
    assert (
        "of 120 open files" in server.said and "connections are taken" in server.said and "Traceback" not in server.said
    )


@pytest.fixture
def fluid(tmp_path, monkeypatch):
    """A FluidSynth that takes half a second and keeps a list of when it ran."""
    log = tmp_path / "log"
    program = tmp_path / "bin" / "fluidsynth"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys, time, wave\nbegan = time.time()\ntime.sleep(0.5)\n"
        f"open({str(log)!r}, 'a').write(f'{{began}} {{time.time()}}\\n')\n"
        "sound = wave.open(sys.argv[sys.argv.index('-F') + 1], 'wb')\n"
        "sound.setparams((2, 2, 44100, 0, 'NONE', ''))\nsound.writeframes(bytes(199_960))\nsound.close()\n"
    )
    program.chmod(0o755)
    (tmp_path / "font.sf2").write_bytes(b"")
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(recording, "SOUND_FONTS", (str(tmp_path / "font.sf2"),))
    return log


def recorded(place, frames=20):
    """The name of a recording."""
    from websockets.sync.client import connect

    with connect("ws://{}:{}/v1/live".format(*place)) as player:
        json.loads(player.recv())
        player.send(json.dumps({"type": "start", "lookahead_frames": 8}))
        identity = json.loads(player.recv())["session"]
        player.send(json.dumps({"type": "tick", "now_frame": frames}))
        while json.loads(player.recv())["type"] != "plan":
            pass
        player.send(json.dumps({"type": "stop"}))
        player.send(json.dumps({"type": "ping"}))
        while json.loads(player.recv())["type"] != "pong":
            pass
    return identity


def fetch(url):
    try:
        with urlopen(url, timeout=60) as answer:
            return answer.status, answer.read(), answer.headers
    except HTTPError as error:
        return error.code, error.read(), error.headers


def test_sounds_are_made_one_at_a_time(place, fluid):
    address = "http://{}:{}".format(*place)
    sound = f"{address}/api/sessions/{recorded(place)}.wav"
    with ThreadPoolExecutor(17) as threads:
        found = [threads.submit(fetch, sound) for _ in range(16)]
        time.sleep(0.2)
        began = time.monotonic()
        assert fetch(f"{address}/healthz")[0] == 200 and fetch(sound.replace(".wav", ".mid"))[1][:4] == b"MThd"
        assert time.monotonic() - began < 0.5
        answers = [one.result() for one in found]
    good = [answer for answer in answers if answer[0] == 200]
    assert len(good) == downloads.SOUNDS and all(len(body) == 200_004 for _, body, _ in good)
    for status, body, headers in answers:
        if status != 200:
            assert status == 503 and headers["Retry-After"] == "10" and b"come again" in body
    times = sorted(tuple(map(float, line.split())) for line in fluid.read_text().splitlines())
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    assert fetch(sound)[0] == 200  # places are free again
    assert 'what="downloads"} 13.0' in fetch(f"{address}/metrics")[1].decode()


def test_who_does_not_fetch_gives_the_place_back(place, fluid, monkeypatch):
    monkeypatch.setattr(downloads, "SEND_SECONDS", 1)
    monkeypatch.setattr(recording, "to_wav", None)
    monkeypatch.setattr(downloads, "to_wav", lambda *_: bytes(50_000_000))
    path = f"/api/sessions/{recorded(place)}.wav"
    clients = []
    for _ in range(downloads.SOUNDS):
        clients.append(socket.create_connection(place))
        clients[-1].sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    time.sleep(0.5)
    url = "http://{}:{}{}".format(*place, path)
    assert fetch(url)[0] == 503
    until = time.monotonic() + 20
    while fetch(url)[0] == 503:
        assert time.monotonic() < until
        time.sleep(0.2)
    for client in clients:
        client.close()


def test_long_recordings_get_no_sound_and_fluidsynth_ends_with_the_server(place, fluid, monkeypatch):
    url = "http://{}:{}/api/sessions/{}".format(*place, recorded(place, 500))
    monkeypatch.setattr(downloads, "SOUND_SECONDS", 60)
    status, body, _ = fetch(f"{url}.wav")  # 500 frames at 120 BPM are 62.5 s
    assert status == 404 and b"take the MIDI file" in body
    monkeypatch.setattr(recording, "_RENDER_SECONDS", 0.1)
    monkeypatch.setattr(downloads, "SOUND_SECONDS", 90)
    status, body, _ = fetch(f"{url}.wav")
    assert status == 500 and b"take the MIDI file" in body and not fluid.exists()


def test_what_is_no_sound_file_is_said(place, fluid, tmp_path):
    (tmp_path / "bin" / "fluidsynth").write_text(
        f"#!{sys.executable}\nimport sys\nopen(sys.argv[sys.argv.index('-F') + 1], 'wb').write(b'RIFF' + bytes(99))\n"
    )
    status, body, _ = fetch("http://{}:{}/api/sessions/{}.wav".format(*place, recorded(place)))
    assert status == 500 and b"take the MIDI file" in body


def test_faults_of_ours_keep_their_traceback(place, tracebacks):
    for error in (ValueError("ours"), asyncio.CancelledError()):
        try:
            raise error
        except BaseException:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert [record.exc_info[0] for record in tracebacks] == [ValueError]
