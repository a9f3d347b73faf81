"""The command ``gapt``. Each command calls one function; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TextIO, get_args

from gapt_jax import __version__, config
from gapt_jax.errors import Interrupted, Preempted, TrainingStopped, UserError
from gapt_jax.runtime.console import Console

EXIT_FAULT, EXIT_BAD_INPUT, EXIT_TRAINING_STOPPED = 1, 2, 3
EXIT_PREEMPTED, EXIT_LOST_HOST, EXIT_INTERRUPTED, EXIT_UNREAD = 42, 43, 130, 141
_LOST_HOST = re.compile(r"connection (reset|closed|refused)|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|peer", re.I)
_DISK_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)
_PLACES = ("workdir", "out", "data_dir")  # arguments that say where to write
_EXAMPLES = """\
examples:
  gapt run smoke                        the whole pipeline in minutes, on a CPU, with built-in songs
  gapt run small --set data.songs=SONGS --set algorithm.adversarial_weight=0.5
  gapt report runs/smoke                report.html with curves and tables
  gapt sample runs/smoke --melody tune.mid
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command.

    Exit codes: 0 done, 1 a fault of ours, 2 bad input, 3 training stopped, 42 preempted (all is saved), 43 another
    host was lost (42 and 43: run the same command again), 130 interrupted, 141 nobody reads the output any more.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _own_stdout()
    try:
        code = _dispatch(arguments)
    except BrokenPipeError:  # the reader of our output went away, as in `gapt data list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_UNREAD
    except KeyboardInterrupt:
        print("stopped; run the same command again to continue", file=sys.stderr)
        code = EXIT_INTERRUPTED
    except Preempted as news:
        print(f"{news}; run the same command again to continue", file=sys.stderr)
        code = EXIT_INTERRUPTED if isinstance(news, Interrupted) else EXIT_PREEMPTED
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        code, text = _explain(error)
        print(f"error: {text}", file=sys.stderr)
    if code not in (0, EXIT_PREEMPTED):
        _leave_other_hosts(code)
    if code:
        sys.exit(code)


def _own_stdout() -> TextIO:
    """A copy for what we write. The stdout of the process goes nowhere: Gloo, with which XLA adds over the devices of
    a CPU, reports there."""
    own = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return own


def _leave_other_hosts(code: int) -> None:
    """Ends at once where other processes would be waited for that in turn wait for this one."""
    if _is_one_of_many():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_one_of_many() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _dispatch(arguments: list[str]) -> int:
    parsed = _parse(arguments)
    _check_places(parsed)
    return parsed.command(parsed, Console(parsed.json)) or 0


def _check_places(parsed: argparse.Namespace) -> None:
    """Raises UserError where a folder to write to is a file, or lies below one, or a file to write is a folder."""
    for action in parsed.parser._actions:
        path = getattr(parsed, action.dest, None)
        if action.dest not in _PLACES or not path or ":" in str(path).partition("/")[0]:
            continue
        path, flag = Path(path), action.option_strings[0]
        above = [path, *path.parents] if action.metavar == "DIR" else path.parents
        for place in above:
            if place.exists() and not place.is_dir():
                raise UserError(f"{flag} {path}: {place} is a file, not a folder: name another place")
        if str(action.metavar).startswith("FILE") and path.is_dir():
            raise UserError(f"{flag} {path} is a folder: name a file in it")


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and sentence for an error that ended a command."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return EXIT_BAD_INPUT, text
    if isinstance(error, TrainingStopped):
        return EXIT_TRAINING_STOPPED, text
    if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
        where = f": {error.filename}" if error.filename else ""
        return EXIT_BAD_INPUT, f"{(error.strerror or 'the disk refuses').lower()}{where}"
    first_line = str(error).strip().partition("\n")[0]
    if _is_one_of_many() and type(error).__name__ == "JaxRuntimeError" and _LOST_HOST.search(text):
        return EXIT_LOST_HOST, f"another host was lost ({first_line[:120]}): run the same command on all hosts again"
    return EXIT_FAULT, f"{type(error).__name__}: {first_line} (run again with --debug for the traceback)"


