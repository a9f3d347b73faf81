"""``gapt evaluate``: a run on held-out songs, its partner the songs or another agent."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from gapt_jax import config
from gapt_jax.commands.parsing import add_command, add_truncation, choice, positive, run_folder
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console


def add_parser(commands: Any) -> None:
    """Adds ``evaluate`` to the parser of ``gapt``."""
    evaluate = add_command(commands, "evaluate", _evaluate, "measure a run on held-out songs")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    evaluate.add_argument("--dataset", metavar="NAME", help="this dataset only (default: all of the run)")
    evaluate.add_argument("--split", **choice("train", "valid", "test", "all"), help="default: that of the run")
    evaluate.add_argument("--step", type=positive, metavar="N", help="a checkpoint that was kept (default: the newest)")
    evaluate.add_argument("--sampling", **choice(*get_args(config.Sampling)), help="default: that of the run")
    add_truncation(evaluate)
    evaluate.add_argument(
        "--opponent",
        **choice("data", "agent"),
        default="data",
        help="who plays the melody: the songs (default), or a melody agent at the same time (--agent)",
    )
    evaluate.add_argument("--agent", type=Path, metavar="RUN", help="run of the melody agent, for --opponent agent")
    evaluate.add_argument(
        "--perturb", metavar="SHIFT", help="change of key for the adaptation metrics, semitones@beat (default: +6@16)"
    )


def _evaluate(args: argparse.Namespace, console: Console) -> None:
    workdir = run_folder(args.run)
    if args.opponent == "agent":
        return _evaluate_with_agent(args, workdir, console)
    if args.agent:
        raise UserError("--agent names the partner of --opponent agent: give both, or neither")
    from gapt_jax.training import measure

    evaluation, path = measure.evaluate(
        workdir, console, args.dataset, args.split, args.sampling, args.step, args.perturb, args.top_k, args.top_p
    )
    console.emit(evaluation)
    console.say(f"wrote {path}")
    if path.name == "evaluation.json":
        console.say(f"next: gapt report {workdir}")


def _evaluate_with_agent(args: argparse.Namespace, workdir: Path, console: Console) -> None:
    if args.agent is None:
        raise UserError("--opponent agent needs --agent RUN: make one with 'gapt run small_melody_agent'")
    if args.top_k or args.top_p:
        raise UserError("--top-k and --top-p are for --opponent data: two agents draw from all tokens")
    agent = run_folder(args.agent)
    from gapt_jax.tasks.accompaniment.with_agent import evaluate_with_agent

    evaluation, path = evaluate_with_agent(
        workdir, agent, console, dataset=args.dataset, split=args.split, sampling=args.sampling, step=args.step
    )
    console.emit(evaluation)
    console.say(f"wrote {path}")
    console.say(f"next: the same for another run, with the same --agent {args.agent}")
