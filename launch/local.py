"""The processes of one run on this machine, as a cluster would run them.

    python -m gapt_jax.launch.local --processes 2 --devices-per-process 4 -- gapt run smoke --workdir runs/smoke

They find each other through GAPT_COORDINATOR, GAPT_PROCESSES and GAPT_PROCESS. The exit code is 0, 42 (preempted,
saved) or that of the first process that failed. No process outlives the launcher, however it ends (on Linux; elsewhere
kill -9 of the launcher leaves them).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from gapt_jax.launch.spec import EXIT_PREEMPTED
from gapt_jax.runtime.console import drop_stdout

_POLL_SECONDS = 0.05
_DRAIN_SECONDS = 1.0  # for the output of a process that has ended
_NOISE = re.compile(r"\[Gloo\] Rank \d+ is connected to \d+ peer ranks")
_DEVICES_FLAG = "--xla_force_host_platform_device_count"
# The kernel kills the process when its parent dies; asked for after the fork, so the parent may be gone already.
_TIED = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit(137)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"error: {sys.argv[2]} cannot be started: {error.strerror.lower()}")
"""


@dataclass(frozen=True)
class LocalRun:
    command: tuple[str, ...]
    processes: int = 1
    devices_per_process: int = 0  # CPU devices; 0 leaves their number to JAX
    restarts: int = 0  # after processes were preempted that nobody stopped through the launcher
    grace_seconds: float = 120.0  # between SIGTERM and SIGKILL


def _print(line: str) -> None:
    print(line, end="", flush=True)


def run(job: LocalRun, write: Callable[[str], object] = _print) -> int:
    """Runs to the end; `write` gets whole lines, those of processes 1, 2, ... with ``[i]`` in front.

    SIGTERM and SIGINT go to all processes, a second one kills them. Call it in the main thread, which gets signals.
    """
    for start in range(job.restarts + 1):
        group = _Group(job, write)
        with _forwarding(group):
            code = group.wait()
        if code != EXIT_PREEMPTED or group.told_to_stop:
            break
        if start < job.restarts:
            write(f"preempted: restart {start + 1} of {job.restarts}\n")
    return code


class _Group:
    """The processes of one start."""

    def __init__(self, job: LocalRun, write: Callable[[str], object]) -> None:
        self._job, self._write = job, write
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[str]] = []
        self._readers: list[threading.Thread] = []
        self._requests: list[int] = []
        self._deadline = float("inf")

    @property
    def told_to_stop(self) -> bool:
        return bool(self._requests)

    def request(self, number: int) -> None:
        """Takes note of a signal to the launcher; `wait` passes it on."""
        self._requests.append(number)

    def wait(self) -> int:
        """Starts all processes, waits for the last, and returns the exit code of the whole."""
        try:
            self._start()
            return self._watch()
        finally:
            self._signal(signal.SIGKILL)
            for child, reader in zip(self._children, self._readers, strict=True):
                child.wait()
                reader.join(_DRAIN_SECONDS)
                if reader.is_alive():  # something that the process left behind holds its output open
                    _kill_group(child)

    def _start(self) -> None:
        port = _free_port()
        for index in range(self._job.processes):
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *self._job.command],
                env=environment(os.environ, self._job, index, port),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                process_group=0,  # a Ctrl-C on the terminal reaches the launcher alone, which passes it on once
            )
            self._children.append(child)
            prefix = f"[{index}] " if index else ""
            self._readers.append(threading.Thread(target=self._copy, args=(child, prefix), daemon=True))
            self._readers[-1].start()

    def _watch(self) -> int:
        codes: dict[int, int] = {}  # in the order in which the processes ended
        handled = 0
        while len(codes) < len(self._children):
            for index, child in enumerate(self._children):
                if index not in codes and child.poll() is not None:
                    codes[index] = _exit_code(child.returncode)
                    if codes[index]:
                        self._stop_the_others(codes[index])
            while handled < len(self._requests):
                self._signal(self._requests[handled] if handled == 0 else signal.SIGKILL)
                self._set_deadline()
                handled += 1
            if time.monotonic() > self._deadline:
                self._signal(signal.SIGKILL)
            time.sleep(_POLL_SECONDS)
        faults = [code for code in codes.values() if code not in (0, EXIT_PREEMPTED)]
        return faults[0] if faults else max(codes.values())

    def _stop_the_others(self, code: int) -> None:
        """After a fault at once; after a preemption they end by themselves, because all save the same step."""
        if code != EXIT_PREEMPTED and self._deadline == float("inf"):
            self._signal(signal.SIGTERM)
        self._set_deadline()

    def _set_deadline(self) -> None:
        self._deadline = min(self._deadline, time.monotonic() + self._job.grace_seconds)

    def _signal(self, number: int) -> None:
        for child in self._children:
            if child.poll() is None and number == signal.SIGKILL:
                _kill_group(child)
            elif child.poll() is None:
                child.send_signal(number)  # not to its own helpers: it may need them to save

    def _copy(self, child: subprocess.Popen[str], prefix: str) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            if _NOISE.match(line):
                continue
            try:
                with self._lock:
                    self._write(prefix + line.rstrip("\n") + "\n")
            except OSError:  # nobody reads us any more; go on emptying the pipe, or the process hangs
                self.request(signal.SIGTERM)
                self._write = lambda line: None
                drop_stdout()


