"""What the parsers of commands have in common: one-sentence errors, arguments that several take, checks of places."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gapt_jax import experiments
from gapt_jax.config import MOST, Experiment
from gapt_jax.errors import UserError
from gapt_jax.overrides import override
from gapt_jax.runtime.console import Console
from gapt_jax.settings import did_you_mean

_ENDS = ("-h", "--help", "--version")  # options after which nothing else is read
_COMMAND = "COMMAND"
_PLACES = ("workdir", "out", "data_dir")  # arguments that say where to write
Command = Callable[[argparse.Namespace, Console], int | None]


class Parser(argparse.ArgumentParser):
    """argparse with one-sentence errors that name the nearest known word."""

    commands: Any = None  # what `add_commands` returned for this parser

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see '{self.prog} --help')")

    def check_command(self, words: Sequence[str]) -> None:
        """Ends with an error where `words` name a command that this parser, or one below it, does not have."""
        named = [
            n for n, word in enumerate(itertools.takewhile(lambda word: word not in _ENDS, words)) if word[:1] != "-"
        ]
        if self.commands is None or not named:
            return
        name, known = words[named[0]], self.commands.choices
        if name not in known:
            self.error(f"argument {_COMMAND}: {_not_one_of(name, known)}")
        known[name].check_command(words[named[0] + 1 :])

    def reject(self, unknown: list[str]) -> NoReturn:
        """Ends with an error about words that no argument takes."""
        hint = did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
        self.error(f"unknown argument '{unknown[0]}'{hint}")


def _not_one_of(name: str, known: Iterable[str]) -> str:
    return f"'{name}' is not one of {', '.join(known)}{did_you_mean(name, known)}"


def add_commands(parser: Parser) -> Any:
    """Lets `parser` take one of several commands; `add_command` adds them to what this returns."""
    parser.commands = parser.add_subparsers(title="commands", metavar=_COMMAND, required=True)
    return parser.commands


def add_group(commands: Any, name: str, text: str) -> Any:
    """Adds a word, such as ``data``, that has commands of its own; returns what takes them."""
    return add_commands(commands.add_parser(name, help=text, allow_abbrev=False))


def add_command(commands: Any, name: str, command: Command, text: str) -> Parser:
    """Adds a command that calls `command(arguments, console)`, which may return an exit code."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.set_defaults(command=command, parser=parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, all else on stderr")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def add_experiment(parser: Parser) -> None:
    """Adds the experiment, for `experiment_of`."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="a name, module:function, or path/to/file.py:function")


def add_settings(parser: Parser, text: str = "change a setting; may be repeated") -> None:
    """Adds ``--set``, for `experiment_of`."""
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help=text)


def add_profile(parser: Parser) -> None:
    """Adds ``--profile``, for `experiment_of`."""
    parser.add_argument(
        "--profile",
        type=positive,
        metavar="STEPS",
        help="write a trace of so many steps of post-training, for XProf and Perfetto, into the folder of the run",
    )


def add_metrics(parser: Parser) -> None:
    """Adds ``--metrics-port``, the (address, port) for `endpoint.served`."""
    parser.add_argument(
        "--metrics-port",
        type=_place,
        metavar="[ADDRESS:]N",
        help="tell Prometheus how training goes, at http://ADDRESS:N/metrics (default address: 127.0.0.1; N 0 takes a "
        "free one)",
    )


def _place(text: str) -> tuple[str, int]:
    address, colon, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535 or (colon and not address):
        raise argparse.ArgumentTypeError(f"'{text}' is not a port from 0 to 65535, or ADDRESS:PORT")
    return address or "127.0.0.1", int(port)


def experiment_of(args: argparse.Namespace) -> Experiment:
    """The experiment that the arguments name, with the settings that they change."""
    traced = [f"runtime.profile_steps={args.profile}"] if getattr(args, "profile", None) else []
    return override(experiments.load(args.experiment), [*args.set, *traced])


def choice(*names: str) -> dict[str, Any]:
    """Keyword arguments of `add_argument` for a value that is one of `names`."""

    def one_of(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(_not_one_of(text, names))
        return text

    return {"choices": names, "type": one_of}


def seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 10 or int(text) > MOST:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 to {MOST}")
    return int(text)


def add_truncation(parser: Parser) -> None:
    """Adds ``--top-k`` and ``--top-p``, the shares of a `rollout.Truncation`; None where they are not given."""
    parser.add_argument(
        "--top-k", type=_share, metavar="SHARE", help="draw from this share of all tokens, the likeliest; 1 = from all"
    )
    parser.add_argument(
        "--top-p", type=_share, metavar="SHARE", help="draw from the likeliest tokens that reach this probability"
    )


def _share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a share above 0 and at most 1")
    return number


def positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return number


def run_folder(path: Path) -> Path:
    if path.is_file():
        raise UserError(f"{path} is a file: give the folder of the run")
    if not path.is_dir():
        raise UserError(f"there is no run in {path}: make one with 'gapt run EXPERIMENT --workdir {path}'")
    return path


def check_places(parsed: argparse.Namespace) -> None:
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
