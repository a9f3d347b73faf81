"""What every command that computes sets up first."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs, in ``JAX_COMPILATION_CACHE_DIR`` or ``~/.cache/gapt-jax/xla``."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "gapt-jax" / "xla"))
