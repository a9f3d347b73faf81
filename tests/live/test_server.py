"""The socket: the protocol in order, recordings that replay bit for bit, hostile input, many players at once."""

import concurrent.futures
import io
import json
import re

import mido
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from gapt_jax.live.recording import replay
from gapt_jax.live.server import MESSAGE_BYTES, make_app
from gapt_jax.live.session import LiveSession
from gapt_jax.runtime.loopback import OwnHost, is_own_origin

START = {"type": "start", "lookahead_frames": 8, "commit_frames": 3, "intro_frames": 4, "seed": 3}


@pytest.fixture(scope="module")
def client(make_model):
    models = [make_model(0), make_model(1)]
    for model in models:
        model.warm_up()
    with TestClient(make_app(models, sessions=60)) as found:
        yield found


class Player:
    """A client of the protocol that checks what every client may rely on."""

    def __init__(self, socket):
        self.socket, self.rev, self.final, self.seq = socket, 0, {}, 0
        self.others = []
        self.ready = self.take("ready")

    def send(self, **message):
        self.socket.send_text(json.dumps(message))

    def take(self, kind):
        """The next message of a kind; others are kept."""
        while True:
            message = json.loads(self.socket.receive_text())
            if message["type"] == kind:
                return message
            assert message["type"] != "error" or kind == "pong", message
            self.others.append(message)

    def error(self):
        """The code of the error that comes next; other messages are kept."""
        while (message := json.loads(self.socket.receive_text()))["type"] != "error":
            self.others.append(message)
        return message["code"]

    def start(self, **changes):
        self.send(**START | changes)
        self.started = self.take("started")
        return self

    def tick(self, now, events=()):
        if events:
            self.send(type="notes", seq=self.seq, events=[{"f": f, "on": on, "p": p, "v": 90} for f, on, p in events])
        self.send(type="tick", seq=self.seq, now_frame=now, t=1000.5 + now)
        self.seq += 1
        plan = self.take("plan")
        assert plan["rev"] > self.rev and plan["base_frame"] == now and plan["t"] == 1000.5 + now
        assert plan["commit_until"] >= now and len(plan["chords"]) >= 1
        self.rev = plan["rev"]
        for chord in plan["chords"]:
            assert self.final.get(chord["f"], chord) == chord
            if chord["f"] < plan["commit_until"]:
                self.final[chord["f"]] = chord
        return plan

    def jam(self, frames, seed=0, first=0):
        rng = np.random.default_rng(seed)
        for now in range(first, first + frames):
            events = [(now - 1, bool(rng.random() < 0.7), int(rng.integers(60, 72)))] if now else []
            self.tick(now, events if rng.random() < 0.5 else ())
        return self


def connected(client, **options):
    return client.websocket_connect("/v1/live", subprotocols=["gapt-live.1"], **options)


def test_a_session_and_its_recording(client, make_model):
    with connected(client) as socket:
        assert socket.accepted_subprotocol == "gapt-live.1"
        player = Player(socket)
        assert [model["name"] for model in player.ready["models"]] == ["random0", "random1"]
        player.start().jam(20)
        assert player.started["controls"]["seed"] == 3 and player.started["model"] == "random0"
        player.send(type="set", model="random1", temperature=0.5)
        player.jam(50, first=20)
        intro = next(message for message in player.others if message["type"] == "intro")
        assert [chord["f"] for chord in intro["chords"]] == [0, 1, 2, 3]
        assert all(player.final[frame]["pitches"] == [] for frame in range(4))
        stats = next(message for message in player.others if message["type"] == "stats")
        assert stats["frames"] >= 32 and stats["p50_ms"] <= stats["p95_ms"]
        identity = player.started["session"]
        player.send(type="stop")
        player.send(type="ping", t=5)
        assert player.take("pong")["t"] == 5
    record = client.get(f"/api/sessions/{identity}.json").json()
    assert len(record["chords"]) == len(record["melody"]) == len(record["symbols"]) == 69
    assert all(record["symbols"][frame] == player.final[frame]["sym"] for frame in range(4, 69))
    models = {make_model(n).weights_sha256: make_model(n) for n in (0, 1)}
    again = replay(record, models)
    assert again.decided[:69] == record["chords"] and again.heard == record["melody"]
    tracks = mido.MidiFile(file=io.BytesIO(client.get(f"/api/sessions/{identity}.mid").content)).tracks
    assert {"melody", "chords"} <= {track.name for track in tracks}
    assert client.head(f"/api/sessions/{identity}.wav").status_code in (200, 404)
    assert client.get(f"/api/sessions/{identity}.exe").status_code == 404
    assert client.get("/api/sessions/unknown.json").status_code == 404


