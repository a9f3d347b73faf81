"""Experiments, one function each, and the only place that loads one by its name."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from gapt_jax.config import Experiment
from gapt_jax.errors import UserError
from gapt_jax.settings import did_you_mean


def load(name: str) -> Experiment:
    """The experiment `name` of this package, ``module:function`` of it, or ``path/to/file.py:function``."""
    path, _, function = name.rpartition(":")
    if name.endswith(".py"):
        raise UserError(f"{name} is a file: name the function in it as well, as in {name}:my_experiment")
    if path.endswith(".py"):
        module = _module_from_file(Path(path))
    else:
        path = path or name
        module = _named_module(path)
    make = getattr(module, function, None)
    if not callable(make):
        raise UserError(f"{path} has no function {function}(): an experiment is a function without arguments")
    experiment = _of_user(str(module.__file__), make)
    if not isinstance(experiment, Experiment):
        raise UserError(f"{function}() in {path} returns {type(experiment).__name__}, not an Experiment")
    return experiment


def names() -> list[str]:
    """Modules of this package that hold a function of their own name."""
    files = sorted(path for folder in __path__ for path in Path(folder).glob("*.py"))
    return [path.stem for path in files if f"\ndef {path.stem}(" in path.read_text(encoding="utf-8")]


def _named_module(name: str) -> ModuleType:
    known = names()
    if name not in known:
        raise UserError(
            f"there is no experiment '{name}'{did_you_mean(name, known)} "
            f"(experiments: {', '.join(known) or 'none'}; or path/to/file.py:function)"
        )
    module = importlib.util.find_spec(f"{__name__}.{name}")
    return _of_user(str(module and module.origin), lambda: importlib.import_module(f"{__name__}.{name}"))


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
