"""``gapt data`` of conversations: files of who speaks when."""

from __future__ import annotations

import argparse
from pathlib import Path

from gapt_jax.commands.tables import show_facts, show_rows
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console


def holds_conversations(path: Path) -> bool:
    """Whether a path is an RTTM file, or a folder that holds some. Raises UserError where it holds songs too."""
    from gapt_jax.data_pipeline import sources as songs
    from gapt_jax.data_pipeline.conversations.sources import datasets_of

    path = path.expanduser()
    found = datasets_of(path) if path.exists() else {}
    if found and path.is_dir() and (others := songs.datasets_of(path)):
        raise UserError(
            f"{path} holds conversations ({', '.join(found)}) and songs ({', '.join(others)}): name one of them"
        )
    return bool(found)


def show_list(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline.conversations import catalogue

    rows = catalogue.list_datasets(args.conversations, args.data_dir)
    console.emit({"datasets": rows})
    show_rows(console, f"conversations of {args.conversations}", rows)
    console.say(f"next: gapt data stats NAME --conversations {args.conversations}")


def prepare(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline.conversations.builders import prepare

    if args.download:
        raise UserError("no conversations can be fetched: leave --download out")
    with console.phases() as on_progress:
        dataset = prepare(args.name, args.conversations, args.data_dir, on_progress)
    report = dataset.report
    console.emit(report | {"path": dataset.path})
    for fault in report["faults"]:
        console.say("{file} line {line}: {reason}".format(**fault))
    counts = ", ".join(f"{count} {split}" for split, count in report["conversations"].items())
    console.say(f"conversations: {counts}; faults: {report['faults_total']}")
    console.say(f"wrote {dataset.path}")
    where = f"--conversations {args.conversations} --data-dir {args.data_dir}"
    console.say(f"next: gapt data stats {args.name} {where}")


def check(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline.conversations import catalogue

    result = catalogue.check(args.path)
    console.emit(vars(result))
    show_rows(console, f"conversations of {args.path}", result.datasets)
    if result.faults:
        show_rows(console, "faults", result.faults)
    if result.skipped:
        skipped = ", ".join(f"{count} {kind}" for kind, count in result.skipped.items())
        console.say(f"records of other types, not read: {skipped}")
    if result.faults_total:
        raise UserError(
            f"{args.path} has {result.faults_total} faults: correct them, or train on what `gapt data prepare` keeps"
        )
    console.say("no faults; wrote nothing")
    console.say("next: gapt data prepare NAME --conversations FOLDER")


def stats(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline.conversations import catalogue
    from gapt_jax.tasks.turn_taking.tokens import FRAME_SECONDS

    with console.phases() as on_progress:
        whole, splits = catalogue.stats(args.name, args.conversations, args.data_dir, FRAME_SECONDS, on_progress)
    console.emit(whole | {"splits": splits})
    show_facts(console, args.name, whole)
    show_rows(console, "splits", splits)
    console.say(f"the prepared conversations are in {whole['path']}")
