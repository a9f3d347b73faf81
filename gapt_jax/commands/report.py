"""``gapt report``: the page of one or more runs; `run` and `ablate` end with it."""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gapt_jax.commands.parsing import add_command, run_folder
from gapt_jax.errors import UserError, install
from gapt_jax.runtime.console import Console


def add_parser(commands: Any) -> None:
    """Adds ``report`` to the parser of ``gapt``."""
    report = add_command(commands, "report", _report, "write a page with curves and tables of one or more runs")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of the runs")
    report.add_argument("--out", type=Path, metavar="DIR", help="default: the run, or 'report' beside the runs")


def _report(args: argparse.Namespace, console: Console) -> None:
    runs = [run_folder(run) for run in args.runs]
    for run in runs:
        if not any((run / name).exists() for name in ("config.json", "ablation.json", "evaluation.json")):
            raise UserError(
                f"{run} is no run: name folders that 'gapt run' or 'gapt ablate' made (they hold config.json)"
            )
    from gapt_jax.report.summary import sentences
    from gapt_jax.report.writer import read_results, write_results

    found = read_results(runs)
    files = write_results(found, runs, args.out or report_folder(runs))
    finish(console, files, f"open {files[0]} in a browser", sentences(found))


def report_folder(runs: list[Path]) -> Path:
    """Where the report of several runs goes: beside them."""
    if len(runs) == 1:
        return runs[0]
    return Path(os.path.commonpath([run.absolute() for run in runs])) / "report"


def write_page(workdir: Path, console: Console) -> bool:
    """Writes the report of a finished run, and returns whether it could: a run without matplotlib still ends well."""
    if None in (importlib.util.find_spec("matplotlib"), importlib.util.find_spec("jinja2")):
        console.say(f"no page: {install('report')}, then gapt report {workdir}")
        return False
    from gapt_jax.report.writer import write_report

    console.say(f"wrote {write_report([workdir], workdir)[0]}")
    return True


def finish(console: Console, files: list[Path], what_next: str, summary: Sequence[str] = ()) -> None:
    """Tells which files were written, what they say in short, and what to do next."""
    console.emit({"files": files} | ({"summary": list(summary)} if summary else {}))
    for path in files:
        console.say(f"wrote {path}")
    for sentence in summary:
        console.say(sentence)
    console.say(f"next: {what_next}")
