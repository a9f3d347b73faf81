"""Scripts of docs/ that are given the wrong arguments."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_calibrate_health_without_runs_says_what_it_needs(tmp_path):
    for arguments in ([], [str(tmp_path)]):
        script = [sys.executable, str(DOCS / "calibrate_health.py"), *arguments]
        done = subprocess.run(script, capture_output=True, text=True, cwd=DOCS.parent)
        assert done.returncode == 1 and done.stderr.startswith("usage: ") and "Traceback" not in done.stderr
