"""The processes of a run: how they find each other, agree, and stop together.

One host is the case of one process: the same code runs everywhere.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax._src import clusters, distributed, xla_bridge  # no public way to the key-value store and the detection
from jax.experimental import multihost_utils

from gapt_jax.errors import Interrupted, Preempted, UserError
from gapt_jax.runtime.console import Console

JOIN_SECONDS = 30 * 60.0  # pods take their time to come up
REPORT_SECONDS = 30.0
AGREE_SECONDS = 10 * 60.0
WORK_SECONDS = 24 * 3600.0  # what others wait for one host's work, such as preparing data
ALONE_SECONDS = 10**8  # a laptop that slept has missed its own heartbeats
_VARIABLES = ("GAPT_COORDINATOR", "GAPT_PROCESSES", "GAPT_PROCESS")

_polls = itertools.count(1)
_rounds = itertools.count(1)
_hang_seconds: float | None = None
_is_interrupted = False


def start(console: Console) -> None:
    """Joins the processes of this run; all but the first stop writing to the console.

    Where they are comes from ``GAPT_COORDINATOR`` (host:port), ``GAPT_PROCESSES`` and ``GAPT_PROCESS``, else from
    the cluster that JAX detects (TPU VM, GKE, SLURM, MPI), else this process is alone. Must come before any other
    use of JAX; where JAX is in use already, nothing happens.
    """
    if _client() is not None or xla_bridge.backends_are_initialized():
        return
    address, processes, process, devices = _whereabouts()
    if processes > 1:
        roll_call(address, processes, process, console)
    host, _, port = address.rpartition(":")
    is_local = host in ("127.0.0.1", "localhost")
    jax.distributed.initialize(
        address,
        processes,
        process,
        local_device_ids=devices,
        initialization_timeout=int(AGREE_SECONDS),
        coordinator_bind_address=f"127.0.0.1:{port}" if is_local else None,
        heartbeat_timeout_seconds=ALONE_SECONDS if processes == 1 else 100,
    )
    if process:
        console.silence()


def _whereabouts() -> tuple[str, int, int, Any]:
    """(coordinator, processes, process, local devices or None for all)."""
    given = [os.environ.get(name) for name in _VARIABLES]
    if any(given):
        try:
            address, processes, process = str(given[0]), int(str(given[1])), int(str(given[2]))
        except ValueError:
            raise UserError(f"set all of {', '.join(_VARIABLES)}: an address host:port and two numbers") from None
        if not 0 <= process < processes or not address.rpartition(":")[2].isdigit():
            raise UserError(f"process {process} of {processes} at {address}: the address is host:port, numbers from 0")
        return address, processes, process, None
    found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(JOIN_SECONDS))
    if None not in found[:3]:
        return found  # type: ignore[return-value]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}", 1, 0, None


def roll_call(address: str, processes: int, process: int, console: Console) -> None:
    """Waits until every process has connected; process 0 names the missing ones every 30 s.

    It uses the coordinator's port until the coordinator itself does. Raises UserError when some do not come.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + JOIN_SECONDS
    if process:
        _report_in(host, int(port), process, deadline, console)
    else:
        _call_roll(host, int(port), processes, deadline, console)


def _call_roll(host: str, port: int, processes: int, deadline: float, console: Console) -> None:
    present: dict[int, socket.socket] = {}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host if host in ("127.0.0.1", "localhost") else "", port))
        listener.listen(processes)
        listener.settimeout(1.0)
        reported = time.monotonic()
        while True:
            missing = sorted(set(range(1, processes)) - set(present))
            if not missing:
                missing = _dismiss(present)
            if not missing:
                return
            if time.monotonic() > deadline:
                raise UserError(f"{_numbers(missing)} of {processes} did not come to {host}:{port}: look at their logs")
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                console.say(f"waiting at {host}:{port} for {_numbers(missing)} of {processes}")
            try:
                peer, _ = listener.accept()
            except TimeoutError:
                continue
            number = _number_of(peer)
            if number is not None and 0 < number < processes:
                if number in present:  # started again since
                    present[number].close()
                present[number] = peer
            else:
                peer.close()


def _dismiss(present: dict[int, socket.socket]) -> list[int]:
    """Releases all processes, or drops those that have disconnected and returns their numbers."""
    gone = [number for number, peer in present.items() if not _is_there(peer)]
    for number in gone:
        present.pop(number).close()
    if not gone:
        for peer in present.values():
            with contextlib.suppress(OSError):
                peer.sendall(b"go\n")
            peer.close()
    return sorted(gone)


def _is_there(peer: socket.socket) -> bool:
    """Whether the client is still connected: it sends nothing more, so a read can only return the end."""
    peer.setblocking(False)
    try:
        return peer.recv(1) != b""
    except BlockingIOError:
        peer.setblocking(True)
        return True
    except OSError:
        return False


def _number_of(peer: socket.socket) -> int | None:
    """Reads the number that a process reports; None from any other client."""
    peer.settimeout(5.0)
    try:
        word, _, number = peer.recv(32).decode("ascii", "replace").partition(" ")
        return int(number) if word == "gapt" else None
    except (OSError, ValueError):
        return None


