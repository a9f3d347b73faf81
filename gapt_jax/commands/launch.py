"""``gapt launch``: an experiment, or an ablation of it, on this machine, TPU VMs, GKE or SLURM."""

from __future__ import annotations

import argparse
import dataclasses
import re
from pathlib import Path
from typing import Any

from gapt_jax.commands import ablate
from gapt_jax.commands.parsing import (
    add_command,
    add_experiment,
    add_metrics,
    add_profile,
    add_settings,
    choice,
    experiment_of,
)
from gapt_jax.config import Experiment
from gapt_jax.errors import UserError
from gapt_jax.launch import local, render, submit
from gapt_jax.launch.spec import MOUNT, TARGETS, LaunchSpec, check_mesh
from gapt_jax.runtime.console import Console

_TEXT = (
    "start 'gapt run', or 'gapt ablate', on this machine, TPU VMs, GKE or SLURM; without --yes, show what would be "
    "started"
)
_OF_ABLATE = ("lambdas", "preset", "grid", "seeds", "at_once")


def add_parser(commands: Any) -> None:
    """Adds ``launch`` to the parser of ``gapt``."""
    parser = add_command(commands, "launch", _launch, _TEXT)
    parser.add_argument("ablate", nargs="?", **choice("ablate"), help="train a grid of the experiment: gapt ablate")
    add_experiment(parser)
    parser.add_argument("--on", required=True, **choice(*TARGETS), dest="target", help="where to run")
    add_settings(parser)
    option = parser.add_argument
    option("--workdir", metavar="DIR", help=f"folder of the run; all hosts must see it (default: {MOUNT}/runs/NAME)")
    option("--songs", default="", metavar="DIR", help="folder of songs; all hosts must see it")
    option("--name", default="", metavar="NAME", help="of all that is created (default: from the experiment)")
    option("--preflight", action="store_true", help="check devices, network and storage there instead of training")
    option("--restarts", type=int, default=10, metavar="N", help="at most so many (default: 10)")
    option("--grace", type=int, default=120, metavar="S", help="seconds to save in after SIGTERM (default: 120)")
    option("--out", type=Path, metavar="DIR", help="write the files there")
    option("--dry-run", action="store_true", help="show the files and the command only")
    option("--yes", action="store_true", help="submit; local runs at once without it")
    add_profile(parser)
    add_metrics(parser)
    ablate.add_grid(parser.add_argument_group("gapt launch ablate"))

    cloud = parser.add_argument_group("tpu-vm, gke and slurm")
    cloud.add_argument("--accelerator", default="", metavar="TYPE", help="of one slice: v5e-64, v5p:4x4x4, h100-16")
    cloud.add_argument("--slices", type=int, default=1, metavar="N", help="TPU slices (default: 1)")
    cloud.add_argument("--image", default="", metavar="IMAGE", help="container image that holds gapt-jax")
    cloud.add_argument(
        "--storage", default="", metavar="PLACE", help=f"gs://BUCKET, nfs://SERVER/PATH or pvc:CLAIM, seen as {MOUNT}"
    )
    cloud.add_argument("--spot", action="store_true", help="cheaper machines that may be taken away")
    cloud.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="may be repeated; no secrets")
    cloud.add_argument("--project", default="", metavar="ID", help="of Google Cloud")
    cloud.add_argument("--zone", default="", metavar="ZONE", help="of the TPU VMs, or location of the GKE cluster")
    cloud.add_argument("--cluster", default="", metavar="NAME", help="of GKE (default: the current kubectl context)")
    cloud.add_argument("--queue", default="", metavar="NAME", help="Kueue queue, or SLURM partition")
    cloud.add_argument("--service-account", default="", metavar="NAME", help="that the processes run as")
    cloud.add_argument("--hours", type=int, default=24, metavar="N", help="SLURM: limit of one start (default: 24)")
    cloud.add_argument("--keep", action="store_true", help="tpu-vm: do not delete the TPU VMs at the end")

    here = parser.add_argument_group("local")
    here.add_argument("--processes", type=int, default=1, metavar="N", help="default: 1")
    here.add_argument(
        "--devices-per-process", type=int, default=0, metavar="N", help="CPU devices of each (default: JAX's)"
    )


