"""N processes on this machine, with small scripts in place of the trainer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gapt_jax.launch import local
from gapt_jax.launch.local import LocalRun

ROOT = Path(__file__).parents[2]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as most users have it
# As the trainer: SIGTERM to any process makes all of them save and exit with 42.
TRAINER = """\
import os, pathlib, signal, sys, time
folder, me = pathlib.Path(sys.argv[1]), os.environ["GAPT_PROCESS"]
def save(*_):
    (folder / "preempted").touch()
signal.signal(signal.SIGTERM, save)
(folder / f"pid{me}").write_text(str(os.getpid()))
print("ready", flush=True)
while not (folder / "preempted").exists():
    time.sleep(0.02)
sys.exit(42)
"""


def script(text: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text, *arguments)


def collect(job: LocalRun) -> tuple[int, list[str]]:
    lines: list[str] = []
    return local.run(job, write=lines.append), lines


def wait_for(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def launcher(folder: Path, *options: str, command=None) -> subprocess.Popen[str]:
    """``python -m gapt_jax.launch.local`` with two processes that have written their numbers."""
    words = [sys.executable, "-m", "gapt_jax.launch.local", "--processes=2", *options, "--"]
    process = subprocess.Popen(
        [*words, *(command or script(TRAINER, str(folder)))], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=BUFFERED
    )
    wait_for(lambda: all((folder / f"pid{i}").exists() and (folder / f"pid{i}").read_text() for i in range(2)))
    return process


def pids(folder: Path) -> list[int]:
    return [int((folder / f"pid{i}").read_text()) for i in range(2)]


def test_processes_get_their_places_and_prefixes():
    code, lines = collect(
        LocalRun(
            script(
                "import os\nfor n in ('GAPT_PROCESS', 'GAPT_PROCESSES', 'GAPT_COORDINATOR', 'XLA_FLAGS'):"
                "\n    print(n, os.environ[n])"
            ),
            processes=2,
            devices_per_process=4,
        )
    )
    assert code == 0
    assert "GAPT_PROCESS 0\n" in lines and "[1] GAPT_PROCESS 1\n" in lines
    assert "GAPT_PROCESSES 2\n" in lines and "[1] GAPT_PROCESSES 2\n" in lines
    coordinator = next(line for line in lines if line.startswith("GAPT_COORDINATOR 127.0.0.1:"))
    assert f"[1] {coordinator}" in lines
    flags = next(line for line in lines if line.startswith("XLA_FLAGS"))
    assert flags.count("device_count") == 1 and "device_count=4" in flags


def test_what_the_user_has_set_stays():
    base = {"JAX_PLATFORMS": "cuda", "NPROC": "4", "XLA_FLAGS": "--xla_a=1 --xla_force_host_platform_device_count=8"}
    result = local.environment(base, LocalRun(("x",), 2, 4), 1, 99)
    assert (result["JAX_PLATFORMS"], result["NPROC"]) == ("cuda", "4")
    assert result["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=4"
    assert local.environment({}, LocalRun(("x",)), 0, 99)["XLA_FLAGS"] == "--xla_force_host_platform_device_count=1"
    asked = local.environment({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, LocalRun(("x",)), 0, 99)
    assert asked["XLA_FLAGS"] == "--xla_force_host_platform_device_count=3"
    assert local.environment({}, LocalRun(("x",)), 0, 99)["JAX_PLATFORMS"] == "cpu"


def test_more_threads_than_cores_only_for_more_devices_than_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for devices, expected in ((1, None), (2, None), (4, "16")):
        assert local.environment({}, LocalRun(("x",), 2, devices), 0, 99).get("NPROC") == expected


def test_noise_is_left_out_and_last_lines_are_whole():
    text = "[Gloo] Rank 0 is connected to 1 peer ranks. Expected number of connected peer ranks is : 1"
    code, lines = collect(LocalRun(script(f"print({text!r}); print('a', end='')")))
    assert (code, lines) == (0, ["a\n"])


@pytest.mark.parametrize(("exit_code", "expected"), [(0, 0), (3, 3), (42, 42)])
def test_the_exit_code_is_theirs(exit_code, expected):
    assert collect(LocalRun(script(f"raise SystemExit({exit_code})"), processes=2))[0] == expected


def test_a_command_that_does_not_exist_is_one_sentence():
    code, lines = collect(LocalRun(("no-such-command",)))
    assert code == 1
    assert lines == ["error: no-such-command cannot be started: no such file or directory\n"]


def test_a_fault_of_one_ends_the_others():
    text = "import os, time\nif os.environ['GAPT_PROCESS'] == '1': raise SystemExit(3)\ntime.sleep(60)"
    began = time.monotonic()
    assert collect(LocalRun(script(text), processes=3))[0] == 3
    assert time.monotonic() - began < 10


def test_whoever_ignores_the_request_is_killed():
    text = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if os.environ['GAPT_PROCESS'] == '1': time.sleep(0.5); raise SystemExit(2)\ntime.sleep(60)"
    )
    began = time.monotonic()
    assert collect(LocalRun(script(text), processes=2, grace_seconds=0.5))[0] == 2
    assert time.monotonic() - began < 10


def test_what_a_process_leaves_behind_goes_with_it(tmp_path):
    text = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))"
    )
    began = time.monotonic()
    assert collect(LocalRun(script(text, str(tmp_path / "pid"))))[0] == 0
    wait_for(lambda: not is_running(int((tmp_path / "pid").read_text())))
    assert time.monotonic() - began < 10


def test_preempted_processes_start_again(tmp_path):
    text = (
        "import os, pathlib, sys\nfile = pathlib.Path(sys.argv[1] + os.environ['GAPT_PROCESS'])\n"
        "starts = len(file.read_text()) if file.exists() else 0\nfile.write_text('x' * (starts + 1))\n"
        "raise SystemExit(0 if starts == 2 else 42)"
    )
    command = script(text, str(tmp_path / "starts"))
    code, lines = collect(LocalRun(command, processes=2, restarts=1))
    assert (code, lines) == (42, ["preempted: restart 1 of 1\n"])
    assert collect(LocalRun(command, processes=2, restarts=5)) == (0, [])
    assert (tmp_path / "starts1").read_text() == "xxx"


def test_a_preemption_of_one_restarts_all(tmp_path):
    process = launcher(tmp_path, "--restarts=1")
    first = pids(tmp_path)
    os.kill(first[1], signal.SIGTERM)  # saves and ends both; ends the second start as well: the file stays
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 42
    assert "preempted: restart 1 of 1\n" in output
    assert set(pids(tmp_path)).isdisjoint(first)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_reaches_all_and_nothing_restarts(tmp_path, number):
    text = TRAINER.replace("signal.SIGTERM", f"signal.{number.name}")
    process = launcher(tmp_path, "--restarts=5", command=script(text, str(tmp_path)))
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 42
    assert "restart" not in output
    assert not any(map(is_running, pids(tmp_path)))


def test_kill_9_of_one_process_ends_the_other(tmp_path):
    text = TRAINER.replace("sys.exit(42)", "sys.exit(0)")
    process = launcher(tmp_path, command=script(text, str(tmp_path)))
    os.kill(pids(tmp_path)[1], signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode == 137
    assert not any(map(is_running, pids(tmp_path)))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
def test_kill_9_of_the_launcher_leaves_no_orphans(tmp_path):
    process = launcher(tmp_path)
    process.kill()
    process.communicate(timeout=20)
    wait_for(lambda: not any(map(is_running, pids(tmp_path))))


def test_a_second_signal_kills(tmp_path):
    text = TRAINER.replace("save)", "signal.SIG_IGN)")
    process = launcher(tmp_path, command=script(text, str(tmp_path)))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 137
    assert not any(map(is_running, pids(tmp_path)))


def test_a_reader_that_goes_away_stops_the_run(tmp_path):
    text = TRAINER.replace("time.sleep(0.02)", "time.sleep(0.02); print('line', flush=True)")
    process = launcher(tmp_path, command=script(text, str(tmp_path)))
    process.stdout.close()
    assert process.wait(timeout=20) == 42


def test_a_command_beside_the_interpreter_is_found_without_activation(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    lines: list[str] = []
    assert local.run(LocalRun(("python", "-c", "print('found')")), lines.append) == 0
    assert lines == ["found\n"]
