"""A study: names stay hidden, takes of who agreed are whole and replay, ``gapt study analyse`` reads the ratings."""

import asyncio
import json
import time
from datetime import datetime

import pytest

pytest.importorskip("fastapi", reason="the extra 'live' is not installed")
from starlette.testclient import TestClient

from gapt_jax.commands.main import main
from gapt_jax.errors import UserError
from gapt_jax.live import studio as studio_module
from gapt_jax.live import study as study_module
from gapt_jax.live.engine import Controls
from gapt_jax.live.recording import replay
from gapt_jax.live.server import make_app, run
from gapt_jax.live.session import LiveSession
from gapt_jax.live.studio import Studio
from gapt_jax.live.study import LETTERS, QUESTIONS, StudyLog, conditions
from gapt_jax.runtime.console import Console

START = {"type": "start", "lookahead_frames": 8, "commit_frames": 3, "intro_frames": 4, "seed": 3}
GOOD = dict(zip(QUESTIONS, (4, None, 2), strict=True))
BESIDE = {"plan", "intro", "stats", "warn"}  # may come before what is waited for
MOST_BESIDE = 200


class Player:
    """A participant's socket. Keeps every text that it was sent."""

    def __init__(self, socket):
        self.socket, self.texts = socket, []
        self.ready = self.take("ready")

    def send(self, **message):
        self.socket.send_text(json.dumps(message))

    def take(self, kind):
        for _ in range(MOST_BESIDE):
            self.texts.append(self.socket.receive_text())
            message = json.loads(self.texts[-1])
            if message["type"] == kind:
                return message
            assert message["type"] in BESIDE, message
        raise AssertionError(f"no {kind} came")

    def start(self, participant=None, **changes):
        self.send(**START | ({"study": {"participant": participant}} if participant else {}) | changes)
        self.started = self.take("started")
        return self

    def jam(self, frames=8, first=0):
        for now in range(first, first + frames):
            if now:
                event = {"f": now - 1, "on": True, "p": 60 + now % 7, "v": 90}
                self.send(type="notes", seq=now, events=[event])
            self.send(type="tick", seq=now, now_frame=now, t=now)
            self.plan = self.take("plan")
        return self

    def stop(self):
        """Returns when the server has stopped: it answers in order."""
        self.send(type="stop")
        self.send(type="ping")
        self.take("pong")
        return self

    def answer(self, answers, kind="answered", **changes):
        self.send(**{"type": "answers", "session": self.started["session"], "answers": answers} | changes)
        return self.take(kind)

    def play(self, participant=None, **changes):
        return self.start(participant, **changes).jam().stop()


def connected(client):
    return client.websocket_connect("/v1/live", subprotocols=["gapt-live.1"])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


@pytest.fixture
def client(make_model, folder):
    with TestClient(make_app([make_model(0), make_model(1)], sessions=8, study=StudyLog(folder))) as found:
        yield found


def takes(folder):
    return {path.name: json.loads(path.read_text()) for path in sorted((folder / "takes").glob("*.json"))}


def wait_for(path):
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def test_letters_are_drawn_from_the_code_alone():
    names = [f"m{number}" for number in range(3)]
    assert conditions(names, "p01") == conditions(names[::-1], "p01")
    drawn = [tuple(conditions(names, f"p{number}").values()) for number in range(600)]
    assert all(70 < drawn.count(order) < 130 for order in set(drawn)) and len(set(drawn)) == 6


def test_no_message_names_a_model(client, make_model):
    with connected(client) as socket:
        player = Player(socket).start("p01").jam(40)  # stats too
        for message in ({"type": "set", "model": "B"}, {"type": "set", "lookahead_frames": 32}, START | {"model": "C"}):
            player.send(**message)
            player.take("error")
        player.start("p01", model="B").jam().stop()
        player.answer(GOOD)
        identity = player.started["session"]
        assert [model["name"] for model in player.ready["models"]] == ["A", "B"]
        assert all(model.keys() == {"name", "lookahead_frames"} for model in player.ready["models"])
        assert player.started["model"] == "B"
    answers = [client.get(f"/api/sessions/{identity}.{ending}") for ending in ("json", "mid", "wav")]
    assert answers[0].status_code == 404 and answers[1].status_code == 200
    answers += [client.get("/api/models"), client.get("/readyz"), client.get("/")]
    said = "".join(player.texts).encode() + b"".join(
        answer.content + str(answer.headers).encode() for answer in answers
    )
    for model in (make_model(0), make_model(1)):
        assert model.name.encode() not in said and model.weights_sha256.encode() not in said
    assert b"weights" not in said and b"family" not in said and b'"mle"' not in said


