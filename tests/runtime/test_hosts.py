"""Joining, agreeing and being told to stop; whole runs of several processes are tested in test_processes.py."""

import faulthandler
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from gapt_jax.errors import UserError
from gapt_jax.runtime import hosts
from gapt_jax.runtime.console import Console

SCRIPT = """
import sys, time
from gapt_jax.runtime import hosts
from gapt_jax.runtime.console import Console
hosts.start(Console())
hosts.agree({"songs": sys.argv[1]})
for step in range(1000):
    if hosts.should_stop():
        sys.exit(f"told at {step}")
    if step == 20:
        print("ready", flush=True)
    time.sleep(0.01)
"""


class Lines(Console):
    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def processes(*songs: str) -> list[subprocess.Popen]:
    port, started = free_port(), []
    for process, word in enumerate(songs):
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "",
            "GAPT_COORDINATOR": f"127.0.0.1:{port}",
            "GAPT_PROCESSES": str(len(songs)),
            "GAPT_PROCESS": str(process),
        }
        command = [sys.executable, "-c", SCRIPT, word]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    return started


def test_sigterm_to_one_stops_both_at_the_same_step():
    one, other = processes("a", "a")
    assert any("ready" in line for line in iter(other.stdout.readline, ""))
    other.send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=60)[1].strip().splitlines()[-1] for process in (one, other)]
    assert told[0] == told[1] and told[0].startswith("told at")


def test_processes_that_differ_say_in_what():
    errors = [process.communicate(timeout=120)[1] for process in processes("a", "b")]
    for error in errors:
        assert "differ in songs: a in process 0; b in process 1" in error


def connected(port: int) -> socket.socket:
    """A connection, as soon as somebody listens."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_the_first_process_names_who_is_missing(monkeypatch):
    monkeypatch.setattr(hosts, "REPORT_SECONDS", 0.5)
    port, console, late = free_port(), Lines(), Lines()
    calling = threading.Thread(target=hosts.roll_call, args=(f"127.0.0.1:{port}", 4, 0, console))
    calling.start()
    there = [threading.Thread(target=hosts.roll_call, args=(f"127.0.0.1:{port}", 4, n, late)) for n in (2, 1, 3)]
    there[0].start()
    with connected(port) as stranger:  # anyone may knock
        stranger.sendall(b"GET / HTTP/1.1\r\n")
    time.sleep(2.5)
    assert any("waiting" in line and "processes 1, 3 of 4" in line for line in console.lines)
    for thread in there[1:]:
        thread.start()
    for thread in (calling, *there):
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_a_process_that_comes_again_takes_its_own_place():
    port, console = free_port(), Lines()
    calling = threading.Thread(target=hosts.roll_call, args=(f"127.0.0.1:{port}", 3, 0, console))
    calling.start()
    time.sleep(0.3)
    first = socket.create_connection(("127.0.0.1", port))
    first.sendall(b"gapt 1")
    time.sleep(0.3)
    first.close()  # it died
    again = [threading.Thread(target=hosts.roll_call, args=(f"127.0.0.1:{port}", 3, n, Lines())) for n in (2, 1)]
    for thread in again:
        thread.start()
        time.sleep(0.5)
    for thread in (calling, *again):
        thread.join(timeout=20)
        assert not thread.is_alive()


def test_who_does_not_come_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "JOIN_SECONDS", 1.5)
    with pytest.raises(UserError, match=r"process 1 of 2 did not come to 127.0.0.1"):
        hosts.roll_call(f"127.0.0.1:{free_port()}", 2, 0, Lines())
    with pytest.raises(UserError, match="process 1 found no process 0"):
        hosts.roll_call(f"127.0.0.1:{free_port()}", 2, 1, Lines())


@pytest.mark.parametrize(
    "given", [("127.0.0.1:5000", "2", ""), ("127.0.0.1:5000", "2", "2"), ("127.0.0.1", "2", "0"), ("h:1", "x", "0")]
)
def test_wrong_whereabouts_are_one_sentence(monkeypatch, given):
    for name, value in zip(("GAPT_COORDINATOR", "GAPT_PROCESSES", "GAPT_PROCESS"), given, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="host:port"):
        hosts._whereabouts()


def test_a_process_alone_stays_on_loopback(monkeypatch):
    for name in ("GAPT_COORDINATOR", "GAPT_PROCESSES", "GAPT_PROCESS"):
        monkeypatch.delenv(name, raising=False)
    address, count, process, _ = hosts._whereabouts()
    assert address.startswith("127.0.0.1:") and (count, process) == (1, 0)


def test_a_hang_shows_its_stacks_until_there_is_progress(capfd):
    with hosts.watching_for_hangs(0.025):  # 1.5 s: what reads stderr takes from a dump that is being written
        for _ in range(4):
            hosts.should_stop()
            time.sleep(0.5)
        assert "Timeout" not in capfd.readouterr().err
        time.sleep(2)
        assert "test_a_hang_shows_its_stacks" in capfd.readouterr().err
    time.sleep(1.7)
    assert "Timeout" not in capfd.readouterr().err
    faulthandler.cancel_dump_traceback_later()
