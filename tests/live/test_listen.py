"""An agent of a conversation in the live engine: the tokens it samples are those of its policy."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import models
from gapt_jax.algorithm.rollout import distribution, sample
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.export.functions import flatten
from gapt_jax.live.engine import Controls, _uniforms
from gapt_jax.live.listen import Change, Listener, listen, rttm
from gapt_jax.live.model import of_network
from gapt_jax.models.networks import interleave
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.tasks.turn_taking.simulated import conversation
from gapt_jax.tasks.turn_taking.task import TurnTaking

FRAMES, TASK = 40, TurnTaking()
STACK = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
AT_ONCE = Controls(intro_frames=0, lookahead_frames=1, commit_frames=1, seed=3)


@pytest.fixture(scope="module")
def policy():
    network = models.build(ModelsConfig(STACK, STACK, STACK, STACK), TASK.vocab_size).policy
    params = network.init(jax.random.key(0))
    params["head"]["kernel"] = 10 * params["head"]["kernel"]
    return network, params


@pytest.fixture(scope="module")
def model(policy):
    network, params = policy
    weights = {name: jnp.asarray(array) for name, array in flatten(params).items()}
    return of_network(network, weights, TASK, STACK.depth, FRAMES, name="agent")


@pytest.fixture(scope="module")
def context():
    speech, _ = conversation(0, 0, 60)
    return tokens.context_of(speech).tolist()


def test_each_frame_is_decided_before_it_is_heard(policy, model, context):
    """The frames of the first window are those of a full pass of the network with the engine's random numbers."""
    network, params = policy
    engine, times = listen(model, AT_ONCE, context, realtime=False)
    assert engine.now == len(context) == 300 and engine.heard == context and engine.late == 0
    shown = model.window
    actions, heard = (np.array(part[:shown], np.int32) for part in (engine.decided, context))
    logits = network.method(params, "at_states", interleave(actions[None], heard[None])[:, :-1])[0]
    previous = np.array([TASK.rest, *actions[:-1]])
    drawn = sample(distribution(logits, TASK.valid_actions(previous)), _uniforms(3, 0, shown)[:, 0])
    assert (np.asarray(drawn) == actions).mean() > 0.95  # but for draws on the edge between two tokens
    assert len(set(engine.decided)) > 4 and times["budget_ms"] == 200
    other = [*context[:30], *([tokens.CONTEXT + 12] * 270)]
    again, _ = listen(model, AT_ONCE, other, realtime=False)
    assert again.decided[:31] == engine.decided[:31] and again.decided != engine.decided


def test_plans_imagine_what_is_heard(model, context):
    """Two frames ahead, the second is decided under a context that the agent imagines."""
    ahead = dataclasses.replace(AT_ONCE, lookahead_frames=4, commit_frames=2)
    engine, _ = listen(model, ahead, context[:60], realtime=False)
    plan = engine.tick(engine.now)
    assert len(plan.actions) == 4 and all(token >= tokens.CONTEXT for token in plan.context)
    assert all(tokens.REST <= token < tokens.CONTEXT for token in engine.decided)


def test_in_real_time_frames_come_when_they_are_due(model, context):
    began = time.monotonic()
    listen(model, AT_ONCE, context[:3], realtime=True)
    assert time.monotonic() - began >= 3 * tokens.FRAME_SECONDS


def test_nothing_changes_where_nothing_is_said():
    ear = Listener(TASK.going_on.tolist())
    begun = tokens.CONTEXT + 4 + tokens.BEGUN
    assert [ear.token(events) for events in ([], [Change(1, begun)], [], [])] == [10, begun, 14, 14]


def test_what_is_said_becomes_an_rttm_file():
    said = [tokens.REST, tokens.TURN_ONSET, tokens.TURN_HOLD, tokens.VOCAL_ONSET, tokens.BACKCHANNEL_ONSET]
    lines = ["0.20 0.40", "0.80 0.20"]
    assert rttm("a", np.array(said)) == "".join(f"SPEAKER a 1 {line} <NA> <NA> agent <NA> <NA>\n" for line in lines)
