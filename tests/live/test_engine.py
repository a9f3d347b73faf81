"""The engine: what is decided stays, the cache changes nothing, any length, the same events give the same chords."""

import dataclasses

import jax
import numpy as np
import pytest

from gapt_jax import models
from gapt_jax.live.engine import Controls, Engine, _uniforms
from gapt_jax.live.intro import LONGEST, make_intro
from gapt_jax.live.model import LEAST_PLANNED, LiveModel
from gapt_jax.live.notes import Event, chord_entries, note_entries
from gapt_jax.live.play import events_of, play
from gapt_jax.tasks.accompaniment import rules
from gapt_jax.vocabulary import BOS, EOS, NOTE_HOLD, NOTE_ONSET, SILENCE
from tests.export.bundles import FRAMES, VOCABULARY, tiny
from tests.live.scratch import planned_from_scratch

CONTROLS = Controls(lookahead_frames=8, commit_frames=3, intro_frames=0, seed=7)
LONG = 5 * FRAMES


def random_events(rng, now):
    """What a player might do in frame `now`."""
    found = []
    while rng.random() < 0.5:
        found.append(Event(now, bool(rng.random() < 0.7), int(rng.integers(60, 72))))
    return found


def session(engine, ticks, seed=0):
    """Plans of a random session; the player's events come after each tick."""
    rng = np.random.default_rng(seed)
    plans = []
    for now in ticks:
        plans.append(engine.tick(now))
        engine.hear(random_events(rng, now))
    return plans


def test_what_is_decided_never_changes(make_model):
    plans = session(Engine(make_model(), CONTROLS), range(LONG))
    decided = {}
    for now, plan in enumerate(plans):
        assert plan.base == now and plan.commit_until == now + 3 and len(plan.actions) == len(plan.context) + 1 == 8
        for frame, chord in enumerate(plan.actions, start=now):
            if frame in decided:
                assert decided[frame] == chord
            if frame < plan.commit_until:
                decided[frame] = chord
    assert len({plan.actions for plan in plans}) > 10


@pytest.mark.parametrize(("seed", "per_tick"), [(0, 32), (1, 32), (2, 4), (3, 2)])
def test_planning_from_the_cache_is_planning_from_scratch(seed, per_tick, make_model):
    controls = dataclasses.replace(CONTROLS, plan_per_tick=per_tick)
    engine, rng = Engine(make_model(), controls), np.random.default_rng(seed)
    now = 0
    while now < LONG:  # also where ticks are missed
        assert engine.tick(now) == planned_from_scratch(engine)
        assert engine.now - engine._older.base <= make_model().window
        assert engine.now < make_model().window or engine.now - engine._older.base >= make_model().window // 2
        engine.hear(random_events(rng, now))
        now += int(rng.choice([1, 1, 1, 2, 5]))


@pytest.fixture
def planned(monkeypatch):
    """How many frames each call has planned."""
    counts, plan = [], LiveModel.planned

    def counted(self, logits, chord, note, given, *rest):
        counts.append(len(given))
        return plan(self, logits, chord, note, given, *rest)

    monkeypatch.setattr(LiveModel, "planned", counted)
    return counts


def test_who_plays_what_was_imagined_makes_the_plan_one_frame_longer(make_model, planned):
    engine = Engine(make_model(), CONTROLS)
    plan = engine.tick(0)
    for now in range(1, 3 * FRAMES):
        before, note = plan, plan.context[0]
        sounding = engine._ear.sounding
        if note >= NOTE_ONSET:
            engine.hear([Event(now - 1, True, note - NOTE_ONSET)])
        elif note == SILENCE and sounding is not None:
            engine.hear([Event(now - 1, False, sounding)])
        plan = engine.tick(now)
        assert engine.heard[-1] == note and plan == planned_from_scratch(engine)
        assert plan.actions[:-1] == before.actions[1:] or planned[-2] == 8  # but where the younger cache takes over
    assert planned.count(2) > 2 * FRAMES  # the last frame, for its note, and one more


