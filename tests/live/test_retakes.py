"""The same melody with another model, and the form of a recording that the page shows."""

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
from starlette.testclient import TestClient

from gapt_jax.live import limits
from gapt_jax.live import studio as studio_module
from gapt_jax.live.engine import Controls
from gapt_jax.live.notes import chord_runs, note_runs
from gapt_jax.live.recording import replay
from gapt_jax.live.server import make_app
from gapt_jax.live.session import Fault, LiveSession
from gapt_jax.live.studio import Studio
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET, SILENCE
from tests.live.test_server import Player, connected

INTRO, FRAMES = 6, 40


@pytest.fixture(scope="module")
def client(make_model):
    models = [make_model(0), make_model(1)]
    for model in models:
        model.warm_up()
    with TestClient(make_app(models)) as found:
        yield found


@pytest.fixture(scope="module")
def session(client):
    """A recording with a late note, a tempo, a metre, a temperature and a seed that change, and missed frames."""
    with connected(client) as socket:
        player = Player(socket).start(intro_frames=INTRO, bpm=120).jam(20, seed=5)
        player.send(type="set", bpm=60, beats_per_bar=3, temperature=0.7, seed=9)
        player.tick(29, [(3, True, 50), (22, True, 64), (27, False, 64)])
        player.jam(FRAMES - 29, seed=6, first=30)
        player.send(type="stop")
        player.send(type="ping")
        player.take("pong")
    return player.started["session"]


def record(client, identity):
    return client.get(f"/api/sessions/{identity}.json").json()


def retaken(client, identity, model):
    answer = client.post(f"/api/sessions/{identity}/retake", params={"model": model})
    assert answer.status_code == 200, answer.text
    return answer.json()["session"]


def test_the_same_model_plays_the_recorded_chords_bit_for_bit(client, session):
    before, after = record(client, session), record(client, retaken(client, session, "random0"))
    assert before.pop("session") != after.pop("session")
    assert before == after and len(set(after["chords"])) > 3


def test_another_model_plays_its_own_chords_to_the_same_melody(client, session, make_model):
    before, identity = record(client, session), retaken(client, session, "random1")
    after = record(client, identity)
    assert after["melody"] == before["melody"] and after["chords"] != before["chords"]
    for same in ("controls", "entries", "truncated"):
        assert after[same] == before[same]
    assert after["model"] == "random1"
    again = replay(after, {after["weights_sha256"]: make_model(1)})
    assert again.decided[: len(after["chords"])] == after["chords"]
    assert record(client, retaken(client, identity, "random0"))["chords"] == before["chords"]  # there and back
    assert client.get(f"/api/sessions/{identity}.mid").status_code == 200


def test_changes_of_the_model_are_left_out(make_model):
    controls = Controls(lookahead_frames=8, commit_frames=3, intro_frames=0, seed=4)
    switched, plain = (LiveSession("one", make_model(0), controls) for _ in range(2))
    for now in range(24):
        if now == 10:
            switched.change("model", make_model(1))
        for each in (switched, plain):
            each.tick(now, None, 0.0)
    *_, made = switched.recording.retaken("two", make_model(0))
    assert made.to_dict()["chords"] == plain.recording.to_dict()["chords"] != switched.recording.to_dict()["chords"]


def test_the_take_says_what_is_shown_and_heard(client, session):
    take, whole = client.get(f"/api/sessions/{session}.take").json(), record(client, session)
    assert (take["session"], take["model"], take["frames"]) == (session, "random0", FRAMES)
    assert take["intro_frames"] == INTRO
    assert take["tempos"] == [{"f": 0, "bpm": 120}, {"f": 23, "bpm": 60}]  # frames that were missed are slices of four
    assert take["meters"] == [{"f": 0, "beats": 4}, {"f": 32, "beats": 3}]
    shown = [""] * FRAMES
    for chord in take["chords"]:
        shown[chord["start"] : chord["end"]] = [chord["sym"]] * (chord["end"] - chord["start"])
        assert chord["pitches"] == sorted(chord["pitches"]) and chord["start"] >= INTRO
    assert shown == [""] * INTRO + whole["symbols"][INTRO:]
    assert {"p": 64, "on": 22, "off": 27, "v": 90} in take["notes"]
    tokens = [SILENCE] * FRAMES
    for note in take["notes"]:
        tokens[note["on"]] = NOTE_ONSET + note["p"]
        tokens[note["on"] + 1 : note["off"]] = [NOTE_HOLD + note["p"]] * (note["off"] - note["on"] - 1)
    assert tokens == whole["melody"]


