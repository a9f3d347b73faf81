"""Play at MIDI ports: the grid, what is sent and when, and the loop in real time, with ports that are none."""

import time
from collections import deque

import mido
import numpy as np
import pytest
from mido import Message

from gapt_jax.errors import UserError, install
from gapt_jax.live import ports
from gapt_jax.live.duet import CHANNEL, Duet, Melody, perform
from gapt_jax.live.engine import Controls, Engine
from gapt_jax.live.notes import Event, chord_entries
from gapt_jax.live.songs import song_model
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET, SILENCE
from tests.export.bundles import VOCABULARY

HOLD, STRIKE = VOCABULARY.chord_onset - VOCABULARY.num_chords, VOCABULARY.chord_onset
CONTROLS = Controls(bpm=240, intro_frames=0, lookahead_frames=8, commit_frames=4)
FRAME = 1 / 16  # seconds


def band(chords):
    """A model that plays these chords whatever it hears."""
    played = np.array(chords, np.int32)
    return song_model("song", played, np.full(len(played), SILENCE, np.int32), VOCABULARY)


def pairs(messages):
    """(on, pitch) of what was sent."""
    return [(message.type == "note_on", message.note) for message in messages if message.type.startswith("note")]


def on(note, velocity=80):
    return Message("note_on", note=note, velocity=velocity)


def off(note):
    return Message("note_off", note=note)


class Hands:
    """A player who does what was written at its second, and a clock that only `sleep` moves: Ctrl-C at the end."""

    def __init__(self, score, end):
        self.score, self.end, self.now, self.sent = deque(score), end, 100.0, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        if self.now - 100 > self.end:
            raise KeyboardInterrupt

    def incoming(self):
        found = []
        while self.score and 100 + self.score[0][0] <= self.now:
            at, message = self.score.popleft()
            found.append((100 + at, message))
        return found

    def send(self, message):
        self.sent.append((round((self.now - 100) / FRAME, 2), message))


def test_notes_snap_to_the_nearest_frame_and_last_one_at_least():
    melody = Melody()
    melody.press(60, 90, 0.4)
    melody.release(60, 0.45)
    melody.press(62, 80, 1.6)
    assert melody.take(2) == [Event(0, True, 60, 90), Event(1, False, 60, 90)]
    melody.release(62, 3.5)
    assert melody.take(4) == [Event(2, True, 62, 80)] and melody.take(5) == [Event(4, False, 62, 80)]
    assert melody.take(99) == []


def test_the_newest_onset_wins():
    melody = Melody()
    melody.press(60, 90, 0)
    melody.press(64, 90, 0.3)  # in the same frame
    melody.press(67, 90, 2)
    melody.release(64, 2.6)  # which 67 has ended
    melody.release(67, 4)
    expected = [(0, True, 64), (2, False, 64), (2, True, 67), (4, False, 67)]
    assert [event[:3] for event in melody.take(9)] == expected


def test_what_comes_after_its_frame_moves_to_the_frame_that_lasts():
    melody = Melody()
    melody.press(60, 90, 0)
    melody.take(5)
    melody.release(60, 3)
    melody.press(62, 90, 3)
    assert [event[:3] for event in melody.take(6)] == [(5, False, 60), (5, True, 62)]


def test_chords_go_out_on_the_time_of_their_frame():
    """The clock begins with the first note; a HOLD sends nothing, a rest ends the chord, Ctrl-C ends all."""
    chords = [*[STRIKE, HOLD], *[STRIKE] * 2, *[SILENCE] * 2, STRIKE + 1, *[HOLD + 1] * 99]
    hands = Hands([(0.5, on(60)), (0.5 + 3.2 * FRAME, off(60)), (0.5 + 6 * FRAME, on(67))], 0.5 + 9.5 * FRAME)
    duet = Duet(Engine(band(chords), CONTROLS))
    milliseconds = perform(duet, hands.incoming, hands.send, clock=hands.clock, sleep=hands.sleep)
    assert len(milliseconds) == 10 and duet.late == 0
    times = [at - 8 for at, message in hands.sent if message.type == "note_on"]
    assert sorted({round(at) for at in times}) == [0, 2, 3, 6] and all(0 <= at % 1 < 0.05 for at in times)
    assert all(message.channel == CHANNEL for _, message in hands.sent)
    sounding = set()
    for is_on, note in pairs(message for _, message in hands.sent):
        assert is_on is (note not in sounding)  # nothing ends that does not sound, nothing is struck twice
        sounding ^= {note}
    assert not sounding and {round(at) - 8 for at, message in hands.sent if message.type == "note_off"} == {2, 3, 4, 10}
    assert hands.sent[-1][1].control == 123
    heard = [NOTE_ONSET + 60, *[NOTE_HOLD + 60] * 2, *[SILENCE] * 3, NOTE_ONSET + 67, *[NOTE_HOLD + 67] * 2]
    assert duet.engine.heard == heard and duet.velocities == {0: 80, 6: 80} and duet.engine.late == 0


