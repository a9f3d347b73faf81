"""The ceilings of this machine: its fastest matrix product, and how fast memory is read and written back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax.benchmark.measure import Ceilings, Run, in_turns
from gapt_jax.config import Dtype
from gapt_jax.runtime import native
from gapt_jax.runtime.devices import cores
from gapt_jax.runtime.files import git_revision

COPIED = 2**29  # bytes of the array that is read and written: far beyond any cache
# Sides of square matrices, and how many products or passes are dispatched before one waits for them: an accelerator
# ends one sooner than the host starts the next.
ON_CPU, ON_ACCELERATOR = ((512, 1024, 2048), 2), ((4096, 8192, 16384), 16)


def is_cpu() -> bool:
    return jax.default_backend() == "cpu"


def dtype_used() -> Dtype:
    """The compute dtype of everything that is measured."""
    return "float32" if is_cpu() else "bfloat16"


def has_kernel() -> bool:
    """Whether rollouts decode by the compiled kernel here."""
    return is_cpu() and not native.load()


def machine() -> dict[str, Any]:
    """Where the figures come from. All of them are those of the first device."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": cores(),
        "dtype": dtype_used(),
        "rollout": "compiled kernel" if has_kernel() else "XLA",
        "jax": jax.__version__,
        "git_revision": git_revision(),
    }


def measure(
    repeats: int, sides: tuple[int, ...] | None = None, passes: int | None = None, copied: int = COPIED
) -> Ceilings:
    """The best of `repeats` runs of each, in turns, over several sizes of matrices."""
    usual_sides, usual_passes = ON_CPU if is_cpu() else ON_ACCELERATOR
    sides, passes = sides or usual_sides, passes or usual_passes
    runs = {f"matmul {side}": _matmuls(side, passes) for side in sides} | {"copy": _rewrites(copied, passes)}
    best = {name: min(seconds) / passes for name, seconds in in_turns(runs, repeats).items()}
    flops = max(2.0 * side**3 / best[f"matmul {side}"] for side in sides)
    return Ceilings(flops=flops, bandwidth=2.0 * copied / best["copy"])


def _matmuls(side: int, passes: int) -> Run:
    """x W W W ..., W of unit gain: the values stay as large as they are."""
    keys, dtype = jax.random.split(jax.random.key(0)), jnp.dtype(dtype_used())
    x, w = (jax.random.normal(key, (side, side)).astype(dtype) for key in keys)
    w = w / side**0.5
    product = jax.jit(jnp.dot)

    def run() -> jax.Array:
        y = x
        for _ in range(passes):
            y = product(y, w)
        return y

    return run


def _rewrites(size: int, passes: int) -> Run:
    """In place: a CPU would read other memory before it writes there, a third transfer that no count knows of."""
    x = jnp.zeros(size // 4, jnp.float32)
    rewrite = jax.jit(lambda x: x + 1, donate_argnums=0)

    def run() -> jax.Array:
        nonlocal x
        for _ in range(passes):
            x = rewrite(x)
        return x

    return run
