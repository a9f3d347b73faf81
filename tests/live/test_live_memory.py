"""A session of any length: but for the tokens played and the recording, nothing grows."""

import gc
import time

import jax
import numpy as np
import pytest

from gapt_jax.live.engine import Controls
from gapt_jax.live.notes import Event
from gapt_jax.live.session import LiveSession
from tests.export.bundles import FRAMES

pytestmark = pytest.mark.timeout(300)
CONTROLS = Controls(lookahead_frames=8, commit_frames=3, intro_frames=0)
HISTORY = {"heard", "decided"}  # a token a frame
SOON, LATER = 500, 3000  # ticks


def jam(session, first, last):
    """Ticks of a player who also plays too late, too early, and changes the controls."""
    rng = np.random.default_rng(first)
    for now in range(first, last):
        events = [Event(int(now + rng.integers(-2, 4)), bool(rng.random() < 0.6), int(rng.integers(60, 72)))]
        session.notes({"events": [{"f": max(f, 0), "on": on, "p": p, "v": v} for f, on, p, v in events]})
        if now % 50 == 0:
            session.change("set", Controls(**vars(CONTROLS) | {"temperature": 1 + now % 3 / 10}))
        session.check_tick({"now_frame": now})
        session.tick(now, now, time.monotonic())


def sizes(session):
    """Lengths of what the session and its engine hold, without history."""
    found = vars(session) | vars(session.engine)
    return {name: len(value) for name, value in found.items() if isinstance(value, list | dict) and name not in HISTORY}


def held(session):
    """(device arrays, their bytes, compiled programs, objects of Python) with history and recording left out."""
    session.recording.entries.clear()
    gc.collect()
    arrays = jax.live_arrays()
    programs = sum(function._cache_size() for function in session.engine.model.functions.values())
    return (len(arrays), sum(array.nbytes for array in arrays), programs), len(gc.get_objects())


def test_nothing_but_history_grows(make_model):
    model = make_model()
    model.warm_up()
    session = LiveSession("long", model, CONTROLS)
    jam(session, 0, SOON)
    early, objects = held(session)
    jam(session, SOON, LATER)
    assert len(session.recording.entries) == LATER - SOON + 50  # ticks and changes
    late, objects_later = held(session)
    assert late == early
    assert objects_later - objects < 100
    bounds = {"_events": 4, "_pending": 0, "_changes": 0, "_milliseconds": 256}
    assert all(size <= bounds[name] for name, size in sizes(session).items()), sizes(session)
    assert len(session.engine.heard) == LATER - 1 > 100 * FRAMES
    assert len(session.engine.decided) <= LATER + CONTROLS.lookahead_frames


def test_a_reset_and_another_model_give_back_what_was_held(make_model):
    model = make_model()
    make_model(1).warm_up()
    session = LiveSession("again", model, CONTROLS)
    jam(session, 0, 60)
    (arrays, size, _), _ = held(session)
    for number in range(6):
        session.reset()
        jam(session, 0, 60)
        session.change("model", make_model(number % 2))
        jam(session, 60, 70)
    (again, size_again, _), _ = held(session)
    assert (again, size_again) == (arrays, size)


def test_a_recording_that_is_kept_holds_no_memory_of_the_network(make_model):
    make_model().warm_up()
    gc.collect()
    before = len(jax.live_arrays())
    session = LiveSession("gone", make_model(), CONTROLS)
    jam(session, 0, 40)
    assert len(jax.live_arrays()) > before
    recording = session.recording
    del session
    gc.collect()
    assert len(jax.live_arrays()) == before
    assert len(recording.to_dict()["chords"]) == 39 and recording.to_midi()[:4] == b"MThd"
