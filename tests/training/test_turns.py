"""Two runs that need the same stage, and a run folder that another machine may hold."""

import dataclasses
import json
import threading

import pytest

from gapt_jax.errors import Preempted, UserError
from gapt_jax.runtime import hosts, locks
from gapt_jax.runtime.console import Console
from gapt_jax.training import turns
from gapt_jax.training.stages import run_stage
from tests.training.test_resume import RUNTIME, STAGE, Songs, assert_same, songs


def test_a_run_waits_for_a_stage_and_reuses_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.05)
    made, folder = {}, STAGE.folder(tmp_path)
    first, second = Songs(), Songs()
    lock = locks.Lock(folder)
    assert lock.attempt() is None

    def wait():
        made["second"] = run_stage(STAGE, tmp_path, second, songs(4, 99), RUNTIME, Console())

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive() and not second.starts
    with monkeypatch.context() as patch:  # the holder itself trains
        patch.setattr(turns, "in_turn", lambda *_: turns.contextlib.nullcontext())
        made["first"] = run_stage(STAGE, tmp_path, first, songs(4, 99), RUNTIME, Console())
    lock.release()
    waiting.join(60)
    assert first.starts == [0] and second.starts == []
    assert_same(made["first"], made["second"])
    told = capsys.readouterr().out
    assert told.count("waits for process") == 1 and str(folder) in told and "reused" in told
    assert not (folder / locks.NAME).exists()


def test_who_waits_can_be_told_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "should_stop", lambda: True)
    lock = locks.Lock(tmp_path)
    assert lock.attempt() is None
    with pytest.raises(Preempted), turns.in_turn(tmp_path, Console()):
        pass
    lock.release()


def test_a_run_folder_of_another_machine_is_refused_or_taken_over(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(locks, "SILENCE_SECONDS", 0.3)
    far = dataclasses.replace(locks.UNKNOWN, host="far", machine="far", pid=7, token="far")
    (tmp_path / locks.NAME).write_text(json.dumps(dataclasses.asdict(far)))
    with turns.refused_if_taken(tmp_path, Console()):
        assert "was in use by process 7 of host far" in capsys.readouterr().out
        with pytest.raises(UserError, match=r"is in use by process \d+ of host .* choose another --workdir"):
            turns.refused_if_taken(tmp_path, Console()).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), turns.in_turn(tmp_path / "file" / "x", Console()):
        pass
