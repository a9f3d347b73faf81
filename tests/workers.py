"""A pytest plugin: when a worker of pytest-xdist dies, the log says which test ran in it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest


def _note(run: str, worker: str) -> Path:
    return Path(tempfile.gettempdir()) / f"pytest-{run}-{worker}"


def pytest_runtest_logstart(nodeid: str) -> None:
    """Notes which test begins; a file, since nothing else outlives a killed process."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        _note(os.environ["PYTEST_XDIST_TESTRUNUID"], worker).write_text(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Names the test, in the process that distributes them."""
    note = _note(node.workerinput["testrunuid"], node.gateway.id)
    if error and note.exists():
        print(f"\nworker {node.gateway.id} died in {note.read_text()}: {error}", file=sys.__stderr__, flush=True)
    note.unlink(missing_ok=True)
