"""``python FOLDER [--try] DIR``, with this folder wherever it lies."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def _package() -> ModuleType:
    """This folder as the package `verify`, without the folder around it, whose modules would hide others."""
    here = Path(__file__).parent
    spec = importlib.util.spec_from_file_location(
        "verify", here / "__init__.py", submodule_search_locations=[str(here)]
    )
    assert spec is not None and spec.loader is not None  # the name ends in .py
    package = sys.modules["verify"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return importlib.import_module("verify.command")


if __name__ == "__main__":
    sys.exit(_package().main())