def test_the_intro_is_silent_and_what_it_leaves_is_struck():
    hands = Hands([(0, on(60))], 8 * FRAME)
    controls = Controls(bpm=240, intro_frames=4, lookahead_frames=8, commit_frames=4)
    duet = Duet(Engine(band([STRIKE, *[HOLD] * 99]), controls))
    perform(duet, hands.incoming, hands.send, clock=hands.clock, sleep=hands.sleep)
    assert {round(at) for at, message in hands.sent if message.type == "note_on"} == {4}


def test_after_a_pause_of_the_machine_it_plays_the_frame_that_lasts():
    hands = Hands([(0, on(60))], 40 * FRAME)
    duet = Duet(Engine(band([STRIKE, *[HOLD] * 5, STRIKE + 1, *[HOLD + 1] * 99]), CONTROLS))
    plan, frames = duet.plan, []

    def slow(now):
        frames.append(now)
        hands.now += 20 * FRAME * (now == 5)
        plan(now)

    duet.plan = slow
    perform(duet, hands.incoming, hands.send, clock=hands.clock, sleep=hands.sleep)
    assert frames[:8] == [0, 1, 2, 3, 4, 5, 25, 26] and duet.late == 1  # the plan of frame 5 ends before 25
    first = {message.note for at, message in hands.sent if message.type == "note_on" and at < 1}
    second = {message.note for at, message in hands.sent if message.type == "note_on" and at > 1}
    assert first and second and first != second and duet.engine.now == len(duet.engine.heard)


def test_an_error_ends_every_note_too():
    hands = Hands([(0, on(60))], 99)
    duet = Duet(Engine(band([STRIKE] * 99), CONTROLS))

    def fails(seconds):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        perform(duet, hands.incoming, hands.send, clock=hands.clock, sleep=fails)
    sent = [message for _, message in hands.sent]
    assert {note for is_on, note in pairs(sent) if is_on} == {note for is_on, note in pairs(sent) if not is_on} != set()


def test_two_seconds_in_real_time():
    """What is struck is the chord of the frame that lasts, for the most part: other programs may hold this one up."""
    duet = Duet(Engine(band([STRIKE, STRIKE + 1] * 50), CONTROLS))
    duet.plan(0)  # compiles what there is before the clock runs
    start = time.monotonic()
    came, sent = deque([(start, on(60))]), []

    def incoming():
        return [came.popleft() for _ in range(len(came))]

    def send(message):
        if message.type == "note_on":
            sent.append(((time.monotonic() - start) / FRAME, message.note))

    def sleep(seconds):
        time.sleep(seconds)
        if time.monotonic() - start > 2:
            raise KeyboardInterrupt

    milliseconds = perform(duet, incoming, send, sleep=sleep)
    assert 2 <= time.monotonic() - start < 20 and len(milliseconds) > 5
    chords = [set(chord_entries(0, [token], SILENCE, VOCABULARY)[0]["pitches"]) for token in (STRIKE, STRIKE + 1)]
    assert len(sent) > 10 and np.mean([note in chords[int(at) % 2] for at, note in sent]) > 0.8
    assert duet.engine.heard[0] == NOTE_ONSET + 60 and set(duet.engine.heard[1:]) == {NOTE_HOLD + 60}


def test_a_port_is_chosen_by_its_name_or_a_part_that_one_has_alone():
    names = ["Keys 20:0", "Keys 24:0", "Pads"]
    assert ports.chosen("Keys 24:0", names, "input") == "Keys 24:0" and ports.chosen("pad", names, "input") == "Pads"
    assert ports.chosen("Pads", ["Pads", "Pads 2"], "input") == "Pads"
    for name, words in (
        ("keys", r"more than one MIDI input is called 'keys' \(there is: 'Keys 20:0', 'Keys 24:0', 'Pads'\): name one"),
        ("x", r"there is no MIDI input 'x' \(there is: 'Keys 20:0', .*\): name one of these, or 'virtual'"),
    ):
        with pytest.raises(UserError, match=words):
            ports.chosen(name, names, "input")
    with pytest.raises(UserError, match=r"no MIDI output 'x' \(there is: none\)"):
        ports.chosen("x", [], "output")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'rtmidi'"), f"MIDI ports need python-rtmidi: {install('midi')}"),
        (NotImplementedError(), "no virtual MIDI ports: name an output in the place of 'virtual'"),
        (OSError("error creating ALSA sequencer client object."), "(error creating ALSA sequencer client object):"),
    ],
)
def test_ports_that_cannot_be_had_are_one_sentence(error, words, monkeypatch):
    def refuses(*_, **__):
        raise error

    monkeypatch.setattr(mido, "open_output", refuses)
    with pytest.raises(UserError) as said, ports.opened(ports.VIRTUAL, ports.VIRTUAL):
        pass
    assert words in str(said.value) and "\n" not in str(said.value)


def test_what_comes_in_has_the_time_at_which_it_came(monkeypatch):
    played = {}

    class Port:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def send(self, message):
            pass

    monkeypatch.setattr(mido, "open_output", lambda name, virtual: Port())
    monkeypatch.setattr(mido, "open_input", lambda name, virtual, callback: played.update(now=callback) or Port())
    with ports.opened(ports.VIRTUAL, ports.VIRTUAL) as (incoming, _):
        before = time.monotonic()
        played["now"](on(60))
        after = time.monotonic()
        ((at, message),) = incoming()
        assert before <= at <= after and message.note == 60 and incoming() == []
