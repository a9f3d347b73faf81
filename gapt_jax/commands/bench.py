"""``gapt bench``: throughput beside the ceilings of this machine, and beside an earlier run."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gapt_jax import config, experiments
from gapt_jax.commands.parsing import add_command, positive
from gapt_jax.errors import UserError, install
from gapt_jax.runtime.console import Console, format_seconds
from gapt_jax.runtime.files import read_json, strict_json, write_atomic
from gapt_jax.tasks.accompaniment.config import Experiment

SUITES = ("rollout", "iteration", "train", "evaluation", "growth", "data", "serve", "live")
LIVE = "live"  # plays in real time
EXPERIMENTS = {"small": "small", "published": "gapt", "yardstick": "yardstick"}  # by size
USUAL_SIZES = ("small", "published")
USUAL_REPEATS, QUICK_REPEATS, QUICK_SIZES = 5, 2, ("small",)
# Roughly, of all suites but live together, at the usual repeats, compilation included, on 2 CPU cores.
MINUTES = {"small": 5, "published": 35, "yardstick": 5}
EXIT_INTERRUPTED = 130
TRACES = Path("runs/bench-profile")
# XLA's own lines about devices that wait for each other or are slow; run in a process of its own, so that nothing is
# lost where this one is ended by XLA.
_FILTER = """
import re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
noise = re.compile(rb"rendezvous|may be stuck|is unstuck|false-positive|Constant folding|[Vv]ery slow compile|^[*]+$")
for line in iter(sys.stdin.buffer.readline, b""):
    if not noise.search(line):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
"""
MACHINE = ("device", "devices", "cores", "dtype", "rollout")  # what must be the same for two runs to compare
CEILINGS = ("flops_per_s", "bytes_per_s")
SAME_CEILING = 1.25  # two measurements of one machine differ by less
_ABOUT = """\
Measures the largest matrix product and how fast memory is read and written back, then how much of these ceilings each
part of the method reaches. Inputs are synthetic; nothing is written but --out, which holds the rows so far while it
is measured; Ctrl-C shows them. All of it takes roughly 40 minutes on 2 CPU cores, --quick a few. On a CPU the
published size is measured with 8 songs at a time and gradients song by song (rollouts: 1, 8 and 32 songs); growth is
always that of the small size; what `data` measures runs on the host alone; `live` plays in real time through a socket,
a minute or two for each policy. Figures are medians of runs that take turns, on the first device, or over all cores of
a CPU; compilation is never timed with them.

columns: share is the time at the binding ceiling, for the counted FLOPs of matrix products and bytes of memory, over
the time taken; it exceeds 100 % where caches hold what is counted as memory. compile is lowering and XLA. x public is
frames/s over those of the public PyTorch code on 2 CPU cores, for the rows that do the same work.
"""
_EXAMPLES = """
examples:
  gapt bench --quick
  gapt bench --suite rollout --size small
  gapt bench --out before.json
  gapt bench --compare before.json
  gapt bench --suite live --policies runs/lambda0 runs/lambda1
