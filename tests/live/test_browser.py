"""Some seconds in a real browser, as browser_jam.py plays them.

Playwright is not among the packages for development: GAPT_PLAYWRIGHT_PYTHON names an interpreter that has it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("websockets", reason="the extra 'live' is not installed")
from gapt_jax.live.client import served

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("GAPT_PLAYWRIGHT_PYTHON", sys.executable)
BROWSER = shutil.which("chromium")
SECONDS = 10


def has_playwright():
    if shutil.which(PYTHON) is None:
        return False
    found = subprocess.run([PYTHON, "-c", "import playwright.sync_api"], capture_output=True, timeout=60, check=False)
    return found.returncode == 0


pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no browser: apt-get install chromium"),
    pytest.mark.skipif(not has_playwright(), reason="no Playwright: GAPT_PLAYWRIGHT_PYTHON may name a Python with it"),
]


def run(*arguments):
    """browser_jam as a process that takes its browser with it when it has to end."""
    command = [PYTHON, "-m", "tests.live.browser_jam", *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def test_a_short_jam(make_model):
    model = make_model(frames=64)  # the page asks for plans of 16 frames
    model.warm_up()
    with served([model]) as url:
        code, out, err = run(url, "--seconds", SECONDS, "--browser", BROWSER)
    assert code == 0, out + err
    found = json.loads(out)
    assert found["underruns"] == found["latePlans"] == found["violations"] == found["differ"] == 0
    assert found["faults"] == [] and found["running"] is True
    frames = 8 * (SECONDS - 3) - 16  # at 120 BPM, after the count-in and the intro
    assert found["compared"] >= frames // 2 and found["chords"] > 1 and found["scheduled"] > 1
    assert found["sent"]["ticks"] > frames and found["sent"]["notes"] > SECONDS
    assert found["roundTrip"]["p50"] <= found["roundTrip"]["p95"] < 500
