"""``gapt ablate``: arms × seeds as one program where they fit, and the report of what came out."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax import config
from gapt_jax.commands.parsing import add_command, add_experiment, add_metrics, add_profile, add_settings, experiment_of
from gapt_jax.commands.report import write_page
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.endpoint import served

if TYPE_CHECKING:
    from gapt_jax.config import Experiment
    from gapt_jax.training.presets import Arm

SEEDS = "6"  # unless --seeds says otherwise
_EXAMPLES = """\
examples:
  gapt ablate smoke --lambdas 0,1 --seeds 2
  gapt ablate small --lambdas 0,0.5,1,2 --seeds 6 --set data.songs=SONGS
  gapt ablate small --preset cures --seeds 6 --set data.songs=SONGS
  gapt ablate small --grid algorithm.kl_coef=0.004,0.01,0.04 --seeds 10,11,12
"""


def add_parser(commands: Any) -> None:
    """Adds ``ablate`` to the parser of ``gapt``."""
    parser = add_command(
        commands, "ablate", _ablate, "train a grid of settings × seeds as one program, and report the verdict"
    )
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLES
    add_experiment(parser)
    add_grid(parser)
    add_settings(parser, "change a setting of all arms; may be repeated")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="default: runs/EXPERIMENT-ablate-PRESET")
    add_profile(parser)
    add_metrics(parser)


def add_grid(parser: Any) -> None:
    """Adds which members there are and how many train at once, for `arms_of` and `seeds_of`."""
    arms = parser.add_mutually_exclusive_group()
    arms.add_argument("--lambdas", metavar="0,1,...", help="values of the adversarial weight λ")
    arms.add_argument(
        "--preset",
        metavar="NAME,NAME",
        help="ready sets of arms, each policy once (default: lambda); an unknown name lists them",
    )
    arms.add_argument(
        "--grid",
        action="append",
        metavar="PATH=V,V",
        help="values of a setting; may be repeated, for their product; the first values are the baseline",
    )
    parser.add_argument(
        "--seeds", metavar="N", help=f"how many from 10 on, or the seeds themselves: 0,1,2 (default: {SEEDS})"
    )
    parser.add_argument(
        "--at-once", type=int, metavar="N", help="members that train at the same time (default: what the memory holds)"
    )


def preset_of(args: argparse.Namespace) -> str:
    """The name of the arms that the arguments ask for."""
    return args.preset or ("grid" if args.grid else "lambda")


def arms_of(args: argparse.Namespace, base: Experiment) -> Sequence[Arm]:
    from gapt_jax.training import presets

    if args.lambdas is not None:
        return presets.lambdas(args.lambdas)
    if args.grid:
        return presets.grid(args.grid)
    known = presets.PRESETS | base.presets()
    names = preset_of(args).split(",")
    for name in names:
        if name not in known:
            closest = config.did_you_mean(name, known)
            raise UserError(f"there is no preset '{name}'{closest} (presets: {', '.join(known)})")
    return presets.together([known[name] for name in names], base)


def seeds_of(args: argparse.Namespace) -> list[int]:
    from gapt_jax.training import presets

    if args.at_once is not None and args.at_once < 1:
        raise UserError(f"--at-once must be at least 1, not {args.at_once}")
    return presets.seeds(SEEDS if args.seeds is None else args.seeds)


def check(args: argparse.Namespace, base: Experiment) -> None:
    """Whether arms and seeds are such as can be trained; for them to be started elsewhere."""
    from gapt_jax.training import presets

    seeds_of(args)
    presets.check_different(arms_of(args, base), base)


def _ablate(args: argparse.Namespace, console: Console) -> None:
    seeds, base, preset = seeds_of(args), experiment_of(args), preset_of(args)
    arms = arms_of(args, base)
    workdir = args.workdir or Path("runs") / f"{base.name}-ablate-{preset}"
    from gapt_jax.training import ablate

    with served(args.metrics_port, console):
        record = ablate.ablate(base, arms, seeds, workdir, console, preset=preset, at_once=args.at_once)
    if console.is_silent:  # another process writes and speaks
        return
    console.emit(record)
    stopped = [member for member in record["members"] if member["status"] == "stopped"]
    for member in stopped:
        console.warn(f"{member['folder']} is left out: {member['reason']}")
    console.say(f"wrote {workdir / 'ablation.json'}")
    if write_page(workdir, console):
        console.say(f"next: open {workdir / 'report.html'} in a browser")
