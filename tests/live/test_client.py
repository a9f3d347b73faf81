"""The player without hands, against a real server on a real socket."""

import asyncio
import threading

import pytest

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
pytest.importorskip("websockets", reason="the extra 'live' is not installed")

from gapt_jax.errors import UserError
from gapt_jax.live.client import measure, served
from gapt_jax.live.session import LiveSession

FIELDS = ["ticks", "p50_ms", "p95_ms", "p99_ms", "late", "underruns", "coalesced"]


@pytest.fixture(scope="module")
def url(make_model):
    models = [make_model(0), make_model(1)]
    for model in models:
        model.warm_up()
    with served(models) as found:
        yield found


def test_a_session_in_time(url):
    found = asyncio.run(measure(url, bpm=120, lookahead=8, ticks=24))
    assert list(found) == FIELDS
    assert found["ticks"] == 24 and found["late"] == found["underruns"] == found["coalesced"] == 0
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] < 375  # three frames: four are final


def test_one_tick_and_another_model(url):
    assert asyncio.run(measure(url, bpm=240, lookahead=2, ticks=1, model="random1"))["ticks"] == 1


def test_a_model_that_is_too_slow_is_told(url, monkeypatch):
    tick, end = LiveSession.tick, threading.Event()

    def slow(session, *arguments):
        end.wait(0.5)  # eight frames
        return tick(session, *arguments)

    monkeypatch.setattr(LiveSession, "tick", slow)
    found = asyncio.run(measure(url, bpm=240, lookahead=8, ticks=24, commit=2))
    assert found["coalesced"] > 12 and found["underruns"] > 6 and found["late"] >= 2 and found["p50_ms"] > 500


@pytest.mark.parametrize("changes", [{"lookahead": 99}, {"bpm": 1000}, {"model": "none"}])
def test_a_refusal_is_the_servers_sentence(url, changes):
    with pytest.raises(UserError, match="refused"):
        asyncio.run(measure(url, **{"bpm": 120, "lookahead": 4, "ticks": 3} | changes))


def test_a_model_that_fails_ends_the_measurement(url, monkeypatch):
    tick = LiveSession.tick

    def fail(session, now, *arguments):
        if now == 3:
            raise FloatingPointError("made up")
        return tick(session, now, *arguments)

    monkeypatch.setattr(LiveSession, "tick", fail)
    with pytest.raises(UserError, match="failed"):
        asyncio.run(measure(url, bpm=240, lookahead=4, ticks=100))