"""


def add_parser(commands: Any) -> None:
    """Adds ``bench`` to the parser of ``gapt``."""
    parser = add_command(commands, "bench", _bench, "measure speed beside the ceilings of this machine")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = _ABOUT, _EXAMPLES
    suites, sizes = ",".join(SUITES), ",".join(EXPERIMENTS)
    without_live = ",".join(name for name in SUITES if name != LIVE)
    parser.add_argument(
        "--suite", default=without_live, metavar="NAME,...", help=f"some of {suites} (default: all but {LIVE})"
    )
    parser.add_argument(
        "--size",
        metavar="NAME,...",
        help=f"some of {sizes} (default: {','.join(USUAL_SIZES)})",
    )
    parser.add_argument(
        "--policies", type=Path, nargs="+", default=[], metavar="DIR",
        help="runs or bundles that play in `live` (default: random weights of the sizes)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, metavar="N", help=f"timed runs of each row (default: {USUAL_REPEATS})")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_REPEATS} repeats, size {','.join(QUICK_SIZES)}, unless given"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there too")
    parser.add_argument(
        "--profile", type=positive, metavar="STEPS",
        help=f"trace so many more runs of each row into {TRACES}, for XProf and Perfetto",
    )  # fmt: skip
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="an earlier --out: how many times faster is it now"
    )


def _bench(args: argparse.Namespace, console: Console) -> int | None:
    suites = _some_of("--suite", args.suite, SUITES)
    usual = (QUICK_SIZES, QUICK_REPEATS) if args.quick else (USUAL_SIZES, USUAL_REPEATS)
    sizes = _some_of("--size", ",".join(usual[0]) if args.size is None else args.size, EXPERIMENTS)
    repeats = usual[1] if args.repeats is None else args.repeats
    if repeats < 1:
        raise UserError(f"--repeats must be at least 1, not {repeats}")
    if args.out and args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder: name a file in it")
    if suites == ["growth"] and "small" not in sizes:
        raise UserError("growth is measured at the small size: add it to --size")
    if args.policies and LIVE not in suites:
        raise UserError("--policies play in the suite 'live': add it to --suite")
    if LIVE in suites and importlib.util.find_spec("fastapi") is None:
        raise UserError(f"the packages for live play are missing: {install('live')}, or name other suites")
    earlier = args.compare and read_bench(args.compare)
    from gapt_jax.runtime.devices import set_up

    set_up()
    from gapt_jax.benchmark.bench import bench
    from gapt_jax.commands.bench_data import data_cases
    from gapt_jax.live.model import open_models
    from gapt_jax.runtime.profile import trace_runs

    policies = open_models(args.policies, console)
    console.say(
        f"takes roughly {format_seconds(estimate(suites, sizes, repeats))} on 2 CPU cores"
        f"{'' if args.quick else '; --quick is shorter'}; Ctrl-C ends it and shows the rows so far"
    )
    found: dict[str, Any] = {}

    def keep(so_far: dict[str, Any]) -> None:
        nonlocal found
        found = so_far
        if args.out:
            write_atomic(args.out, strict_json(found, indent=1) + "\n")

    def trace(name: str, run: Callable[[], Any]) -> None:
        if args.profile:
            trace_runs(TRACES / name.replace("/", "-"), run, args.profile)

    chosen = {size: _accompaniment(EXPERIMENTS[size]) for size in sizes}
    code = None
    try:
        with contextlib.nullcontext() if console.json_mode else without_slow_lines():
            keep(bench(chosen, suites, repeats, console, policies, {"data": data_cases}, keep, trace))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
        console.say("stopped; these rows are not all, and the last ones may have fewer repeats")
        if not found:
            return code
    if earlier:
        keep(found | {"comparison": compare(earlier, found) | {"file": args.compare}})
    console.emit(found)
    show(found, console)
    console.say(f"wrote {args.out}" if args.out else "wrote nothing")
    console.say(f"next: change something, then gapt bench --compare {args.out or 'FILE, of an earlier --out FILE'}")
    return code


def _accompaniment(name: str) -> Experiment:
    """The experiment of a size."""
    found = experiments.load(name)
    assert isinstance(found, Experiment)
    return found


def estimate(suites: Sequence[str], sizes: Sequence[str], repeats: int) -> float:
    """Seconds, roughly: an equal share of each suite, a turn more than the repeats; live play is in real time."""
    timed = [suite for suite in suites if suite != LIVE]
    turns = (repeats + 1) / (USUAL_REPEATS + 1)
    minutes = sum(MINUTES[size] for size in sizes) * turns * len(timed) / (len(SUITES) - 1)
    return 60 * (minutes + 2 * len(sizes) * (LIVE in suites))


@contextlib.contextmanager
def without_slow_lines() -> Iterator[None]:
    """Keeps what XLA says about slow devices from stderr, and passes on the rest."""
    own = os.dup(2)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _FILTER], stdin=subprocess.PIPE, stderr=own) as passing:
        assert passing.stdin is not None
        sys.stderr.flush()
        os.dup2(passing.stdin.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(own, 2)
            os.close(own)


def _some_of(flag: str, text: str, known: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            hint = config.did_you_mean(name, known)
            raise UserError(f"{flag} has no '{name}'{hint} (there are {', '.join(known)})")
    return names


def read_bench(path: Path) -> dict[str, Any]:
    """What an earlier run wrote. Raises UserError where the file is something else."""
    found = read_json(path, "gapt bench --out FILE")
    try:
        rows, ceilings = found["rows"], found["ceilings"]
        for row in rows:  # what this phase was called
            row["name"] = re.sub(r"^(iteration/.*)/play$", r"\1/rollout", row["name"])
        is_bench = all(isinstance(row["name"], str) and _is_positive(row["median_ms"]) for row in rows)
        is_bench = is_bench and all(_is_positive(ceilings[key]) for key in CEILINGS)
    except (KeyError, TypeError):
        is_bench = False
    if not is_bench:
        raise UserError(f"{path} is not a benchmark: give a file that 'gapt bench --out FILE' wrote")
    return found


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def compare(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Earlier over new medians of the rows in both (above 1: faster now), and how the machines differ."""
    known = {row["name"]: row["median_ms"] for row in earlier["rows"]}
    rows = [
        {
            "name": row["name"],
            "earlier_ms": known[row["name"]],
            "median_ms": row["median_ms"],
            "ratio": known[row["name"]] / row["median_ms"],
        }
        for row in now["rows"]
        if row["name"] in known
    ]
    before, after = earlier["ceilings"], now["ceilings"]
    differs = [f"{key} {before.get(key)}, now {after[key]}" for key in MACHINE if before.get(key) != after[key]]
    for key in CEILINGS:
        ratio = after[key] / before[key]
        if not 1 / SAME_CEILING < ratio < SAME_CEILING:
            differs.append(f"{key} {before[key]:.3g}, now {after[key]:.3g}")
    return {"rows": rows, "differences": differs}


