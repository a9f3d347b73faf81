"""Where the time went: blocks, compilation, phases, idleness, and what a kill lost."""

import json
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest

from gapt_jax.runtime.account import Account


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def spend(self, seconds):
        self.now += seconds

    def phase(self, name: str) -> Callable[[float], None]:
        """A phase of that name, which takes the seconds that it is given."""

        def phase(seconds: float) -> None:
            self.spend(seconds)

        phase.__name__ = name
        return phase


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_iterations_are_divided_as_the_sampled_one(clock, tmp_path):
    account = Account(tmp_path, 1)
    with account.of("input"):
        clock.spend(2.0)
    for number in range(1, 11):
        with account.iteration(number, None) as call:
            if number == 3:  # the one that waits after each phase
                for name, seconds in (("rollout", 0.3), ("judge", 0.1), ("estimate", 0.1), ("improve_policy", 0.3)):
                    call(clock.phase(name), seconds)
            else:
                call(clock.phase("rollout"), 1.0)
    # 10 iterations took 9 × 1.0 + 0.8; at 0.8 s each they would have taken 8: the rest is idle
    assert account.divided() == {
        "input": 2.0,
        "rollout": 3.0,
        "judge": 1.0,
        "estimate": 1.0,
        "improve_policy": 3.0,
        "idle": 1.8,
    }
    written = account.write(frames=64, flops=1e9)
    assert written["frames_per_s"] == pytest.approx(10 * 64 / 11.8, abs=0.1)
    assert written["tokens_per_s"] == pytest.approx(2 * 10 * 64 / 11.8, abs=0.1)
    assert written["flops_per_s"] == pytest.approx(10 * 1e9 / 11.8) and written["mfu"] is None  # of a CPU: unknown


def test_faster_iterations_than_the_sample_leave_nothing_idle(clock, tmp_path):
    account = Account(tmp_path, 1)
    for number in range(1, 5):
        with account.iteration(number, None) as call:
            call(clock.phase("rollout"), 2.0 if number == 3 else 1.0)
    assert account.divided() == {"rollout": 5.0, "idle": 0.0}


def test_one_in_eleven_is_timed_by_phase(clock, tmp_path):
    account = Account(tmp_path, 1)
    for number in range(1, 26):
        with account.iteration(number, None) as call:
            call(clock.phase("rollout"), number)
    assert account.write(1, 0.0)["phases_s"] == {"rollout": [3, 14, 25]}


def test_compilation_is_taken_out_of_the_block_it_happens_in(tmp_path):
    account = Account(tmp_path, 1)
    with account.listening(), account.of("evaluation"):
        jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T + len(str(tmp_path)))(jnp.ones((7, 3))).block_until_ready()
    seconds = account.divided()
    assert seconds["compile"] > 0 and seconds["evaluation"] >= 0
    with account.of("evaluation"):  # nobody listens any more
        jax.jit(lambda x: jnp.tan(x))(jnp.ones(5))
    assert account.divided()["compile"] == seconds["compile"]


def test_the_account_goes_on_and_counts_what_a_kill_lost(clock, tmp_path):
    first = Account(tmp_path, 1)
    with first.of("checkpoint"):
        clock.spend(1.0)
    first.write(64, 0.0)
    log = tmp_path / "metrics.jsonl"
    log.write_text("")
    written = json.loads((tmp_path / "account.json").read_text())["written"]
    os.utime(log, (written + 30, written + 30))  # the last sign of life came 30 s after the last checkpoint
    second = Account(tmp_path, 1)
    with second.of("checkpoint"):
        clock.spend(2.0)
    assert second.divided() == {"checkpoint": 3.0, "idle": 0.0, "lost": 30.0}
    assert second.write(64, 0.0)["attempts"] == 2