def test_a_take_is_whole_and_replays(client, folder, make_model):
    with connected(client) as socket:
        player = Player(socket).play("P01", bpm=90)  # codes are the same in both cases
        assert player.started["take"] == 1
        (before,) = takes(folder).values()
        assert before["answers"] is None
        assert player.answer(GOOD)["session"] == player.started["session"]
    ((name, take),) = takes(folder).items()
    assert name == "p01-001.json" and take == before | {"answers": GOOD}
    model = next(m for m in map(make_model, (0, 1)) if m.name == conditions(["random0", "random1"], "p01")["A"])
    expected = {
        "schema": "gapt-study-take/1", "participant": "p01", "condition": "A", "model": model.name, "system": "mle",
        "weights_sha256": model.weights_sha256, "order": 1, "lost": False, "resets": 0, "coalesced": 0,
    }  # fmt: skip
    assert expected.items() <= take.items() and take["controls"]["bpm"] == 90
    assert datetime.fromisoformat(take["started"]) <= datetime.fromisoformat(take["ended"])
    assert replay(take["recording"], {model.weights_sha256: model}).decided[:7] == take["recording"]["chords"]
    assert len(take["plans"]) == 8 and take["plans"][-1]["rev"] == player.plan["rev"]
    names = {"tick_ms", "rev", "base_frame", "commit_until", "compute_ms", "queue_ms", "slack_ms", "late", "chords"}
    assert all(plan.keys() == names for plan in take["plans"])
    assert [len(plan["chords"]) for plan in take["plans"]] == [8] * 8


def test_study_analyse_reads_the_ratings(client, folder):
    pytest.importorskip("matplotlib", reason="the extra 'report' is not installed")
    for number in range(3):
        with connected(client) as socket:
            player = Player(socket)
            for turn, letter in enumerate("ABA"):
                player.play(f"p{number}", model=letter).answer(dict.fromkeys(QUESTIONS, 1 + (number + turn) % 5))
    out = folder / "out"
    main(["study", "analyse", str(folder / "ratings.csv"), "--out", str(out)])
    found = json.loads((out / "study.json").read_text())
    assert found["n_participants"] == 3 and found["n_ratings"] == 3 * 3 * len(QUESTIONS)
    assert sorted(found["systems"]) == ["random0", "random1"] and found["questions"] == list(QUESTIONS)
    assert found["retest"] and found["order"]


def test_without_consent_nothing_is_written(client, folder):
    with connected(client) as socket:
        player = Player(socket).play()
        assert player.started["take"] is None
        assert player.answer(GOOD, "error")["code"] == "no_session"
    assert takes(folder) == {} and (folder / "ratings.csv").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "study",
    [
        *({"participant": code} for code in ("", "../../etc/x", "a/b", "a.b", "a b", "p01\n", "ü", "x" * 33, 7, None)),
        *("p01", None, [], {}),
    ],
)
def test_bad_codes_are_refused(client, folder, study):
    with connected(client) as socket:
        player = Player(socket)
        player.send(**START | {"study": study})
        assert player.take("error")["code"] == "bad_value"
    assert takes(folder) == {}


@pytest.mark.parametrize(
    "answers",
    [
        None, 3, {}, dict.fromkeys(QUESTIONS, 0), dict.fromkeys(QUESTIONS, 6), dict.fromkeys(QUESTIONS, True),
        dict.fromkeys(QUESTIONS, 3.0), dict.fromkeys(QUESTIONS, "3"), GOOD | {"more": 1}, {"adaptation_speed": 1},
    ],
)  # fmt: skip
def test_bad_answers_are_refused(client, folder, answers):
    with connected(client) as socket:
        player = Player(socket).play("p01")
        assert player.answer(answers, "error")["code"] == "bad_value"
        assert takes(folder)["p01-001.json"]["answers"] is None
        player.answer(GOOD)