def test_a_plan_can_be_made_in_three_ticks(make_model, planned):
    controls = dataclasses.replace(CONTROLS, plan_per_tick=4, commit_frames=2)
    engine = Engine(make_model(), controls)
    plans = session(engine, range(LONG))
    assert max(planned) == 5 and {len(plan.actions) for plan in plans[2:]} == {7, 8}
    whole = session(Engine(make_model(), dataclasses.replace(controls, plan_per_tick=32)), range(LONG))
    assert [plan.commit_until for plan in plans] == [plan.commit_until for plan in whole]


def test_the_least_that_is_planned_keeps_play_going(make_model):
    engine = Engine(make_model(), dataclasses.replace(CONTROLS, plan_per_tick=LEAST_PLANNED))
    plans = session(engine, range(LONG))
    assert all(plan.commit_until > now + 1 for now, plan in enumerate(plans))  # the next frame is settled in time


def test_catching_up_changes_nothing_but_time(make_model):
    one, two = Engine(make_model(), CONTROLS), Engine(make_model(), CONTROLS)
    rng = np.random.default_rng(0)
    for now in range(LONG):
        assert one.tick(now) == two.tick(now)
        if rng.random() < 0.5:
            one.catch_up()
        events = random_events(rng, now)
        one.hear(events)
        two.hear(events)


def test_the_same_events_give_the_same_chords(make_model):
    one, two, other = (Engine(make_model(), c) for c in (CONTROLS, CONTROLS, dataclasses.replace(CONTROLS, seed=8)))
    assert session(one, range(60)) == session(two, range(60)) != session(other, range(60))
    two.reset()
    assert session(two, range(60)) == session(Engine(make_model(), CONTROLS), range(60))


def test_frames_that_were_never_settled_are_as_last_planned_and_then_held(make_model):
    engine = Engine(make_model(), dataclasses.replace(CONTROLS, commit_frames=2))
    plan = engine.tick(0)
    engine.tick(12)
    assert engine.decided[:8] == list(plan.actions)
    onset = engine.decided[7]
    held = onset - VOCABULARY.num_chords if onset >= VOCABULARY.chord_onset else onset
    assert engine.decided[8:12] == [held] * 4


def test_notes_of_events(make_model):
    engine = Engine(make_model(), CONTROLS)
    on, off = True, False
    events = [(0, on, 60), (2, off, 60), (3, on, 62), (3, off, 62), (5, on, 64), (5, on, 65), (6, off, 64), (7, on, 67)]
    engine.hear([Event(*event) for event in events])
    engine.tick(9)
    expected = [NOTE_ONSET + 60, NOTE_HOLD + 60, SILENCE, NOTE_ONSET + 62, SILENCE, NOTE_ONSET + 65, NOTE_HOLD + 65]
    assert engine.heard == [*expected, NOTE_ONSET + 67, NOTE_HOLD + 67]
    engine.hear([Event(8, True, 60)])
    assert engine.late == 1


def test_another_model_goes_on_where_the_first_was(make_model):
    engine = Engine(make_model(0), CONTROLS)
    session(engine, range(40))
    decided = list(engine.decided)
    engine.use(make_model(1))
    plan = engine.tick(40)
    assert engine.decided[: len(decided)] == decided
    assert plan == planned_from_scratch(engine)


def test_the_anchor_plays_to_the_silent_beats(make_model):
    heard, chord = [], VOCABULARY.chord_onset + 1

    def intro(notes, seed):
        heard.append(list(notes))
        return [chord] * len(notes)

    controls = dataclasses.replace(CONTROLS, intro_frames=10)
    engine = Engine(dataclasses.replace(make_model(), intro=intro), controls)
    session(engine, range(LONG))
    assert heard == [engine.heard[:6]] and engine.decided[:6] == [chord] * 6
    alone = Engine(make_model(), controls)
    session(alone, range(LONG))
    assert alone.decided[6:] != engine.decided[6:]


