"""``gapt listen``: the live engine beside a recorded conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.live.engine import Controls, Engine
from gapt_jax.live.model import LiveModel, of_policy
from gapt_jax.live.play import in_time
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import stage_warnings
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.tasks.turn_taking.task import TurnTaking
from gapt_jax.training.saved import load_policy

AGENT = "agent"  # its name among the speakers


class Change(NamedTuple):
    """What is heard of the others from a frame on."""

    frame: int
    token: int


class Listener:
    """Hears tokens as they are: `live.engine.Ear`. Where none comes nothing has changed."""

    def __init__(self, held: Sequence[int]) -> None:
        self._held, self._last = held, tokens.CONTEXT

    def token(self, events: Sequence[Change]) -> int:
        self._last = events[-1].token if events else self._held[self._last]
        return self._last


def open_agent(run: Path, console: Console) -> LiveModel:
    """The policy of a run of turn-taking. Raises UserError."""
    policy = load_policy(run, console)
    if not isinstance(policy.task, TurnTaking):
        raise UserError(f"{run} is no agent of a conversation: give a run of 'turns', or play it with gapt jam")
    for warning in stage_warnings(run):
        console.warn(warning)
    return of_policy(policy, run.resolve().name)


def listen(
    model: LiveModel,
    controls: Controls,
    context: Sequence[int],
    *,
    realtime: bool,
    report: Callable[[int], None] = lambda frame: None,
) -> tuple[Engine, dict[str, Any]]:
    """Takes part in a conversation [F] frame by frame: (the engine at its end, `play.in_time` of it)."""
    engine = Engine(model, controls, lambda: Listener(model.held))
    heard = [[Change(frame, token)] for frame, token in enumerate(context)]
    return engine, in_time(engine, heard, tokens.FRAME_SECONDS, realtime=realtime, report=report)


def rttm(recording: str, actions: np.ndarray) -> str:
    """What the agent said, actions [F], as an RTTM file."""
    starts, ends = tokens.runs(tokens.speaks(actions))
    times = zip(tokens.FRAME_SECONDS * starts, tokens.FRAME_SECONDS * (ends - starts), strict=True)
    return "".join(f"SPEAKER {recording} 1 {at:.2f} {long:.2f} <NA> <NA> {AGENT} <NA> <NA>\n" for at, long in times)