def test_runs_begin_at_strikes_and_end_at_silence():
    letters = [("C", True), ("C", False), ("C", True), ("", False), ("F", True), ("G", True), ("G", False)]
    entries = [{"f": f, "sym": sym, "pitches": [60] * bool(sym), "on": on} for f, (sym, on) in enumerate(letters)]
    assert [run[:3] for run in chord_runs(entries)] == [(0, 2, "C"), (2, 3, "C"), (4, 5, "F"), (5, 7, "G")]
    tokens = [NOTE_HOLD + 60, NOTE_HOLD + 60, NOTE_ONSET + 60, NOTE_HOLD + 62, SILENCE, NOTE_HOLD + 62]
    assert note_runs(tokens) == [(0, 2, 60), (2, 3, 60), (3, 4, 62), (5, 6, 62)]


@pytest.mark.parametrize(
    ("path", "status"), [("unknown/retake?model=random0", 404), ("{}/retake?model=other", 404), ("{}/retake", 404)]
)
def test_what_cannot_be_retaken_is_refused_in_a_sentence(client, session, path, status):
    answer = client.post(f"/api/sessions/{path.format(session)}")
    assert answer.status_code == status and answer.json()["error"]
    assert client.get(f"/api/sessions/{session}/retake?model=random0").status_code in (404, 405)


def test_long_takes_are_refused(client, session, monkeypatch):
    monkeypatch.setattr(limits, "RETAKE_FRAMES", FRAMES - 1)
    assert client.post(f"/api/sessions/{session}/retake?model=random1").status_code == 413
    monkeypatch.setattr(limits, "RETAKE_FRAMES", FRAMES)
    retaken(client, session, "random1")


def recorded_in(studio, model, identity="one"):
    live = LiveSession(identity, model, Controls(lookahead_frames=8, commit_frames=3, intro_frames=0))
    for now in range(12):
        live.tick(now, None, 0.0)
    studio.keep(live)


def test_too_many_at_once_come_again_and_who_goes_away_stops_the_work(make_model):
    async def scene():
        studio, steps, gate = Studio([make_model()], 4, None), 0, asyncio.Event()
        recorded_in(studio, make_model())

        async def held():
            nonlocal steps
            steps += 1
            await gate.wait()
            return steps < 5

        tasks = [asyncio.create_task(studio.retake("one", "random0", held)) for _ in range(limits.RETAKES)]
        await asyncio.sleep(0)
        with pytest.raises(Fault) as refused:
            await studio.retake("one", "random0", held)
        gate.set()
        assert await asyncio.gather(*tasks) == [None] * limits.RETAKES
        assert list(studio.recordings) == ["one"]
        assert await studio.retake("one", "random0", lambda: asyncio.sleep(0, True)) in studio.recordings
        await studio.close()
        return refused.value.code, studio.counts.dropped.labels("retakes")._value.get()

    assert asyncio.run(scene()) == ("busy", 1)


def test_retakes_give_way_to_each_other_before_any_take_does(make_model, monkeypatch):
    monkeypatch.setattr(studio_module, "RECORDINGS", 3)

    async def scene():
        studio = Studio([make_model()], 4, None)
        recorded_in(studio, make_model(), "two")
        recorded_in(studio, make_model())
        made = [await studio.retake("one", "random0", lambda: asyncio.sleep(0, True)) for _ in range(3)]
        assert list(studio.recordings) == ["two", "one", made[-1]]
        recorded_in(studio, make_model(), "three")
        assert list(studio.recordings) == ["two", "one", "three"]
        last = await studio.retake("one", "random0", lambda: asyncio.sleep(0, True))
        assert list(studio.recordings) == ["one", "three", last]
        await studio.close()

    asyncio.run(scene())


def test_a_player_ticks_while_a_take_is_played_again(make_model):
    async def scene():
        studio, order = Studio([make_model()], 4, None), []
        recorded_in(studio, make_model())
        live = LiveSession("two", make_model(), Controls(lookahead_frames=8, commit_frames=3, intro_frames=0))

        async def wanted():
            order.append("step")
            return True

        retake = asyncio.create_task(studio.retake("one", "random0", wanted))
        while len(order) < 3:
            await asyncio.sleep(0)
        await studio.tick(live, 0, None, 0.0, lambda: True)
        order.append("tick")
        await retake
        await studio.close()
        return order

    order = asyncio.run(scene())
    assert order.index("tick") < len(order) - 3


def test_a_study_has_neither_takes_nor_retakes(make_model, tmp_path):
    from gapt_jax.live.study import StudyLog

    models = [make_model(0), make_model(1)]
    with TestClient(make_app(models, study=StudyLog(tmp_path / "study"))) as client, connected(client) as socket:
        player = Player(socket)
        player.send(type="start", intro_frames=0, lookahead_frames=8)
        identity = player.take("started")["session"]
        player.tick(0)
        player.send(type="stop")
        player.send(type="ping")
        player.take("pong")
        assert client.get(f"/api/sessions/{identity}.take").status_code == 404
        assert client.post(f"/api/sessions/{identity}/retake?model=random0").status_code == 404
        assert client.get(f"/api/sessions/{identity}.mid").status_code == 200
