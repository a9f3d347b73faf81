"""Some seconds in a real browser, as browser_jam.py plays them."""

import json

import pytest

pytest.importorskip("websockets", reason="the extra 'live' is not installed")
from gapt_jax.live.client import served
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET
from tests.live.browsers import NEEDS_BROWSER, run

SECONDS = 10

pytestmark = [pytest.mark.timeout(300), *NEEDS_BROWSER]


def test_a_short_jam(make_model):
    model = make_model(frames=64)  # the page asks for plans of 16 frames
    model.warm_up()
    with served([model]) as url:
        code, out, err = run("browser_jam", url, "--seconds", SECONDS, seconds=120)
    assert code == 0, out + err
    found = json.loads(out)
    assert found["underruns"] == found["latePlans"] == found["violations"] == found["differ"] == 0
    assert found["faults"] == [] and found["running"] is True
    frames = 8 * (SECONDS - 3) - 16  # at 120 BPM, after the count-in and the intro
    assert found["compared"] >= frames // 2 and found["chords"] > 1 and found["scheduled"] > 1
    assert found["sent"]["ticks"] > frames and found["sent"]["notes"] > SECONDS
    assert found["roundTrip"]["p50"] <= found["roundTrip"]["p95"] < 500


def test_the_demo_is_heard_by_the_server(make_model):
    model = make_model(frames=64)
    model.warm_up()
    with served([model]) as url:
        code, out, err = run("browser_jam", url, "--demo", "--seconds", SECONDS, seconds=120)
    assert code in (0, 1), out + err  # 1 where plans were late, which does not matter here
    found = json.loads(out)
    assert found["faults"] == [] and found["intro"] == 8 and found["scheduled"] > 0
    quarters = [[NOTE_ONSET + pitch, *[NOTE_HOLD + pitch] * 3] for pitch in (60, 60, 67, 67)]
    assert [found["melody"][frame : frame + 4] for frame in range(0, 16, 4)] == quarters
