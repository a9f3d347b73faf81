"""Locks of folders: who holds them, when they are broken, what is cleaned."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from gapt_jax.runtime import locks
from gapt_jax.runtime.locks import Lock

HOLD = """
import sys, time
from pathlib import Path
from gapt_jax.runtime.locks import Lock
assert Lock(Path(sys.argv[1])).attempt() is None
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_living_process_keeps_its_lock_and_is_named(other, tmp_path):
    lock = Lock(tmp_path)
    holder = lock.attempt()
    assert lock.is_alive and f"process {other.pid} of host {os.uname().nodename}, since 20" in str(holder)
    lock.release()  # not ours
    assert lock.attempt() == holder


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_process_does_not_keep_it(other, tmp_path, reaped):
    other.kill()
    if reaped:
        other.wait()
    else:  # a zombie: its parent has not asked for its end
        while os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT) is None:
            pass
    assert Lock(tmp_path).attempt() is None


def test_a_later_process_of_the_same_number_does_not_keep_it(tmp_path):
    lock = Lock(tmp_path)
    assert lock.attempt() is None
    mine = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps(mine | {"process_start": "1"}))
    assert Lock(tmp_path).attempt() is None


def test_a_released_lock_is_gone_and_one_that_was_taken_over_stays(tmp_path):
    first = Lock(tmp_path)
    assert first.attempt() is None and os.listdir(tmp_path) == [".lock"]
    first.release()
    assert os.listdir(tmp_path) == []
    assert first.attempt() is None
    first.path.unlink()
    second = Lock(tmp_path)
    assert second.attempt() is None
    first.release()
    assert second.is_mine()
    second.release()


def elsewhere(folder) -> Lock:
    """The lock of a process on another machine."""
    lock = Lock(folder)
    assert lock.attempt() is None
    held = locks.Holder(**json.loads(lock.path.read_text()))
    lock.path.write_text(json.dumps(dataclasses.asdict(held) | {"host": "far", "machine": "far", "token": "far"}))
    return Lock(folder)


def test_a_process_of_another_machine_lives_while_it_gives_signs(tmp_path, monkeypatch):
    lock, now = elsewhere(tmp_path), 1000.0
    monkeypatch.setattr(locks.time, "monotonic", lambda: now)
    assert lock.attempt().host == "far" and not lock.is_alive  # not known yet
    for beat in range(5):
        now += locks.SILENCE_SECONDS
        os.utime(lock.path, (beat, beat))  # whatever its clock says
        assert lock.attempt().host == "far" and lock.is_alive
    now += locks.SILENCE_SECONDS - 1
    assert lock.attempt().host == "far"
    now += 2
    assert lock.attempt() is None and lock.is_mine()
    lock.release()


def test_the_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(locks, "_heart", locks._Heart())
    lock = Lock(tmp_path)
    assert lock.attempt() is None
    os.utime(lock.path, (1, 1))
    deadline = time.monotonic() + 30
    while lock.path.stat().st_mtime < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    lock.release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "\x00"])
def test_a_damaged_lock_counts_for_a_while(tmp_path, monkeypatch, content):
    now = 0.0
    monkeypatch.setattr(locks.time, "monotonic", lambda: now)
    (tmp_path / ".lock").write_text(content)
    lock = Lock(tmp_path)
    assert lock.attempt() == locks.UNKNOWN  # perhaps it is being written
    now += locks.SILENCE_SECONDS + 1
    assert lock.attempt() is None
    lock.release()


def test_of_many_that_find_a_dead_holder_one_gets_it(tmp_path):
    for _ in range(20):
        lock = Lock(tmp_path)
        assert lock.attempt() is None
        mine = json.loads(lock.path.read_text())
        lock.path.write_text(json.dumps(mine | {"process_start": "1", "token": "dead"}))
        tries = [Lock(tmp_path) for _ in range(8)]
        start, got = threading.Barrier(8), []

        def compete(one, start=start, got=got):
            start.wait()
            got.append(one.attempt() is None)

        threads = [threading.Thread(target=compete, args=(one,)) for one in tries]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(got) == 1
        for one in (lock, *tries):
            one.release()
        assert os.listdir(tmp_path) == []


def test_only_what_the_dead_left_is_cleaned(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = {f".a.json.{os.getpid()}.tmp", "b.tmp", ".c.tmp", "d.json"}
    for name in {f".a.json.{dead.pid}.tmp", *kept}:
        (tmp_path / name).write_text("")
    (tmp_path / f".stage.{dead.pid}.tmp").mkdir()
    (tmp_path / ".preparing-x" / "deep").mkdir(parents=True)
    locks.clean(tmp_path, ".preparing-*")
    assert set(os.listdir(tmp_path)) == kept
