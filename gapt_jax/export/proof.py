"""Bundles proved and tried in a process of their own, which a crafted one may take down, before this one reads them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gapt_jax.errors import UserError
from gapt_jax.export import verify
from gapt_jax.export.manifest import read_manifest
from gapt_jax.export.verify import Bundle, Refused

SCRIPT = Path(verify.__file__).parent  # a folder that Python runs


def prove(folder: Path) -> dict[str, Any]:
    """What `verify` finds in a process that knows nothing of this package. Raises UserError where it refuses."""
    read_manifest(folder)
    return _in_child(str(folder))


def open_bundle(folder: Path) -> Bundle:
    """A bundle whose functions another process has run once. Raises UserError where it cannot be used."""
    read_manifest(folder)
    _in_child("--try", str(folder))
    try:
        return verify.load(folder)
    except Refused as reason:
        raise UserError(str(reason)) from None


def _in_child(*arguments: str) -> dict[str, Any]:
    """What `verify` prints."""
    environment = os.environ | {"JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
    if done.returncode < 0:
        raise UserError(
            f"{arguments[-1]} ends the process that runs it ({_signal(-done.returncode)}): it is damaged or crafted; "
            f"if you trust who made it, rebuild its functions with 'gapt export refresh {arguments[-1]}'"
        )
    if done.returncode:
        refusals = [line for line in done.stderr.splitlines() if line.startswith("refused: ")]
        if not refusals:
            raise RuntimeError(f"verification failed: {done.stderr.strip()[-500:]}")
        raise UserError(refusals[-1].removeprefix("refused: "))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