def test_a_take_is_answered_once_and_after_it(client, folder):
    with connected(client) as socket:
        player = Player(socket).start("p01").jam()
        assert player.answer(GOOD, "error")["code"] == "no_session"  # it still goes on
        player.jam(2, first=8).stop()
        for session in (["a"], None, "other"):
            assert player.answer(GOOD, "error", session=session)["code"] == "no_session"
        player.answer(GOOD)
        assert player.answer(dict.fromkeys(QUESTIONS, 5), "error")["code"] == "no_session"
    assert takes(folder)["p01-001.json"]["answers"] == GOOD
    assert (folder / "ratings.csv").read_text().count("\n") == 3  # one question was skipped


def test_who_disconnects_is_logged_and_may_come_back(client, folder):
    with connected(client) as socket:
        first = Player(socket).start("p01").jam()
    wait_for(folder / "takes" / "p01-001.json")
    assert takes(folder)["p01-001.json"]["lost"] and len(takes(folder)["p01-001.json"]["plans"]) == 8
    with connected(client) as socket:
        back = Player(socket).start(session=first.started["session"])
        assert (back.started["take"], back.started["model"]) == (1, "A")
        assert back.answer(GOOD, "error")["code"] == "no_session"  # it goes on
        back.jam(3, first=8).stop().answer(GOOD)
        back.start("p01").jam(2).start("p01")  # a start ends the take before
        assert list(takes(folder)) == ["p01-001.json", "p01-002.json"]
    wait_for(folder / "takes" / "p01-003.json")
    found = takes(folder)
    assert [take["lost"] for take in found.values()] == [False, False, True]
    assert len(found["p01-001.json"]["plans"]) == 11 and found["p01-001.json"]["answers"] == GOOD


def test_who_was_cut_off_may_still_answer(client, folder):
    with connected(client) as socket:
        first = Player(socket).start("p01").jam()
    wait_for(folder / "takes" / "p01-001.json")
    with connected(client) as socket:
        player = Player(socket)
        player.started = first.started
        player.answer(GOOD)
        player.send(**START | {"session": first.started["session"]})  # the take is over with its answers
        assert player.take("error")["code"] == "no_session"
    assert takes(folder)["p01-001.json"]["answers"] == GOOD and takes(folder)["p01-001.json"]["lost"]


def test_what_is_forgotten_is_not_written(client, folder):
    with connected(client) as socket:
        player = Player(socket).start("p01").jam(5)
        player.send(type="reset")
        player.jam(3).stop()
    take = takes(folder)["p01-001.json"]
    assert take["resets"] == 1 and len(take["plans"]) == 3 and len(take["recording"]["entries"]) == 3