def _run(args: argparse.Namespace, console: Console) -> None:
    experiment = config.override(load_experiment(args.experiment), args.set)
    workdir = args.workdir or Path("runs") / experiment.name
    from gapt_jax.training import pipeline

    init_from = args.init_from and _run_folder(args.init_from)
    evaluation = pipeline.run(experiment, workdir, console, args.stage, init_from)
    if console.is_silent:  # another process writes and speaks
        return
    console.emit(evaluation)
    if evaluation:
        console.say(f"wrote {workdir / 'evaluation.json'}")
        _page_of(workdir, console)
        console.say(f"next: gapt sample {workdir}, or gapt report RUN... to compare this run with others")
    else:
        console.say(f"{workdir} is done up to stage '{args.stage}'")
        console.say("next: the same command without --stage does the rest")


def _page_of(workdir: Path, console: Console) -> None:
    """The report of a finished run; it is an extra, so that a run without matplotlib still ends well."""
    if importlib.util.find_spec("matplotlib") is None:
        console.say(f"no page: pip install '.[report]', then gapt report {workdir}")
        return
    from gapt_jax.evaluation.report import write_report

    console.say(f"wrote {write_report([workdir], workdir)[0]}")


def _evaluate(args: argparse.Namespace, console: Console) -> None:
    workdir = _run_folder(args.run)
    if args.opponent == "agent":
        return _evaluate_with_agent(args, workdir, console)
    if args.agent:
        raise UserError("--agent names the partner of --opponent agent: give both, or neither")
    from gapt_jax.training import measure

    evaluation, path = measure.evaluate(
        workdir, console, args.dataset, args.split, args.sampling, args.step, args.perturb
    )
    console.emit(evaluation)
    console.say(f"wrote {path}")
    if path.name == "evaluation.json":
        console.say(f"next: gapt report {workdir}")


def _evaluate_with_agent(args: argparse.Namespace, workdir: Path, console: Console) -> None:
    if args.agent is None:
        raise UserError("--opponent agent needs --agent RUN: make one with 'gapt run small_melody_agent'")
    agent = _run_folder(args.agent)
    from gapt_jax.training import interaction

    evaluation, path = interaction.evaluate_with_agent(
        workdir, agent, console, dataset=args.dataset, split=args.split, sampling=args.sampling, step=args.step
    )
    console.emit(evaluation)
    console.say(f"wrote {path}")
    console.say(f"next: the same for another run, with the same --agent {args.agent}")


def _sample(args: argparse.Namespace, console: Console) -> None:
    workdir = _run_folder(args.run)
    from gapt_jax.training import measure

    files = measure.sample(workdir, console, args.melody, args.out, args.songs, args.seed, args.step)
    _finish(console, files, "listen to the files with any MIDI player")


def _report(args: argparse.Namespace, console: Console) -> None:
    runs = [_run_folder(run) for run in args.runs]
    for run in runs:
        if not any((run / name).exists() for name in ("config.json", "ablation.json", "evaluation.json")):
            raise UserError(
                f"{run} is no run: name folders that 'gapt run' or 'gapt ablate' made (they hold config.json)"
            )
    from gapt_jax.evaluation.report import write_report

    files = write_report(runs, args.out or _report_folder(runs))
    pages = [path for path in files if path.suffix == ".html"]
    _finish(console, files, f"open {pages[0] if pages else files[0]} in a browser")


def _doctor(args: argparse.Namespace, console: Console) -> int:
    from gapt_jax.training import doctor

    return 0 if doctor.run(console) else EXIT_FAULT


def _finish(console: Console, files: list[Path], what_next: str) -> None:
    console.emit({"files": files})
    for path in files:
        console.say(f"wrote {path}")
    console.say(f"next: {what_next}")


def _run_folder(path: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"there is no run in {path}: make one with 'gapt run EXPERIMENT --workdir {path}'")
    return path


def _report_folder(runs: list[Path]) -> Path:
    if len(runs) == 1:
        return runs[0]
    return Path(os.path.commonpath([run.absolute() for run in runs])) / "report"


def _data_list(args: argparse.Namespace, console: Console) -> None:
    from data_pipeline import catalogue

    rows = catalogue.list_datasets(args.songs, args.data_dir)
    console.emit({"datasets": rows})
    _table_of(console, f"datasets of {args.songs}", [_listed(row) for row in rows])
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


def _data_prepare(args: argparse.Namespace, console: Console) -> None:
    from data_pipeline.builders import prepare
    from data_pipeline.upstream import UPSTREAM, restriction

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


def _data_check(args: argparse.Namespace, console: Console) -> None:
    from data_pipeline import catalogue
    from data_pipeline.hygiene import names

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
    _table_of(console, f"songs of {args.path}", result.files)
    if result.faults:
        _table_of(console, "faults", result.faults)
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


def _data_convert(args: argparse.Namespace, console: Console) -> None:
    from data_pipeline import catalogue

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


