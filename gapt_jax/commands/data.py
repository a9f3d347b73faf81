"""``gapt data``: the catalogue of songs, and of conversations."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from gapt_jax.commands import data_conversations as conversations
from gapt_jax.commands.parsing import add_command, add_group
from gapt_jax.commands.tables import show_facts, show_rows
from gapt_jax.errors import UserError
from gapt_jax.runtime.console import Console


def add_parser(commands: Any) -> None:
    """Adds ``data`` to the parser of ``gapt``."""
    actions = add_group(commands, "data", "list, prepare, check and describe songs and conversations")
    listing = add_command(actions, "list", _list, "list the datasets of a songs folder and the built-in ones")
    prepare = add_command(actions, "prepare", _prepare, "prepare a dataset for training")
    prepare.add_argument("--download", action="store_true", help="fetch a public set, whose licence is shown first")
    check = add_command(actions, "check", _check, "list what is wrong in a file or a folder of songs or conversations")
    convert = add_command(actions, "convert", _convert, "write songs as records, an ABC tune book or MIDI files")
    stats = add_command(actions, "stats", _stats, "describe a dataset: songs, beats, chords, how well parts fit")
    songs = "a file of songs (*.jsonl.gz, ABC, MusicXML, MIDI, Hooktheory's JSON), or a folder of them"
    check.add_argument("path", type=Path, metavar="PATH", help=f"{songs}; or an RTTM file, or a folder of such")
    convert.add_argument("path", type=Path, metavar="PATH", help=songs)
    convert.add_argument(
        "--out", type=Path, required=True, metavar="OUT", help="x.jsonl.gz, x.jsonl, x.abc, or a new folder for MIDI"
    )
    for parser in (prepare, stats):
        parser.add_argument("name", metavar="NAME", help="of the dataset, as 'gapt data list' shows it")
    for parser in (listing, prepare, stats):
        source = parser.add_mutually_exclusive_group()
        source.add_argument("--songs", default="grammar", metavar="FOLDER", help="default: the built-in songs")
        source.add_argument("--conversations", metavar="FOLDER", help="of RTTM files, or one such file")
        parser.add_argument(
            "--data-dir", type=Path, default=Path("runs/data"), metavar="DIR", help="default: runs/data"
        )


def _list(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline import catalogue

    if args.conversations:
        return conversations.show_list(args, console)
    rows = catalogue.list_datasets(args.songs, args.data_dir)
    console.emit({"datasets": rows})
    show_rows(console, f"datasets of {args.songs}", [_listed(row) for row in rows])
    console.say(f"whole addresses and licences: gapt data list --songs {args.songs} --json")
    console.say("next: gapt data stats NAME, or gapt run EXPERIMENT --set data.songs=FOLDER")


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    """A dataset in a line of a table: its source without the folders or the protocol, the licence without remarks."""
    source = row["source"]
    source = source.partition("://")[2] if "://" in source else Path(source).name
    licence = re.split(r" \(|, ", row["licence"])[0]
    return row | {"name": _shortened(row["name"], 24), "source": _shortened(source, 44), "licence": licence}


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _prepare(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline.builders import prepare
    from gapt_jax.data_pipeline.upstream import UPSTREAM, restriction

    if args.conversations:
        return conversations.prepare(args, console)
    if args.download:
        if args.name not in UPSTREAM:
            raise UserError(f"'{args.name}' is no public set (there are {', '.join(UPSTREAM)}): leave --download out")
        known = UPSTREAM[args.name]
        console.say(f"{known.title}: licence {known.licence}, {known.homepage}")
    with console.phases() as on_progress:
        dataset = prepare(args.name, args.songs, args.data_dir, on_progress, args.download)
    console.emit(dataset.report | {"path": dataset.path})
    for fault in dataset.report["rejected"]:
        console.say("left out: {file} line {line}: {reason}".format(**fault))
    songs = ", ".join(f"{count} {split}" for split, count in dataset.report["songs"].items())
    console.say(f"songs: {songs}; left out: {dataset.report['rejected_total']}")
    for leak in dataset.report["leaks"]:
        console.warn(f"the same melody in several splits: {leak}")
    if warning := restriction(args.name):
        console.warn(warning)
    console.say(f"wrote {dataset.path}")
    console.say(f"next: gapt data stats {args.name} --songs {args.songs} --data-dir {args.data_dir}")


def _check(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline import catalogue
    from gapt_jax.data_pipeline.hygiene import names

    if conversations.holds_conversations(args.path):
        return conversations.check(args, console)
    result = catalogue.check(args.path)
    duplicates = [{"songs": found.songs, "is_leak": found.is_leak} for found in result.duplicates]
    console.emit(
        {
            "files": result.files,
            "faults": result.faults,
            "leaks": result.leaks,
            "duplicates": duplicates,
            "hints": result.hints,
        }
    )
    show_rows(console, f"songs of {args.path}", result.files)
    if result.faults:
        show_rows(console, "faults", result.faults)
    for group in result.leaks:
        console.warn(f"songs of the group '{group}' are in more than one split")
    for found in result.duplicates:
        console.warn(f"{'across splits, ' if found.is_leak else ''}the same melody: {names(found)}")
    for hint in result.hints:
        console.say(hint)
    heard = sum(found.is_leak for found in result.duplicates)
    if result.faults or result.leaks or heard:
        raise UserError(
            f"{args.path} has {len(result.faults)} unusable songs, and {len(result.leaks)} groups and {heard} melodies "
            "in several splits: correct them, or train without the unusable songs"
        )
    console.say("no faults; wrote nothing")
    console.say("next: gapt data prepare NAME --songs FOLDER")


def _convert(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline import catalogue

    sources: dict[str, str] = {}
    written, left_out = catalogue.convert(args.path, args.out, sources.__setitem__)
    faults = [vars(fault) for fault in left_out]
    console.emit({"songs": written, "left_out": faults, "sources": sources, "path": args.out})
    for file, source in sources.items():
        console.say(f"{file}: {source}")
    for fault in left_out:
        console.say(f"left out: {fault.file} line {fault.line}: {fault.reason}")
    console.say(f"wrote {args.out}: {written} songs")
    console.say("next: gapt data stats NAME --songs FOLDER")


def _stats(args: argparse.Namespace, console: Console) -> None:
    from gapt_jax.data_pipeline import catalogue
    from gapt_jax.data_pipeline.hygiene import off_bars_hint

    if args.conversations:
        return conversations.stats(args, console)
    with console.phases() as on_progress:
        whole, splits = catalogue.stats(args.name, args.songs, args.data_dir, on_progress)
    console.emit(whole | {"splits": splits})
    show_facts(console, args.name, whole)
    show_rows(console, "splits", splits)
    if whole["off_bars"]:
        console.say(off_bars_hint(args.name, whole["off_bars"], sum(whole["songs"].values())))
    console.say(f"the prepared songs are in {whole['path']}")
    console.say(f"next: gapt run EXPERIMENT --set data.songs={args.songs}")