def _report_in(host: str, port: int, process: int, deadline: float, console: Console) -> None:
    reported = time.monotonic()
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=5.0) as line:
                line.sendall(f"gapt {process}".encode())
                line.settimeout(max(deadline - time.monotonic(), 1.0))
                if line.recv(8).startswith(b"go"):
                    return
        except OSError:
            pass
        if time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            console.say(f"process {process} waits for process 0 at {host}:{port}")
        time.sleep(0.2)
    raise UserError(f"process {process} found no process 0 at {host}:{port}: look at its log and at the address")


def _numbers(processes: list[int]) -> str:
    return f"process{'es' if len(processes) > 1 else ''} {', '.join(map(str, processes))}"


def _client() -> Any:
    """The key-value store that the processes share."""
    return distributed.global_state.client


def is_first() -> bool:
    """Whether this process writes files and console output."""
    return jax.process_index() == 0


def gather(value: Any) -> list[Any]:
    """Gathers one JSON value from every process, in their order. Uses no device."""
    client, process, processes = _client(), jax.process_index(), jax.process_count()
    if processes == 1:
        return [value]
    folder, timeout = f"gapt/gather/{next(_rounds)}", int(AGREE_SECONDS * 1000)
    client.key_value_set(f"{folder}/{process}", json.dumps(value))
    if process == 0:
        told = [json.loads(client.blocking_key_value_get(f"{folder}/{n}", timeout)) for n in range(processes)]
        client.key_value_set(f"{folder}/all", json.dumps(told))
    return json.loads(client.blocking_key_value_get(f"{folder}/all", timeout))


def first_says(read: Callable[[], Any]) -> Any:
    """What the first process reads, a JSON value, in every process: so that no two see a folder differently."""
    return gather(read() if is_first() else None)[0]


def agree(facts: Mapping[str, Any]) -> None:
    """Compares facts over all processes. Raises UserError, everywhere, where they differ."""
    difference = _disagreement(gather(dict(facts)))
    if difference:
        raise UserError(difference)


def _disagreement(told: list[dict[str, Any]]) -> str | None:
    for name in told[0]:
        values: dict[Any, list[int]] = {}
        for process, facts in enumerate(told):
            values.setdefault(facts[name], []).append(process)
        if len(values) > 1:
            shown = "; ".join(f"{value} in {_numbers(who)}" for value, who in values.items())
            return f"the processes differ in {name}: {shown}: start all of them from the same code, settings and songs"
    return None


def wait_for_all(what: str) -> None:
    """Blocks until every process has called it; uses no device."""
    if jax.process_count() > 1:
        _client().wait_at_barrier(f"gapt/{what}/{next(_rounds)}", int(WORK_SECONDS * 1000))


def should_stop() -> bool:
    """Whether any process got SIGTERM: True everywhere at the same call, so that all save the same step.

    Ctrl-C counts as well within `saving_on_interrupt`. Every process must call this equally often. Each call also
    tells the watchdog that there is progress.
    """
    _arm()
    if _is_interrupted and jax.process_count() == 1:
        return True
    if distributed.global_state.preemption_sync_manager is None:
        return False
    return bool(multihost_utils.reached_preemption_sync_point(next(_polls)))


def stop_if_told() -> None:
    """Raises Preempted if `should_stop`, where there is nothing to save."""
    if should_stop():
        raise Preempted("preempted; everything is saved")


@contextlib.contextmanager
def saving_on_interrupt() -> Iterator[None]:
    """Around work that asks `should_stop`: the first Ctrl-C lets it save and end, with `Interrupted`, as SIGTERM does;
    a second one ends the process at once."""
    global _is_interrupted
    is_main = threading.current_thread() is threading.main_thread()  # only that one may take signals
    if not is_main or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
        if _is_interrupted and jax.process_count() == 1:
            raise Preempted("preempted; everything is saved")
    except Preempted as news:
        if not _is_interrupted:
            raise
        raise Interrupted(str(news).replace("preempted", "stopped", 1)) from None
    finally:
        signal.signal(signal.SIGINT, before)
        _is_interrupted = False


def _interrupt(number: int, frame: Any) -> None:
    global _is_interrupted
    _is_interrupted = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.write(2, b"\nsaves the step under way, then stops; Ctrl-C again stops at once\n")
    if jax.process_count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)  # that is how the processes agree on a step


@contextlib.contextmanager
def watching_for_hangs(minutes: float) -> Iterator[None]:
    """Prints the stacks of all threads, again and again, while `should_stop` has not been called for so long."""
    global _hang_seconds
    _hang_seconds = 60.0 * minutes
    try:
        _arm()
        yield
    finally:
        _hang_seconds = None
        faulthandler.cancel_dump_traceback_later()


def _arm() -> None:
    """Starts the clock of the watchdog anew; where there is no real stderr, as in a notebook, there is no watchdog."""
    if _hang_seconds and sys.__stderr__ is not None:
        with contextlib.suppress(ValueError, OSError, RuntimeError):
            faulthandler.dump_traceback_later(_hang_seconds, repeat=True, file=sys.__stderr__)