def _data_stats(args: argparse.Namespace, console: Console) -> None:
    from data_pipeline import catalogue
    from data_pipeline.hygiene import off_bars_hint

    with console.phases() as on_progress:
        whole, splits = catalogue.stats(args.name, args.songs, args.data_dir, on_progress)
    console.emit(whole | {"splits": splits})
    console.table(args.name, ["", "value"], [[key, _cell(value)] for key, value in whole.items()])
    _table_of(console, "splits", splits)
    if whole["off_bars"]:
        console.say(off_bars_hint(args.name, whole["off_bars"], sum(whole["songs"].values())))
    console.say(f"the prepared songs are in {whole['path']}")
    console.say(f"next: gapt run EXPERIMENT --set data.songs={args.songs}")


def _table_of(console: Console, title: str, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0]) if rows else []
    console.table(title, columns, [[_cell(row[name]) for name in columns] for row in rows])


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def load_experiment(name: str) -> config.Experiment:
    """The experiment `name` of the package `experiments`, or ``path/to/file.py:function``."""
    path, _, function = name.rpartition(":")
    if name.endswith(".py"):
        raise UserError(f"{name} is a file: name the function in it as well, as in {name}:my_experiment")
    if path.endswith(".py"):
        module = _module_from_file(Path(path))
    else:
        path, function, module = name, name, _named_module(name)
    make = getattr(module, function, None)
    if not callable(make):
        raise UserError(f"{path} has no function {function}(): an experiment is a function without arguments")
    experiment = _of_user(str(module.__file__), make)
    if not isinstance(experiment, config.Experiment):
        raise UserError(f"{function}() in {path} returns {type(experiment).__name__}, not an Experiment")
    return experiment


def experiment_names() -> list[str]:
    """Modules of the package `experiments` that hold a function of their own name."""
    folders = importlib.import_module("experiments").__path__
    files = sorted(path for folder in folders for path in Path(folder).glob("*.py"))
    return [path.stem for path in files if f"\ndef {path.stem}(" in path.read_text(encoding="utf-8")]


def _named_module(name: str) -> ModuleType:
    names = experiment_names()
    if name not in names:
        raise UserError(
            f"there is no experiment '{name}'{config.did_you_mean(name, names)} "
            f"(experiments: {', '.join(names) or 'none'}; or path/to/file.py:function)"
        )
    module = importlib.util.find_spec(f"experiments.{name}")
    return _of_user(str(module and module.origin), lambda: importlib.import_module(f"experiments.{name}"))


def _of_user(file: str, run: Callable[[], Any]) -> Any:
    """What `run` returns, which is code of the user. Raises UserError with the file and line of a fault in it."""
    try:
        return run()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        if isinstance(error, SyntaxError) and error.filename:
            file, lines = error.filename, [error.lineno]
        where = f"{file}, line {lines[-1]}" if lines else file
        text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        raise UserError(f"{where}: {type(error).__name__}: {text}: correct the experiment") from error


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"there is no file {path}: give the path of a Python file, then ':' and the function")
    name = f"gapt_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    _of_user(str(spec.origin), functools.partial(spec.loader.exec_module, module))
    return module


class _Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors that name the nearest known word."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see '{self.prog} --help')")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            hint = config.did_you_mean(str(value), names)
            raise argparse.ArgumentError(action, f"'{value}' is not one of {', '.join(names)}{hint}")

    def reject(self, unknown: list[str]) -> NoReturn:
        """Ends with an error about words that no argument takes."""
        hint = config.did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
        self.error(f"unknown argument '{unknown[0]}'{hint}")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parsed, unknown = _build_parser().parse_known_args(arguments)
    if unknown:
        parsed.parser.reject(unknown)
    return parsed


def _build_parser() -> _Parser:
    parser = _Parser(
        prog="gapt",
        description="Generative Adversarial Post-Training of real-time sequence policies.",
        epilog=_EXAMPLES,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=20),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gapt-jax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_evaluate(commands)
    _add_sample(commands)
    _add_report(commands)
    _add_data(commands)
    for module in (
        *(
            "gapt_jax.live_command",
            "gapt_jax.export_command",
            "gapt_jax.ablate_command",
            "gapt_jax.study_command",
            "gapt_jax.bench_command",
        ),
        *("launch.plan_command", "launch.command"),
    ):
        importlib.import_module(module).add_parser(commands, _add)
    _add(commands, "doctor", _doctor, "check this installation: devices, invariants, disk, optional parts")
    return parser


