"""``gapt sample``: accompaniments as MIDI files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapt_jax.commands.parsing import add_command, add_truncation, positive, run_folder, seed
from gapt_jax.commands.report import finish
from gapt_jax.runtime.console import Console


def add_parser(commands: Any) -> None:
    """Adds ``sample`` to the parser of ``gapt``."""
    sample = add_command(commands, "sample", _sample, "write accompaniments of a run as MIDI files")
    sample.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    sample.add_argument("--melody", type=Path, metavar="FILE.mid", help="accompany this (default: held-out songs)")
    sample.add_argument("--out", type=Path, metavar="DIR", help="default: a folder in the run")
    sample.add_argument("--songs", type=positive, default=4, metavar="N", help="how many (default: 4)")
    sample.add_argument("--step", type=positive, metavar="N", help="of a kept checkpoint (default: the newest)")
    sample.add_argument("--seed", type=seed, default=0, metavar="N", help="of the sampling (default: 0)")
    add_truncation(sample)


def _sample(args: argparse.Namespace, console: Console) -> None:
    workdir = run_folder(args.run)
    from gapt_jax.tasks.accompaniment.sample import sample

    shares = args.top_k or 1.0, args.top_p or 1.0
    files = sample(workdir, console, args.melody, args.out, args.songs, args.seed, args.step, shares)
    finish(console, files, "listen to the files with any MIDI player")
