"""Who may write into a folder: one run at a time, whatever its number of processes. The first process locks for all."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from gapt_jax.errors import UserError
from gapt_jax.runtime import hosts, locks
from gapt_jax.runtime.console import Console

LEFT_OVER = ("*.orbax-checkpoint-tmp*", "checkpoints/*.orbax-checkpoint-tmp*")  # by a process that was killed
HELD, WAIT, REFUSED = "held", "wait", "refused"


@contextlib.contextmanager
def refused_if_taken(folder: Path, console: Console) -> Iterator[None]:
    """Holds the folder of a run. Raises UserError, in every process, where another run holds it."""
    with _turn(folder, console, can_reuse=False):
        yield


@contextlib.contextmanager
def in_turn(folder: Path, console: Console) -> Iterator[None]:
    """Holds a folder whose content can be reused: waits for another run that makes it. Raises Preempted."""
    with _turn(folder, console, can_reuse=True):
        yield


@contextlib.contextmanager
def _turn(folder: Path, console: Console, can_reuse: bool) -> Iterator[None]:
    lock, told = locks.Lock(folder), ""
    while True:
        state, text = hosts.first_says(lambda: _attempt(lock, can_reuse))
        if state == HELD:
            break
        if state == REFUSED:
            raise UserError(text)
        if text != told:
            console.say(text)
        told = text
        hosts.stop_if_told()
        time.sleep(locks.POLL_SECONDS * (1 if jax.process_count() == 1 else 5))  # each look of many costs messages
    try:
        if hosts.is_first():
            locks.clean(folder, *LEFT_OVER)
        yield
    finally:
        if hosts.is_first():
            lock.release()


def _attempt(lock: locks.Lock, can_reuse: bool) -> tuple[str, str]:
    """(what comes of it, what to say)."""
    folder = lock.path.parent
    try:
        holder = lock.attempt()
    except OSError as error:
        return REFUSED, f"{folder} cannot be written ({error.strerror or error}): free some space or choose another"
    if holder is None:
        return HELD, ""
    if can_reuse:
        return WAIT, f"waits for {holder}, which works in {folder}"
    if lock.is_alive:
        return REFUSED, f"{folder} is in use by {holder}: wait until it ends, or choose another --workdir"
    return WAIT, f"{folder} was in use by {holder}: takes over after {locks.SILENCE_SECONDS:g} s without a sign of life"
