"""``gapt plan``: the phases compiled for devices that need not be there."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from gapt_jax.commands.parsing import add_command, add_experiment, add_settings, experiment_of
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import git_revision

if TYPE_CHECKING:
    from gapt_jax.launch.planned import Phase, Plan

EXIT_DOES_NOT_FIT = 2
COMPILERS = ("jax", "libtpu", "jax-cuda12-pjrt", "jax-cuda13-pjrt")  # packages; those that are installed are named


def add_parser(commands: Any) -> None:
    """Adds ``plan`` to the parser of ``gapt``."""
    parser = add_command(
        commands, "plan", _plan, "compile the training phases for devices that need not be there; memory and speed"
    )
    add_experiment(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="one slice, as v5e:16x16, v5e-256 or v5p:4x4x8; or h100-8",
    )
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="how many of them (default: 1)")
    parser.add_argument(
        "--members",
        type=int,
        default=1,
        metavar="N",
        help="runs that train as one program, as in gapt ablate (default: 1)",
    )
    add_settings(parser)


def _plan(args: argparse.Namespace, console: Console) -> int:
    """Prints the plan; 2 if it does not fit."""

    experiment = experiment_of(args)
    source = {"command": _command(args), "git_revision": git_revision(), "versions": _installed(COMPILERS)}
    import jax

    jax.config.update("jax_platforms", "cpu")  # with libtpu installed, JAX would look for a TPU first
    from gapt_jax.launch.plan import plan

    if args.members < 1:
        raise UserError(f"--members must be at least 1, not {args.members}")
    found = plan(experiment, args.topology, args.slices, console.say, args.members)
    console.emit(found.to_json() | source)
    show(found, console)
    return 0 if found.fits else EXIT_DOES_NOT_FIT


def _command(args: argparse.Namespace) -> str:
    """What makes the same plan again, without --json."""
    numbers = {f"--{name}": getattr(args, name) for name in ("slices", "members")}
    given = [word for name, value in numbers.items() if value != 1 for word in (name, str(value))]
    settings = [word for text in args.set for word in ("--set", text)]
    return shlex.join(["gapt", "plan", args.experiment, "--topology", args.topology, *given, *settings])


def _installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {distribution.name: distribution.version for distribution in metadata.distributions()}
    return {name: found[name] for name in packages if name in found}


def show(found: Plan, console: Console) -> None:
    """Tables and sentences for a person."""
    from gapt_jax.launch.plan import gib

    slices = f"{found.slices} × " if found.slices > 1 else ""
    members = f"{found.members} members of " if found.members > 1 else ""
    console.table(
        f"{members}{found.experiment} on {slices}{found.topology}, per device",
        ["phase", "memory", "TFLOP", "HBM GB", "network GB", "roofline ms", "bound", "collectives"],
        [_row(phase) for phase in found.phases],
    )
    console.say(
        f"devices: {found.devices} ({found.chip.name}), each with {gib(found.state_bytes)} of state and frozen models"
    )
    if found.members > 1:
        console.say(f"hosts: {found.hosts}, each with songs and states of at most {found.members_per_host} member(s)")
    console.say(f"assumed: a vocabulary of {found.vocabulary:,} tokens, as real songs give; no data was read")
    for share, names in _by_share(found.phases).items():
        if share < 1:
            console.warn(f"{1 - share:.0%} of the rows of {names} only fill up the devices: give them larger batches")
    for phase in found.phases:
        if phase.cost.unknown_loops:
            console.warn(f"{phase.name} has {phase.cost.unknown_loops} loops of unknown length, counted as one pass")
    if found.problem:
        console.warn(f"does not fit: {found.problem}")
        return
    bound = sum(phase.roofline for phase in found.phases)
    low, high = found.efficiency["without_overlap"], found.efficiency["with_overlap"]
    console.say(f"one iteration takes {f'{bound:.3g} s' if bound >= 1 else f'{1e3 * bound:.3g} ms'} or more")
    console.say(
        f"weak scaling from 1 to {found.devices} devices: {low:.1%} if nothing overlaps, {high:.1%} if all does "
        "(Σ max(matmuls, HBM) / the same with the network)"
    )
    console.say("it fits; wrote nothing")


def _by_share(phases: Sequence[Phase]) -> dict[float, str]:
    """Names of the phases by the share of songs in their rows."""
    shares = dict.fromkeys(phase.song_share for phase in phases)
    return {share: ", ".join(phase.name for phase in phases if phase.song_share == share) for share in shares}


def _row(phase: Phase) -> list[object]:
    from gapt_jax.launch.collectives import summarize
    from gapt_jax.launch.plan import gib

    kinds = [
        f"{kind} {summary.count}" + (f" ({summary.crossing} between slices)" if summary.crossing else "")
        for kind, summary in summarize(phase.collectives).items()
    ]
    return [
        phase.name,
        f"{gib(phase.bytes)} ({phase.bytes / phase.chip.hbm_bytes:.0%})",
        phase.cost.flops / 1e12,
        phase.cost.bytes / 1e9,
        phase.sent / 1e9,
        1e3 * phase.roofline,
        phase.bound,
        ", ".join(kinds) or None,
    ]
