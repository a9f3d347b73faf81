"""The command ``gapt``: its parser, and how a command is run. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TextIO

from gapt_jax import __version__
from gapt_jax.commands import (
    ablate,
    bench,
    data,
    doctor,
    evaluate,
    export,
    launch,
    listen,
    live,
    plan,
    report,
    run,
    sample,
    serve,
    study,
)
from gapt_jax.commands.exits import (
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    EXIT_UNREAD,
    explain,
    leave_other_hosts,
)
from gapt_jax.commands.parsing import Parser, add_commands, check_places
from gapt_jax.errors import Interrupted, Preempted
from gapt_jax.runtime.console import Console, drop_stdout

COMMANDS = (
    run,
    evaluate,
    sample,
    report,
    data,
    live,
    listen,
    export,
    serve,
    ablate,
    study,
    bench,
    plan,
    launch,
    doctor,
)
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
        drop_stdout()
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
        code, text = explain(error)
        print(f"error: {text}", file=sys.stderr)
    if code not in (0, EXIT_PREEMPTED):
        leave_other_hosts(code)
    if code:
        sys.exit(code)


def _own_stdout() -> TextIO:
    """A copy for what we write. The stdout of the process goes nowhere: Gloo, with which XLA adds over the devices of
    a CPU, reports there."""
    own = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)
    drop_stdout()
    return own


def _dispatch(arguments: list[str]) -> int:
    parsed = parse(arguments)
    check_places(parsed)
    return parsed.command(parsed, Console(parsed.json)) or 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The words of a command line. Raises UserError, with one sentence, where they are none."""
    parser = _build_parser()
    parser.check_command(arguments)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        parsed.parser.reject(unknown)
    return parsed


def _build_parser() -> Parser:
    parser = Parser(
        prog="gapt",
        description="Generative Adversarial Post-Training of real-time sequence policies.",
        epilog=_EXAMPLES,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=20),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gapt-jax {__version__}")
    commands = add_commands(parser)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser
