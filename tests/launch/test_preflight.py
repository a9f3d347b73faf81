"""The checks before a run, alone and with two processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gapt_jax.launch import local, preflight
from gapt_jax.launch.local import LocalRun

ROOT = Path(__file__).parents[2]


def run(*arguments: object, processes: int = 1, devices: int = 2) -> tuple[int, str]:
    """``python -m gapt_jax.launch.preflight`` on CPU devices; exit code and output."""
    words = (sys.executable, "-m", "gapt_jax.launch.preflight", *map(str, arguments))
    lines: list[str] = []
    code = local.run(LocalRun(words, processes, devices), write=lines.append)
    return code, "".join(lines)


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)  # as tests set it


def test_two_processes_that_are_ready(tmp_path):
    code, output = run("--workdir", tmp_path / "run", "--devices", 4, processes=2)
    assert code == 0, output
    assert re.search(r"^devices +ok +4 × cpu, 2 of them here$", output, re.MULTILINE)
    assert re.search(r"^sum over all devices +ok +10$", output, re.MULTILINE)  # 1 + 2 + 3 + 4
    assert re.search(r"^workdir shared +ok +by 2 processes$", output, re.MULTILINE)
    assert "process 0 of 2\n" in output and "process 1 of 2" not in output  # one table is enough
    assert not list((tmp_path / "run").iterdir()) and not list((tmp_path / "cache").iterdir())


def test_a_wrong_number_of_devices(tmp_path):
    code, output = run("--workdir", tmp_path / "run", "--devices", 8)
    assert code == 1
    assert re.search(r"^devices +FAILED +2 × cpu, 2 of them here; expected 8$", output, re.MULTILINE)


def test_folders_that_only_look_the_same(tmp_path):
    """Each process is started with a folder of its own, as if the storage were not shared."""
    program = (
        "import os, sys\nfrom launch import preflight\n"
        f"sys.exit(preflight.main(['--workdir', {str(tmp_path)!r} + '/' + os.environ['GAPT_PROCESS']]))"
    )
    lines: list[str] = []
    assert local.run(LocalRun((sys.executable, "-c", program), 2, 1), write=lines.append) == 1
    output = "".join(lines)
    assert re.search(r"^workdir shared +FAILED +files of processes \[1\] are not seen", output, re.MULTILINE)
    assert re.search(r"^\[1\] workdir shared +FAILED +files of processes \[0\] are not seen", output, re.MULTILINE)


def test_songs_are_compared(tmp_path):
    arguments = ("--workdir", tmp_path / "run", "--experiment", "smoke", "--fingerprint")
    code, output = run(*arguments, "000000000000")
    assert code == 2  # a wrong fingerprint is the user's, not ours
    found = re.search(r"^songs +FAILED +([0-9a-f]{12}); expected 000000000000", output, re.MULTILINE)
    assert found, output
    code, output = run(*arguments, found[1])
    assert code == 0 and re.search(rf"^songs +ok +{found[1]}$", output, re.MULTILINE)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        preflight.write_and_replace(tmp_path / "file")
    name, passed, found = preflight._perform("workdir", lambda: preflight.write_and_replace(tmp_path / "file" / "run"))
    assert (name, passed) == ("workdir", False) and found


def test_too_little_space(tmp_path):
    with pytest.raises(preflight.CheckFailed, match="at least 1048576 GiB are needed"):
        preflight.free_space(tmp_path, 2**50)


def test_options_that_need_each_other():
    done = subprocess.run(
        [sys.executable, "-m", "gapt_jax.launch.preflight", "--workdir", "x", "--fingerprint", "0"],
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--fingerprint and --experiment go together" in done.stderr
