"""Tempos, metres and strengths of a recording, and the MIDI file that says them."""

import dataclasses
import io

import mido
import numpy as np
import pytest

from gapt_jax.live.engine import Controls
from gapt_jax.live.notes import Event
from gapt_jax.live.recording import Recording
from gapt_jax.live.session import LiveSession
from gapt_jax.live.timing import timing_of
from gapt_jax.vocabulary import SILENCE

FIRST = Controls(bpm=120, beats_per_bar=4, intro_frames=8, lookahead_frames=8, commit_frames=3)


def tick(now, *events, kind="tick"):
    return {"type": kind, "now_frame": now, "events": [list(event) for event in events]}


def changed(**controls):
    return {"type": "set", "controls": dataclasses.asdict(dataclasses.replace(FIRST, **controls))}


def test_a_session_without_changes_has_one_tempo_and_one_metre():
    timing = timing_of(FIRST, [tick(0), tick(1), tick(2)])
    assert timing.tempos == [(0, 0.5)] and timing.meters == [(0, (4, 4))] and timing.silent == 8


def test_a_tempo_holds_from_the_tick_that_took_it_in():
    entries = [tick(0), tick(10), changed(bpm=60), tick(11), tick(12), changed(bpm=240), tick(13)]
    assert timing_of(FIRST, entries).tempos == [(0, 0.5), (2.75, 1), (3.25, 0.25)]


def test_what_is_changed_before_the_first_tick_holds_from_the_begin():
    timing = timing_of(FIRST, [changed(bpm=60, beats_per_bar=3, intro_frames=2), tick(0), tick(1)])
    assert timing.tempos == [(0, 1)] and timing.meters == [(0, (3, 4))] and timing.silent == 2


@pytest.mark.parametrize(
    ("now", "expected"),
    [(1, 4), (16, 4), (17, 8), (37, 12)],  # the tick, and the beat of the bar line at or after it
)
def test_a_metre_holds_from_the_next_bar_line(now, expected):
    timing = timing_of(FIRST, [tick(0), changed(beats_per_bar=3), tick(now)])
    assert timing.meters == [(0, (4, 4)), (expected, (3, 4))]


def test_of_metres_within_a_bar_the_last_one_counts():
    entries = [tick(0), changed(beats_per_bar=3), tick(2), changed(beats_per_bar=5), tick(3), tick(90)]
    entries += [changed(beats_per_bar=2), tick(100)]  # bars of 5 beats begin at 4, 9, 14, 19, 24, 29
    assert timing_of(FIRST, entries).meters == [(0, (4, 4)), (4, (5, 4)), (29, (2, 4))]


def test_the_newest_key_counts_and_late_ones_do_not():
    entries = [
        tick(0),
        tick(4, Event(2, True, 60, 30), Event(2, True, 64, 50), Event(3, False, 64, 9)),
        tick(5, Event(2, True, 65, 99), Event(4, True, 67, 0), kind="commit"),
    ]
    assert timing_of(FIRST, entries).velocities == {2: 50, 4: 1}


@pytest.fixture(scope="module")
def recording(make_model) -> Recording:
    """Two bars of 4 at 120 BPM, then 3 beats at 90; notes from frame 2 on, in the silent beats already."""
    session = LiveSession("one", make_model(), FIRST)
    for now in range(49):
        if now == 20:
            session.change("set", dataclasses.replace(session.controls, beats_per_bar=3, bpm=90))
        if now % 4 == 3:
            event = {"f": now - 1, "on": True, "p": 60 + now % 5, "v": 40 + now}
            session.notes({"events": [event]})
        session.tick(now, now, 0.0)
    return session.recording


def test_the_file_says_metre_tempo_and_strengths(recording):
    content = mido.MidiFile(file=io.BytesIO(recording.to_midi()))
    at, found = 0, []
    for message in content.tracks[0]:
        at += message.time
        if message.type in ("set_tempo", "time_signature"):
            value = message.tempo if message.type == "set_tempo" else (message.numerator, message.denominator)
            found.append((at / content.ticks_per_beat, value))
    assert found == [(0, 500_000), (0, (4, 4)), (5, 666_667), (8, (3, 4))]
    struck = [message.velocity for message in content.tracks[0] if message.type == "note_on"]
    assert struck == [40 + now for now in range(3, 49, 4)]
    assert recording.seconds == pytest.approx(20 * 0.125 + 28 * 15 / 90, abs=0.2)


def test_the_file_says_what_was_heard_in_the_intro(recording):
    tracks = {track.name: track for track in mido.MidiFile(file=io.BytesIO(recording.to_midi())).tracks}

    def onsets(name):
        at, found = 0, []
        for message in tracks[name]:
            at += message.time
            if message.type == "note_on":
                found.append(round(4 * at / 480))
        return found

    assert onsets("melody")[:2] == [2, 6]  # the player is heard
    chords = np.array(recording.to_dict()["chords"])
    sounding = np.flatnonzero(chords[FIRST.intro_frames :] != SILENCE)
    assert (chords[: FIRST.intro_frames] != SILENCE).any()  # the band has planned, and nobody heard it
    assert min(onsets("chords")) == FIRST.intro_frames + sounding[0]
