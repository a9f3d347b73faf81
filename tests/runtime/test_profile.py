"""Traces: which steps they hold, under which names, and that a run which ends early loses none."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from gapt_jax import models
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.profile import Profile, trace_runs


@jax.jit
def advance(x):
    return jnp.sin(x) @ x


def steps_of(folder):
    """The numbers of the steps that the traces below a folder hold."""
    found = set()
    for path in folder.rglob("*.trace.json.gz"):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        found |= {int(e["args"]["step_num"]) for e in events if e.get("name") == "iteration"}
    return found


@pytest.mark.parametrize(("iterations", "expected"), [(8, {14, 15}), (4, {14}), (3, set())])
def test_a_trace_holds_the_steps_that_are_asked_for(tmp_path, iterations, expected):
    profile, x = Profile(tmp_path, 2, Console(json_mode=True)), jnp.ones((8, 8))
    for number in range(1, iterations + 1):
        with profile.iteration(number, 10 + number, x):
            x = advance(x)
    profile.stop(x)
    assert steps_of(tmp_path / "profile" / "process-0") == expected


def test_nothing_is_traced_unless_asked(tmp_path):
    profile, x = Profile(tmp_path, 0, Console(json_mode=True)), jnp.ones((8, 8))
    for number in range(1, 6):
        with profile.iteration(number, number, x):
            x = advance(x)
    profile.stop(x)
    assert not list(tmp_path.iterdir())


def test_runs_are_traced_one_by_one(tmp_path):
    x, done = jnp.ones((8, 8)), []
    trace_runs(tmp_path / "row", lambda: done.append(advance(x)), 3)
    assert len(done) == 3 and list((tmp_path / "row").rglob("*.trace.json.gz"))


def test_operations_say_which_network_they_belong_to():
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8)
    networks = models.build(ModelsConfig(stack, stack, stack, stack), 9)
    params = networks.critic.init(jax.random.key(0))
    lowered = jax.jit(networks.critic.__call__).lower(params, jnp.ones((1, 4), jnp.int32))
    assert "critic/" in lowered.as_text(debug_info=True)
