"""Bundles of small random policies, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from gapt_jax.export import bundle
from gapt_jax.runtime.console import Console
from tests.export.bundles import random_policy


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The bundle of a random policy, not to be changed."""
    folder, known = tmp_path_factory.mktemp("bundles"), {}

    def make(seed: int = 0, dtype: str = "float32", with_onnx: bool = False) -> Path:
        key = seed, dtype, with_onnx
        if key not in known:
            out = folder / f"{seed}-{dtype}-{with_onnx}"
            bundle.write(random_policy(seed), out, Console(json_mode=False), dtype=dtype, with_onnx=with_onnx)
            known[key] = out
        return known[key]

    yield make
    jax.clear_caches()


@pytest.fixture
def copied(made: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle to be damaged."""
    return Path(shutil.copytree(made(), tmp_path / "bundle"))
