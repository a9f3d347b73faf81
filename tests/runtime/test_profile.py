"""Traces: which steps they hold, under which names, and that a run which ends early loses none.

Real ones are made in a process of their own: with libtpu in the process, as other tests have it, the profiler ends it.
"""

import gzip
import itertools
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from gapt_jax import models
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.health import Alarm
from gapt_jax.runtime.profile import Profile
from gapt_jax.training.loop import Loop, Schedule
from gapt_jax.training.watch import Watch

TRACED = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.profile import Profile, trace_runs

advance, folder = jax.jit(lambda x: jnp.sin(x) @ x), Path(sys.argv[1])
for steps, iterations in ((2, 8), (2, 4), (2, 3), (0, 8)):
    profile, x = Profile(folder / f"{steps}-{iterations}", steps, Console()), jnp.ones((8, 8))
    with profile:
        for number in range(1, iterations + 1):
            with profile.iteration(number, 10 + number, x):
                x = advance(x)
        x.block_until_ready()
trace_runs(folder / "row", lambda: advance(x), 3)
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """(folder of the traces, what was said)."""
    folder = tmp_path_factory.mktemp("traces")
    command = [sys.executable, "-c", TRACED, str(folder)]
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": ""}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def steps_of(folder, name):
    """The numbers of the steps that the traces below a folder hold."""
    found = set()
    for path in folder.rglob("*.trace.json.gz"):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found |= {int(e["args"]["step_num"]) for e in events if e.get("name") == name}
    return found


def test_a_trace_holds_the_steps_that_are_asked_for(traced):
    folder, said = traced
    found = {name: steps_of(folder / name / "profile" / "process-0", "iteration") for name in ("2-8", "2-4", "2-3")}
    assert found == {"2-8": {14, 15}, "2-4": {14}, "2-3": set()}
    assert said.count("wrote a trace into") == 2 and said.count("no trace: fewer than 4 steps were left") == 1


def test_nothing_is_traced_unless_asked(traced):
    assert not (traced[0] / "0-8").exists()


def test_runs_are_traced_one_by_one(traced):
    assert steps_of(traced[0] / "row", "run") == {0, 1, 2}


@pytest.mark.parametrize("stops_at, last", [(4, 4), (6, 5)])
def test_a_run_that_an_alarm_stops_keeps_its_trace(tmp_path, monkeypatch, capsys, stops_at, last):
    """Two steps are asked for, 4 and 5: it is stopped within the trace, or just behind it."""
    traced, reached = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", traced.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: traced.append(reached[-1]))
    log = SimpleNamespace(write=lambda *_: None, take=lambda: [Alarm(stops_at, "silence", "", "stop")] * is_due())
    saved = SimpleNamespace(check=lambda: None, save=lambda *_, **__: None)

    def is_due():
        return reached[-1] == stops_at

    def advance(state, batch, call):
        reached.append(state + 1)
        return state + 1, {}

    loop = Loop[int](
        name="gapt",
        title="post-training",
        schedule=Schedule(9, is_evaluated=lambda step: False, is_saved=lambda step: False, shown=()),
        runs=[watch := Watch("gapt", log, saved, {}, 1, 99)],
        advance=advance,
        evaluate=lambda state: {},
        profile=Profile(tmp_path, 2, Console()),
    )
    assert loop.run(0, 0, itertools.repeat(0), Console()) == stops_at
    assert f"gapt stopped at step {stops_at}, which is saved: silence" in str(watch.stopped)
    assert traced == [tmp_path / "profile" / "process-0", last]
    assert "wrote a trace into" in capsys.readouterr().out


def test_operations_say_which_network_they_belong_to():
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8)
    networks = models.build(ModelsConfig(stack, stack, stack, stack), 9)
    params = networks.critic.init(jax.random.key(0))
    lowered = jax.jit(networks.critic.__call__).lower(params, jnp.ones((1, 4), jnp.int32))
    assert "critic/" in lowered.as_text(debug_info=True)