def test_an_intro_is_sampled_from_the_anchor():
    networks = models.build(tiny().models, VOCABULARY.size)
    params = networks.anchor.init(jax.random.key(3))
    notes = [NOTE_ONSET + 60, NOTE_HOLD + 60, SILENCE, NOTE_ONSET + 64]
    found = make_intro(networks.anchor, params, VOCABULARY.tables)(notes, 5)
    uniforms, before = np.random.default_rng((5, 0, 1)).random(LONGEST, np.float32), SILENCE
    for frame, token in enumerate(found):
        heard = np.array([[BOS, *found[:frame]]])
        logits = np.asarray(networks.anchor(params, np.array([[BOS, *notes, EOS]]), heard))[0, -1]
        allowed = np.asarray(rules.valid_tokens(np.array([before]), VOCABULARY.tables))[0]
        share = np.where(allowed, np.exp(logits - logits.max()), 0)
        cumulative = np.cumsum(share / share.sum())
        assert cumulative[token - 1] - 1e-5 <= uniforms[frame] <= cumulative[token] + 1e-5
        before = token


def test_controls_change_while_playing(make_model):
    engine = Engine(make_model(), CONTROLS)
    session(engine, range(5))
    engine.controls = dataclasses.replace(CONTROLS, lookahead_frames=2, commit_frames=0)
    plan = engine.tick(5)
    assert plan.commit_until == 7 and len(plan.actions) == 2  # what was decided before is still in the plan
    for now in range(6, 12):
        plan = engine.tick(now)
    assert plan.base == 11 and plan.commit_until == 12  # the frame that has begun


def test_temperature_0_is_greedy_and_ignores_the_seed(make_model):
    greedy = dataclasses.replace(CONTROLS, temperature=0)
    one = session(Engine(make_model(), greedy), range(20))
    assert one == session(Engine(make_model(), dataclasses.replace(greedy, seed=99)), range(20))


def test_masked_play_is_valid(make_model):
    engine = Engine(make_model(), dataclasses.replace(CONTROLS, temperature=2))
    session(engine, range(80))
    tables, before = VOCABULARY.tables, SILENCE
    for token in engine.decided:
        assert tables.is_chord[token] or token == SILENCE
        if tables.is_hold[token]:
            assert before == SILENCE or tables.event[before] == tables.event[token]
        before = token


def test_random_numbers_belong_to_frames():
    np.testing.assert_array_equal(_uniforms(3, 10, 8)[2:], _uniforms(3, 12, 6))
    assert not np.array_equal(_uniforms(3, 10, 8), _uniforms(4, 10, 8))


def test_entries_for_the_page():
    onset, hold = VOCABULARY.chord_onset + 13, 260 + 13  # C#(0,1) in the synthetic vocabulary
    entries = chord_entries(4, [SILENCE, onset, hold, SILENCE, hold, hold - 1], SILENCE, VOCABULARY)
    assert [entry["on"] for entry in entries] == [False, True, False, False, True, True]
    assert [entry["f"] for entry in entries] == list(range(4, 10))
    assert entries[1]["sym"] == VOCABULARY.names[13] and entries[1]["pitches"] == [37, 49, 50]
    assert chord_entries(5, [hold], onset, VOCABULARY)[0]["on"] is False
    assert note_entries(2, [NOTE_ONSET + 60, NOTE_HOLD + 60, SILENCE]) == [
        {"f": 2, "p": 60, "on": True},
        {"f": 3, "p": 60, "on": False},
    ]


def test_playing_a_file_is_playing_its_notes(make_model):
    tokens = [NOTE_ONSET + 60, NOTE_HOLD + 60, NOTE_ONSET + 60, SILENCE, NOTE_HOLD + 62, NOTE_ONSET + 64, SILENCE]
    assert [len(found) for found in events_of(tokens)] == [1, 0, 1, 1, 1, 1, 1]
    engine, times = play(make_model(), CONTROLS, tokens, realtime=False)
    assert engine.heard == [*tokens[:4], NOTE_ONSET + 62, *tokens[5:]]
    assert times["budget_ms"] == 125 and times["p50_ms"] <= times["p95_ms"] <= times["p99_ms"]
