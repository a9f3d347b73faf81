"""The command: proves or tries a bundle, and prints what was found as JSON or why the bundle is refused."""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from pathlib import Path

from .checks import try_functions, verify
from .files import WEIGHTS, Refused, first_line

_MEMORY = 4 << 30  # bytes that a proof may take beside `_MEMORY_TIMES` those of the weights
_MEMORY_TIMES = 16


def _limit_memory(folder: Path) -> None:
    """So that what a bundle claims cannot take the memory of the machine; GPUs map theirs in ways of their own."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        size = sum(path.lstat().st_size for path in folder.glob(WEIGHTS))
        limit, most = _MEMORY + _MEMORY_TIMES * size, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (limit if most < 0 else min(limit, most), most))


def main() -> int:
    """Exit code 0, 1 where the bundle is refused, 2 for wrong arguments."""
    *options, place = sys.argv[1:] or ["--help"]
    if options not in ([], ["--try"]) or place.startswith("-"):
        print("usage: python verify [--try] DIR", file=sys.stderr)
        return 2
    folder = Path(place)
    try:
        _limit_memory(folder)
        found = try_functions(folder) if options else verify(folder)
    except Refused as reason:
        print(f"refused: {reason}", file=sys.stderr)
        return 1
    except Exception as error:
        traceback.print_exc()
        print(f"refused: {folder} cannot be proved ({first_line(error)}): make the bundle anew", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0
