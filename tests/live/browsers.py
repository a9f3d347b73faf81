"""A browser for tests, in a process of its own.

Playwright is not among the packages for development: GAPT_PLAYWRIGHT_PYTHON names an interpreter that has it.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("GAPT_PLAYWRIGHT_PYTHON", sys.executable)
BROWSER = shutil.which("chromium")


def has_playwright():
    if shutil.which(PYTHON) is None:
        return False
    found = subprocess.run([PYTHON, "-c", "import playwright.sync_api"], capture_output=True, timeout=60, check=False)
    return found.returncode == 0


NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium"),
    pytest.mark.skipif(not has_playwright(), reason="no Playwright: GAPT_PLAYWRIGHT_PYTHON may name a Python with it"),
]


def run(module, *arguments, seconds):
    """A module of tests.live as a process that takes its browser with it when it has to end: code, stdout, stderr."""
    command = [PYTHON, "-m", f"tests.live.{module}", *map(str, arguments), "--browser", BROWSER]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err
