"""``gapt doctor``: does this installation work?"""

from __future__ import annotations

import argparse
from typing import Any

from gapt_jax.commands.exits import EXIT_FAULT
from gapt_jax.commands.parsing import add_command
from gapt_jax.runtime.console import Console


def add_parser(commands: Any) -> None:
    """Adds ``doctor`` to the parser of ``gapt``."""
    add_command(commands, "doctor", _doctor, "check this installation: devices, invariants, disk, optional parts")


def _doctor(args: argparse.Namespace, console: Console) -> int:
    from gapt_jax.tasks.accompaniment import example
    from gapt_jax.training import doctor

    return 0 if doctor.run(console, example.TASK, example.songs(), example.REWARDS) else EXIT_FAULT