def _add(commands: Any, name: str, command: Any, text: str) -> _Parser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.set_defaults(command=command, parser=parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, all else on stderr")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_run(commands: Any) -> None:
    run = _add(
        commands,
        "run",
        _run,
        "train and evaluate an experiment from songs to a policy; continues where it stopped",
    )
    run.add_argument("experiment", metavar="EXPERIMENT", help="a name, or path/to/file.py:function")
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change a setting, for example algorithm.adversarial_weight=0.5; may be repeated",
    )
    run.add_argument("--workdir", type=Path, metavar="DIR", help="folder of the run (default: runs/NAME)")
    run.add_argument(
        "--init-from",
        type=Path,
        metavar="RUN",
        help="start post-training from the newest policy of this run instead of the supervised one",
    )
    run.add_argument("--stage", metavar="NAME", help="stop after this stage; an unknown name lists them")


def _add_evaluate(commands: Any) -> None:
    evaluate = _add(commands, "evaluate", _evaluate, "measure a run on held-out songs")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    evaluate.add_argument("--dataset", metavar="NAME", help="this dataset only (default: all of the run)")
    evaluate.add_argument("--split", choices=("train", "valid", "test", "all"), help="default: that of the run")
    evaluate.add_argument(
        "--step", type=_positive, metavar="N", help="a checkpoint that was kept (default: the newest)"
    )
    evaluate.add_argument("--sampling", choices=get_args(config.Sampling), help="default: that of the run")
    evaluate.add_argument(
        "--opponent",
        choices=("data", "agent"),
        default="data",
        help="who plays the melody: the songs (default), or a melody agent at the same time (--agent)",
    )
    evaluate.add_argument("--agent", type=Path, metavar="RUN", help="run of the melody agent, for --opponent agent")
    evaluate.add_argument(
        "--perturb", metavar="SHIFT", help="change of key for the adaptation metrics, semitones@beat (default: +6@16)"
    )


def _add_sample(commands: Any) -> None:
    sample = _add(commands, "sample", _sample, "write accompaniments of a run as MIDI files")
    sample.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    sample.add_argument("--melody", type=Path, metavar="FILE.mid", help="accompany this (default: held-out songs)")
    sample.add_argument("--out", type=Path, metavar="DIR", help="default: a folder in the run")
    sample.add_argument("--songs", type=_positive, default=4, metavar="N", help="how many (default: 4)")
    sample.add_argument("--step", type=_positive, metavar="N", help="of a kept checkpoint (default: the newest)")
    sample.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the sampling (default: 0)")


def _add_report(commands: Any) -> None:
    report = _add(commands, "report", _report, "write a page with curves and tables of one or more runs")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of the runs")
    report.add_argument("--out", type=Path, metavar="DIR", help="default: the run, or 'report' beside the runs")


def _add_data(commands: Any) -> None:
    data = commands.add_parser("data", help="list, prepare, check and describe songs", allow_abbrev=False)
    actions = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = _add(actions, "list", _data_list, "list the datasets of a songs folder and the built-in ones")
    prepare = _add(actions, "prepare", _data_prepare, "prepare a dataset for training")
    prepare.add_argument("--download", action="store_true", help="fetch a public set, whose licence is shown first")
    check = _add(actions, "check", _data_check, "list what is wrong in a song file or a folder of them")
    convert = _add(actions, "convert", _data_convert, "write songs as records, an ABC tune book or MIDI files")
    stats = _add(actions, "stats", _data_stats, "describe a dataset: songs, beats, chords, how well parts fit")
    for parser in (check, convert):
        parser.add_argument(
            "path",
            type=Path,
            metavar="PATH",
            help="a file of songs (*.jsonl.gz, ABC, MusicXML, MIDI, Hooktheory's JSON), or a folder of them",
        )
    convert.add_argument(
        "--out", type=Path, required=True, metavar="OUT", help="x.jsonl.gz, x.jsonl, x.abc, or a new folder for MIDI"
    )
    for parser in (prepare, stats):
        parser.add_argument("name", metavar="NAME", help="of the dataset, as 'gapt data list' shows it")
    for parser in (listing, prepare, stats):
        parser.add_argument("--songs", default="grammar", metavar="FOLDER", help="default: the built-in songs")
        parser.add_argument(
            "--data-dir", type=Path, default=Path("runs/data"), metavar="DIR", help="default: runs/data"
        )


def _seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or int(text) > config.MOST:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to {config.MOST}")
    return int(text)


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return number
