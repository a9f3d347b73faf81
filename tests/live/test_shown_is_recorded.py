"""What a player hears is what is recorded and what the policy takes for its own, whatever is settled ahead."""

import dataclasses
import time

import numpy as np
import pytest

from gapt_jax.live.engine import Controls
from gapt_jax.live.session import LiveSession
from tests.export.bundles import VOCABULARY


def heard_and_recorded(model, controls, ticks):
    """Symbols by frame: as the page sounds them, whose plans come within the frame that they were asked in, and as
    they are recorded."""
    session, rng, shown = LiveSession("one", model, controls), np.random.default_rng(0), {}
    for before, now in zip([-1, *ticks], ticks, strict=False):
        if now and rng.random() < 0.7:
            session.notes({"events": [{"f": max(before, 0), "on": True, "p": int(rng.integers(60, 72))}]})
        plan = session.tick(now, None, time.monotonic())[0]
        first_future = now + 1 if now else 0  # the first tick goes out during the count-in
        shown |= {chord["f"]: chord["sym"] for chord in plan["chords"] if chord["f"] >= first_future}
    recorded = session.recording.to_dict()["symbols"]
    return [shown.get(frame) for frame in range(len(recorded))], recorded


@pytest.mark.parametrize("commit", [0, 1, 2, 4])
def test_settled_or_not(commit, make_model):
    controls = Controls(lookahead_frames=8, commit_frames=commit, intro_frames=0)
    heard, recorded = heard_and_recorded(make_model(), controls, range(60))
    assert heard == recorded and len(set(recorded)) > 5


def test_where_ticks_are_missed_the_last_plan_holds(make_model):
    controls = Controls(lookahead_frames=8, commit_frames=2, intro_frames=0)
    heard, recorded = heard_and_recorded(make_model(), controls, [0, 1, 2, 8, 9, 12, 13, 20, 21])
    assert heard == recorded


def test_an_intro_is_recorded_and_so_is_what_follows_it(make_model):
    def intro(notes, seed):
        return [chord] * len(notes)

    controls = Controls(lookahead_frames=8, commit_frames=3, intro_frames=8)
    chord = 3 + VOCABULARY.chord_onset
    model = dataclasses.replace(make_model(), intro=intro)
    heard, recorded = heard_and_recorded(model, controls, range(40))
    assert len(recorded) == 39
    assert recorded[0] == VOCABULARY.names[3] and recorded[8:] == heard[8:]
