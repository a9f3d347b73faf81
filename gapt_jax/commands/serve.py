"""``gapt serve``: bundles over HTTP. What it says of its address, `gapt jam` says too."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from gapt_jax.commands.parsing import Parser, add_command
from gapt_jax.errors import UserError, install
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.loopback import until_stopped


def add_parser(commands: Any) -> None:
    """Adds ``serve`` to the parser of ``gapt``."""
    serve = add_command(commands, "serve", _serve, "serve bundles over HTTP (Open Inference Protocol)")
    serve.add_argument("bundles", type=Path, nargs="+", metavar="DIR", help="folders of bundles")
    add_address(serve, 8000)
    serve.add_argument("--sessions", type=int, default=64, metavar="N", help="sessions at a time (default: 64)")


def add_address(parser: Parser, port: int) -> None:
    """Adds where a server listens."""
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1, this machine only")
    parser.add_argument("--port", type=int, default=port, metavar="N", help=f"default: {port}; 0 takes a free one")


def check_server(args: argparse.Namespace, what: str) -> None:
    """Raises UserError where the arguments of a server are wrong, or its packages missing."""
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise UserError(f"the packages for {what} are missing: {install('live')}")
    if not 0 <= args.port <= 65535:
        raise UserError(f"--port must be in 0..65535, not {args.port}")
    if args.sessions < 1:
        raise UserError(f"--sessions must be at least 1, not {args.sessions}")


def _serve(args: argparse.Namespace, console: Console) -> None:
    check_server(args, "serving")
    with until_stopped(console):
        from gapt_jax.runtime.devices import set_up

        set_up()
        from gapt_jax.serving.server import run

        run(args.bundles, console, host=args.host, port=args.port, sessions=args.sessions)