def test_ready_says_the_longest_plan_of_each_model(client, make_model):
    with connected(client) as socket:
        player = Player(socket)
        most = make_model().most_ahead
        assert [model["lookahead_frames"] for model in player.ready["models"]] == [most, most]
        player.start(lookahead_frames=most)
        assert len(player.tick(0)["chords"]) == most
        for refused in (1, most + 1, 33):
            player.send(type="set", lookahead_frames=refused)
            assert player.error() == "bad_value"
        player.send(type="set", lookahead_frames=2)
        assert len(player.tick(1)["chords"]) >= 2


def test_the_silent_beats_are_fixed_while_a_session_plays(client):
    with connected(client) as socket:
        player = Player(socket).start(intro_frames=4)
        player.send(type="set", intro_frames=2)  # nothing has been planned yet
        player.jam(12)
        for refused in (0, 64):
            player.send(type="set", intro_frames=refused)
            assert player.error() == "bad_value"
        player.send(type="set", intro_frames=2, temperature=0.5)
        player.jam(8, first=12)  # the player checks that nothing final changes
        identity = player.started["session"]
        player.send(type="reset")
        player.final, player.rev = {}, player.rev
        player.send(type="set", intro_frames=8)
        player.jam(12)
        assert all(player.final[frame]["pitches"] == [] for frame in range(8))
    with connected(client) as socket:
        other = Player(socket)
        other.send(type="start", session=identity, intro_frames=0)
        assert other.error() == "bad_value"


def test_reset_begins_again_with_the_same_chords(client):
    with connected(client) as socket:
        player = Player(socket).start().jam(10)
        first = dict(player.final)
        player.send(type="reset")
        player.final = {}
        player.jam(10)
        assert player.final == first


def test_a_player_comes_back(client):
    with connected(client) as socket:
        player = Player(socket).start().jam(6)
    with connected(client) as socket:
        back = Player(socket)
        back.rev, back.final = player.rev, player.final
        back.start(session=player.started["session"])
        assert back.started["session"] == player.started["session"]
        back.jam(6, first=6)
    with connected(client) as socket:
        other = Player(socket)
        other.send(**START | {"session": "no such session"})
        assert other.take("error")["code"] == "no_session"


def test_missed_ticks_are_made_up(client):
    with connected(client) as socket:
        player = Player(socket).start()
        player.tick(0)
        player.tick(30, [(5, True, 60), (9, False, 60)])
        assert max(player.final) >= 32


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("", "bad_message"),
        ("{", "bad_message"),
        ("[1]", "bad_message"),
        ("[" * 5000, "bad_message"),
        ('{"type": 3}', "bad_message"),
        ('{"type": "dance"}', "unknown_type"),
        ('{"type": "start", "model": "other"}', "unknown_model"),
        ('{"type": "start", "model": ["random0"]}', "unknown_model"),
        ('{"type": "start", "bpm": 1000}', "bad_value"),
        ('{"type": "start", "bpm": "fast"}', "bad_value"),
        ('{"type": "start", "bpm": NaN}', "bad_value"),
        ('{"type": "start", "lookahead_frames": 3, "commit_frames": 4}', "bad_value"),
        ('{"type": "start", "lookahead_frames": 2.5}', "bad_value"),
        ('{"type": "start", "lookahead_frames": 32}', "bad_value"),
        ('{"type": "start", "masked": 1}', "bad_value"),
        ('{"type": "start", "session": {"a": 1}}', "no_session"),
        ('{"type": "set", "temperature": -1}', "bad_value"),
        ('{"type": "set", "model": "other"}', "unknown_model"),
        ('{"type": "notes", "events": 3}', "bad_message"),
        ('{"type": "notes", "events": [3]}', "bad_message"),
        ('{"type": "notes", "events": [{"f": 1, "on": true, "p": 200, "v": 1}]}', "bad_value"),
        ('{"type": "notes", "events": [{"f": -1, "on": true, "p": 60}]}', "bad_value"),
        ('{"type": "notes", "events": [{"f": 5000, "on": true, "p": 60}]}', "future_frame"),
        ('{"type": "tick", "now_frame": -1}', "bad_value"),
        ('{"type": "tick", "now_frame": 1e3}', "bad_value"),
        ('{"type": "tick", "now_frame": 100000}', "future_frame"),
        ('{"type": "tick", "now_frame": 2}', "late_frame"),
    ],
)
def test_bad_messages_get_an_error_and_play_goes_on(client, message, code):
    needs_session = any(f'"type": "{kind}"' in message for kind in ("set", "notes", "tick"))
    with connected(client) as socket:
        player = Player(socket)
        if needs_session:
            player.start().jam(5)
        socket.send_text(message)
        error = player.take("error")
        assert error["code"] == code and not error["fatal"] and error["msg"]
        (player if needs_session else player.start()).tick(5)