def show(found: dict[str, Any], console: Console) -> None:
    """Tables for a person."""
    machine = found["ceilings"]
    console.say(
        f"{machine['device']}, {machine['devices']} device(s), {machine['cores']} cores, {machine['dtype']}, "
        f"rollouts by {machine['rollout']}, "
        f"JAX {machine['jax']}, revision {machine['git_revision'][:12]}"
    )
    console.say(
        f"ceilings: {machine['flops_per_s'] / 1e9:.4g} GFLOP/s of matrix products, "
        f"{machine['bytes_per_s'] / 1e9:.4g} GB/s of memory"
    )
    columns = ["row", "ms", "frames/s", "tokens/s", "GFLOP", "XLA GFLOP", "GB", "GFLOP/s", "GB/s", "share", "bound"]
    columns += ["compile s", "peak MB", "x public"]
    played = [row for row in found["rows"] if row["name"].startswith("live/")]
    if timed := [row for row in found["rows"] if row not in played]:
        console.table("median times", columns, [_cells(row) for row in timed])
    if played:
        keys = ("name", "p50_ms", "p95_ms", "p99_ms", "budget_ms", "late", "underruns", "coalesced")
        columns = ["row", "p50 ms", "p95 ms", "p99 ms", "a frame lasts", *keys[5:]]
        console.table("live play: from a tick to its plan", columns, [[row[key] for key in keys] for row in played])
    frames = [row for row in found["rows"] if row["name"].startswith("serve/")]
    if frames:
        cells = [[row["name"], row["median_ms"], row["p95_ms"], row["tokens_per_s"]] for row in frames]
        console.table("one frame", ["row", "p50 ms", "p95 ms", "tokens/s"], cells)
    for margin in margins(found["rows"]):
        console.say("{loader}: {times:.3g} times as many songs as {iteration} plays".format(**margin))
    grown = [row for row in found["rows"] if row["grown_from"]]
    if grown:
        cells = [[row["name"], row["time_ratio"], row["exponent"]] for row in grown]
        console.table("growth when one dimension doubles", ["row", "times longer", "exponent"], cells)
    if "comparison" in found:
        _show_comparison(found["comparison"], console)


def margins(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster the loader is than the iteration that its songs are for, where both were measured."""
    medians = {row["name"]: row["median_ms"] for row in rows}
    pairs = [(n, n.replace("data/", "iteration/").replace("/loader", "/all")) for n in medians if n.endswith("/loader")]
    return [
        {"loader": loader, "iteration": iteration, "times": medians[iteration] / medians[loader]}
        for loader, iteration in pairs
        if iteration in medians
    ]


def _show_comparison(comparison: dict[str, Any], console: Console) -> None:
    cells = [[row["name"], row["earlier_ms"], row["median_ms"], row["ratio"]] for row in comparison["rows"]]
    if cells:
        title = f"beside {comparison['file']} (above 1: faster now)"
        console.table(title, ["row", "earlier ms", "ms", "earlier / now"], cells)
    else:
        console.warn(f"{comparison['file']} and this run have no row in common")
    if comparison["differences"]:
        console.warn(f"another machine, or a busy one: {'; '.join(comparison['differences'])}")


def _cells(row: dict[str, Any]) -> Sequence[object]:
    share = row["ceiling_share"]
    return [
        row["name"],
        row["median_ms"],
        row["frames_per_s"],
        row["tokens_per_s"],
        *(_scaled(row[key], 1e9) for key in ("flops", "xla_flops", "bytes", "flops_per_s", "bytes_per_s")),
        None if share is None else f"{100 * share:.1f} %",
        row["bound"],
        row["compile_s"],
        _scaled(row["peak_bytes"], 1e6),
        row["times_public"],
    ]


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
