"""The log of a parallel test run says in which test a worker died."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DYING = """
import os
def test_before(): pass
def test_dies(): os._exit(1)  # as a time-out of pytest-timeout does, or XLA's abort
def test_after(): pass
"""


def test_a_dying_worker_names_its_test(tmp_path):
    (tmp_path / "test_dying.py").write_text(DYING)
    (tmp_path / "test_well.py").write_text("def test_well(): pass\n")
    flags = ["-n", "2", "--dist", "loadfile", "--max-worker-restart", "0"]  # those of the Makefile
    assert f"pytest {' '.join(flags)}" in (ROOT / "Makefile").read_text()
    command = [sys.executable, "-m", "pytest", "-p", "tests.workers", "-p", "no:cacheprovider", *flags, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    found = subprocess.run(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert "died in test_dying.py::test_dies" in found.stderr
    assert "INTERNALERROR" not in found.stdout + found.stderr and "1 failed, 2 passed" in found.stdout