def test_messages_without_a_session(client):
    with connected(client) as socket:
        player = Player(socket)
        for kind in ("notes", "tick", "set", "reset", "stop"):
            player.send(type=kind)
            assert player.take("error")["code"] == "no_session"


def test_a_late_note_is_a_warning(client):
    with connected(client) as socket:
        player = Player(socket).start().jam(10)
        player.tick(10, [(3, True, 60)])
        player.send(type="ping")
        player.take("pong")
        assert any(message.get("code") == "late_frame" for message in player.others)


@pytest.mark.parametrize(("texts", "code"), [(["x" * (MESSAGE_BYTES + 1)], "too_large"), (["{}"] * 500, "too_fast")])
def test_floods_end_the_connection(client, texts, code):
    with connected(client) as socket:
        player = Player(socket)
        for text in texts:
            socket.send_text(text)
        with pytest.raises(WebSocketDisconnect):
            while True:
                player.take("pong")
        assert player.others[-1]["code"] == code and player.others[-1]["fatal"]


def test_pages_of_other_sites_are_kept_out(client):
    assert is_own_origin("http://127.0.0.1:8080", "127.0.0.1:8080") and is_own_origin(None, "a")
    assert not is_own_origin("http://evil.example", "127.0.0.1:8080") and not is_own_origin("null", "a")
    own = TestClient(OwnHost(client.app, "127.0.0.1", ["/v1/live"]), "http://127.0.0.1:8080")
    address = "ws://127.0.0.1:8080/v1/live"
    with own.websocket_connect(address, headers={"origin": "http://127.0.0.1:8080"}) as socket:
        assert json.loads(socket.receive_text())["type"] == "ready"
    for evil in ({"origin": "http://evil.example"}, {"origin": "http://evil.example", "host": "evil.example"}):
        with (
            pytest.raises((WebSocketDisconnect, WebSocketDenialResponse)),
            own.websocket_connect(address, headers=evil),
        ):
            pass


def test_fifty_players_at_once(client):
    expected = None
    with connected(client) as socket:
        expected = Player(socket).start(seed=11).jam(12).final

    def one(number):
        with connected(client) as socket:
            return Player(socket).start(seed=11 if number % 2 else number).jam(12).final

    with concurrent.futures.ThreadPoolExecutor(50) as threads:
        found = list(threads.map(one, range(50)))
    assert all(final == expected for final in found[1::2])
    assert sum(final != expected for final in found[::2]) >= 20


def test_places_are_limited(make_model):
    with TestClient(make_app([make_model()], sessions=1)) as client:
        with connected(client) as socket, connected(client) as other:
            first = Player(socket).start().started["session"]
            second = Player(other)
            second.send(**START)
            assert second.take("error")["code"] == "busy"
        with connected(client) as socket:  # who went away and may come back gives way to who is here
            newcomer = Player(socket).start()
            newcomer.tick(0)
            newcomer.send(**START | {"session": first})
            assert newcomer.take("error")["code"] == "no_session"


def test_a_model_that_fails_ends_its_session_and_no_other(make_model, monkeypatch):
    def fail(*_):
        raise FloatingPointError("made up")

    with TestClient(make_app([make_model()])) as client, connected(client) as socket, connected(client) as other:
        player, unharmed = Player(socket).start(), Player(other).start()
        with monkeypatch.context() as patched:
            patched.setattr(LiveSession, "tick", fail)
            player.send(type="tick", seq=0, now_frame=0, t=0)
            error = player.take("error")
            assert error["code"] == "internal" and error["fatal"] and "made up" not in error["msg"]
            with pytest.raises(WebSocketDisconnect):
                player.take("pong")
        unharmed.tick(0)


def test_the_page_and_its_headers(client):
    page = client.get("/")
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/app.js").headers["content-type"].startswith("text/javascript")
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page.text)  # nothing from elsewhere
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"ready": True}
    assert client.get("/api/models").json()[0]["name"] == "random0"
    assert client.get("/../server.py").status_code == 404