def environment(base: Mapping[str, str], job: LocalRun, index: int, port: int) -> dict[str, str]:
    """Environment of process `index`; what the user has set for JAX stays, but for the number of CPU devices."""
    result = {"JAX_PLATFORMS": "cpu", "PYTHONUNBUFFERED": "1", **base}
    flags = base.get("XLA_FLAGS", "").split()
    if job.devices_per_process or not any(flag.startswith(_DEVICES_FLAG) for flag in flags):
        # The processes share the cores: one device for each, unless more are asked for.
        others = [flag for flag in flags if not flag.startswith(_DEVICES_FLAG)]
        result["XLA_FLAGS"] = " ".join([*others, f"{_DEVICES_FLAG}={job.devices_per_process or 1}"])
    devices = next(f for f in result["XLA_FLAGS"].split() if f.startswith(_DEVICES_FLAG)).partition("=")[2]
    if devices.isdigit() and int(devices) > (os.cpu_count() or 1):
        # Collectives of more devices than threads abort (JAX 0.10); more threads than cores make a training slower.
        result.setdefault("NPROC", "16")
    # `gapt` lies beside the interpreter, also where nobody has activated its environment.
    result["PATH"] = os.pathsep.join([base.get("PATH", os.defpath), os.path.dirname(sys.executable)])
    result["GAPT_COORDINATOR"] = f"127.0.0.1:{port}"
    result["GAPT_PROCESSES"] = str(job.processes)
    result["GAPT_PROCESS"] = str(index)
    return result


@contextlib.contextmanager
def _forwarding(group: _Group) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        group.request(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill_group(child: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: PermissionError for a zombie
        os.killpg(child.pid, signal.SIGKILL)


def _exit_code(returncode: int) -> int:
    """As a shell says it: 128 + N for a death by signal N."""
    return returncode if returncode >= 0 else 128 - returncode


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m gapt_jax.launch.local", description="Run N processes of a command."
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N")
    parser.add_argument("--devices-per-process", type=int, default=0, metavar="N", help="CPU devices (default: JAX's)")
    parser.add_argument("--restarts", type=int, default=0, metavar="N", help="after exit code 42 (default: 0)")
    parser.add_argument("--grace", type=float, default=120.0, metavar="S", help="seconds to save in (default: 120)")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    args = parser.parse_args(argv)
    if args.processes < 1 or args.devices_per_process < 0 or args.restarts < 0:
        parser.error("--processes must be 1 or more, --devices-per-process and --restarts 0 or more")
    return run(LocalRun(tuple(args.command), args.processes, args.devices_per_process, args.restarts, args.grace))


if __name__ == "__main__":
    sys.exit(main())