def _launch(args: argparse.Namespace, console: Console) -> int:
    """Checks everything, then runs (local), submits (--yes), writes (--out) or shows."""
    experiment = experiment_of(args)
    spec = _spec_of(args, experiment)
    check_mesh(experiment.runtime.mesh, spec)
    rendered = render.render(spec)
    if args.dry_run and args.yes:
        raise UserError("--dry-run and --yes exclude each other: leave one out")
    if args.yes and args.out is None and spec.target != "local":
        raise UserError("--yes needs --out DIR, where the files are kept that tell what was submitted")
    console.emit({"files": rendered.files, "submit": rendered.submit})
    if args.dry_run:
        submit.show(rendered, console)
        return 0
    if args.out is not None:
        submit.write(rendered, args.out, console)
    if spec.target == "local":
        return _run_here(spec, console)
    if args.yes:
        return submit.submit(rendered, args.out, console)
    if args.out is None:
        submit.show(rendered, console)
    console.say(f"nothing was submitted; next: the same command with --yes{'' if args.out else ' --out DIR'}")
    return 0


def _run_here(spec: LaunchSpec, console: Console) -> int:
    job = local.LocalRun(
        spec.command, spec.processes, spec.devices_per_process, spec.restarts, float(spec.grace_seconds)
    )
    return local.run(job, write=lambda line: console.say(line.removesuffix("\n")))


def _arguments(args: argparse.Namespace, experiment: Experiment) -> tuple[str, ...]:
    """Those of the program to start, beside what a `LaunchSpec` has a field for; checked as the program would."""
    given = {name: getattr(args, name) for name in _OF_ABLATE if getattr(args, name) not in (None, [])}
    if args.ablate:
        ablate.check(args, experiment)
        given.setdefault("seeds", ablate.SEEDS)
    elif given:
        raise UserError(f"--{next(iter(given)).replace('_', '-')} is for 'gapt launch ablate EXPERIMENT': add the word")
    if args.profile:
        given["profile"] = args.profile
    if args.metrics_port:
        given["metrics_port"] = "{}:{}".format(*args.metrics_port)
    values = [(name, value) for name, of in given.items() for value in (of if isinstance(of, list) else [of])]
    return tuple(f"--{name.replace('_', '-')}={value}" for name, value in values)


def _spec_of(args: argparse.Namespace, experiment: Experiment) -> LaunchSpec:
    """The `LaunchSpec` of parsed arguments."""
    suffix = "-preflight" if args.preflight else ""
    name = f"{experiment.name}-ablate-{ablate.preset_of(args)}" if args.ablate else experiment.name
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    folder = f"{MOUNT}/runs" if args.target in ("tpu-vm", "gke") else "runs"
    if not args.workdir and args.target == "slurm":
        raise UserError("slurm needs --workdir, a folder that all nodes see")
    env = [assignment.partition("=") for assignment in args.env]
    for variable, separator, _ in env:
        if not separator:
            raise UserError(f"--env must be NAME=VALUE, not {variable!r}")
    fields = {field.name for field in dataclasses.fields(LaunchSpec)}
    given = {field: value for field, value in vars(args).items() if field in fields}
    return LaunchSpec(
        **{
            **given,
            "name": (args.name or words) + suffix,
            "workdir": args.workdir or f"{folder}/{args.name or name}",
            "program": args.ablate or "run",
            "arguments": _arguments(args, experiment),
            "settings": tuple(args.set),
            "grace_seconds": args.grace,
            "env": tuple((variable, value) for variable, _, value in env),
        }
    )
