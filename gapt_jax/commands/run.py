"""``gapt run``: an experiment from songs to an evaluated policy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gapt_jax.commands.parsing import (
    add_command,
    add_experiment,
    add_metrics,
    add_profile,
    add_settings,
    experiment_of,
    run_folder,
)
from gapt_jax.commands.report import write_page
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.endpoint import served


def add_parser(commands: Any) -> None:
    """Adds ``run`` to the parser of ``gapt``."""
    run = add_command(
        commands,
        "run",
        _run,
        "train and evaluate an experiment from songs to a policy; continues where it stopped",
    )
    add_experiment(run)
    add_settings(run, "change a setting, for example algorithm.adversarial_weight=0.5; may be repeated")
    run.add_argument("--workdir", type=Path, metavar="DIR", help="folder of the run (default: runs/NAME)")
    run.add_argument(
        "--init-from",
        type=Path,
        metavar="RUN",
        help="start post-training from the newest policy of this run instead of the supervised one",
    )
    run.add_argument("--stage", metavar="NAME", help="stop after this stage; an unknown name lists them")
    add_profile(run)
    add_metrics(run)


def _run(args: argparse.Namespace, console: Console) -> None:
    experiment = experiment_of(args)
    workdir = args.workdir or Path("runs") / experiment.name
    from gapt_jax.training import pipeline

    init_from = args.init_from and run_folder(args.init_from)
    with served(args.metrics_port, console):
        evaluation = pipeline.run(experiment, workdir, console, args.stage, init_from)
    if console.is_silent:  # another process writes and speaks
        return
    console.emit(evaluation)
    if evaluation:
        console.say(f"wrote {workdir / 'evaluation.json'}")
        write_page(workdir, console)
        play = experiment.domain().after_a_run.format(run=workdir)
        console.say(f"next: {f'{play}, or ' if play else ''}gapt report RUN... to compare this run with others")
    else:
        console.say(f"{workdir} is done up to stage '{args.stage}'")
        console.say("next: the same command without --stage does the rest")