def test_a_disk_that_fails_does_not_end_play(client, folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    with connected(client) as socket:
        with monkeypatch.context() as patched:
            patched.setattr(study_module, "write_atomic", full)
            player = Player(socket).play("p01")
            assert player.answer(GOOD, "error")["code"] == "not_saved"
            assert sum("No space left" in record.message for record in caplog.records) == 1
        player.answer(GOOD)  # once there is room, nothing is lost
        assert takes(folder)["p01-001.json"]["answers"] == GOOD
        assert player.play("p01").started["take"] == 2


def test_a_take_that_a_full_disk_refused_is_tried_again(client, folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    studio = client.app.state.studio
    monkeypatch.setattr(studio_module, "TRY_SECONDS", 0.05)
    client.portal.start_task_soon(studio.keep_trying)
    with monkeypatch.context() as patched:
        patched.setattr(study_module, "write_atomic", full)
        with connected(client) as socket:
            player = Player(socket).play("p01")
            player.play("p01")
            time.sleep(0.3)  # tried again and again, and told once
        assert "gapt_live_unsaved_takes 2.0" in client.get("/metrics").text
        (told,) = [record.message for record in caplog.records if "cannot be written" in record.message]
        assert "No space left" in told and "make room" in told
        assert takes(folder) == {}
    for order in (1, 2):
        wait_for(folder / "takes" / f"p01-00{order}.json")
    found = takes(folder)
    assert [take["answers"] for take in found.values()] == [None, None] and len(found["p01-001.json"]["plans"]) == 8
    assert any("can be written again" in record.message for record in caplog.records)
    assert "gapt_live_unsaved_takes 0.0" in client.get("/metrics").text
    with connected(client) as socket:  # its answers may still come
        later = Player(socket)
        later.started = player.started
        later.answer(GOOD)
    assert takes(folder)["p01-002.json"]["answers"] == GOOD


def test_what_cannot_be_written_to_the_end_is_named(make_model, folder, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    log = StudyLog(folder)
    monkeypatch.setattr(study_module, "write_atomic", full)
    monkeypatch.setattr(study_module, "MOST_UNSAVED", 3)
    for _ in range(4):
        assert not log.save(log.begin("p01", "A", make_model()))
    assert [order for _, order in log.unsaved] == [2, 3, 4]
    assert "the take p01-001 is lost" in caplog.text
    log.close()
    assert "lost: p01-002, p01-003, p01-004" in caplog.text and caplog.text.count("No space left") == 1


def test_a_last_try_is_made_when_the_server_ends(make_model, folder, monkeypatch):
    log = StudyLog(folder)
    with monkeypatch.context() as patched:
        patched.setattr(study_module, "write_atomic", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        assert not log.save(log.begin("p01", "A", make_model()))
    log.close()
    assert list(takes(folder)) == ["p01-001.json"]


def test_takes_that_are_played_when_the_server_ends_are_written(make_model, folder):
    log = StudyLog(folder)
    studio = Studio([make_model(0)], 8, log)
    session = LiveSession("a", make_model(0), Controls())
    session.take = log.begin("p01", "A", make_model(0))
    studio.sessions["a"] = session
    session.tick(0, None, 0.0)
    asyncio.run(studio.close())
    assert takes(folder)["p01-001.json"]["lost"]


def test_a_folder_is_gone_on_with(make_model, folder):
    for order in (1, 2):
        with TestClient(make_app([make_model(0)], study=StudyLog(folder))) as client, connected(client) as socket:
            player = Player(socket).play("p01")
            assert player.started["take"] == order
            player.answer(GOOD)
    rows = (folder / "ratings.csv").read_text().splitlines()
    assert rows[0] == "participant,system,question,score,order,repeat"
    assert rows[1:3] == ["p01,random0,adaptation_quality,4,1,1", "p01,random0,control_agency,2,1,1"]
    assert rows[3:] == ["p01,random0,adaptation_quality,4,2,2", "p01,random0,control_agency,2,2,2"]
    (folder / "takes" / "p01-001.json").unlink()  # a participant's take is withdrawn
    StudyLog(folder).close()
    assert len((folder / "ratings.csv").read_text().splitlines()) == 3


def test_folders_that_cannot_be_used(tmp_path, folder):
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "ratings.csv").write_text("mine")
    for name, text in (("file", "is a file"), ("other", "not of this study")):
        with pytest.raises(UserError, match=text):
            StudyLog(tmp_path / name)
    held = StudyLog(folder)
    with pytest.raises(UserError, match="another gapt jam"):
        StudyLog(folder)
    held.close()
    (folder / "takes" / "p01-001.json").write_text("{}")
    with pytest.raises(UserError, match="no take of a study"):
        StudyLog(folder)
    with pytest.raises(UserError, match="at most 26 models"):
        paths = [tmp_path / str(number) for number in range(len(LETTERS) + 1)]
        run(paths, Console(), host="127.0.0.1", port=0, sessions=1, study=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_a_study_nothing_is_logged(make_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TestClient(make_app([make_model(0)])) as client, connected(client) as socket:
        player = Player(socket)
        assert "study" not in player.ready and player.ready["models"][0]["family"] == "mle"
        player.send(**START | {"study": {"participant": "p01"}})
        assert player.take("error")["code"] == "bad_value"
        player.play()
        assert "take" not in player.started and player.started["weights_sha256"]
        assert player.answer(GOOD, "error")["code"] == "unknown_type"
        assert client.get("/api/sessions/" + player.started["session"] + ".json").status_code == 200
    assert list(tmp_path.iterdir()) == []
