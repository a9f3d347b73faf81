"""Sets JAX up for every command that computes."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
from jax._src import hardware_utils  # no public way to ask for TPU chips without starting their runtime
from jax.experimental.compilation_cache import compilation_cache

from gapt_jax.runtime import trust

# With libtpu installed (for `gapt plan`) but no TPU, libtpu looks for its host, waits, complains on stderr, and lets
# one process in at a time.
LIBTPU_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # any
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


# Each core a device of its own, on one thread: the small networks that one trains on a CPU are fastest so.
CORES_AS_DEVICES = "--xla_force_host_platform_device_count={count} --xla_cpu_multi_thread_eigen=false"
# XLA ends the process when a device comes a minute late to an addition over all devices: other programs may keep a core
# for longer, and a laptop may sleep for a weekend. Here a real hang is noticed by `runtime.hang_minutes`.
PATIENCE = {
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds": 600,
    "--xla_cpu_collective_call_terminate_timeout_seconds": 7 * 24 * 3600,
}
MOST_CORES = 8  # as devices: beyond, a minibatch of `small` has less than two songs for each


def cores() -> int:
    """How many this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def patient(flags: str) -> str:
    """XLA_FLAGS with the time-outs of `PATIENCE` where they say nothing of them."""
    return " ".join([flags, *(f"{name}={value}" for name, value in PATIENCE.items() if name not in flags)]).strip()


def set_up(most_cores: int = MOST_CORES) -> None:
    """Keeps compiled programs in ``JAX_COMPILATION_CACHE_DIR`` or ``~/.cache/gapt-jax/xla``; quiets an absent TPU.

    At most so many CPU cores become devices, unless XLA_FLAGS say how many there are.
    """
    gc.set_threshold(100_000, 50, 100)  # tracing makes millions of small objects: a second less until the first step
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        flags = f"{flags} {CORES_AS_DEVICES.format(count=min(most_cores, cores()))}"
    os.environ["XLA_FLAGS"] = patient(flags.strip())
    _keep_programs(os.environ.get("JAX_COMPILATION_CACHE_DIR"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many small programs add up
    if hardware_utils.num_available_tpu_chips_and_device_id()[0] == 0:
        for variable, value in LIBTPU_WITHOUT_TPU.items():
            os.environ.setdefault(variable, value)


@functools.cache
def _keep_programs(named: str | None) -> None:
    """Programs are code: our own folder is used only if nobody else can write it, one that the user names with a
    warning."""
    try:
        folder = Path(named) if named else trust.private_folder(Path.home() / ".cache" / "gapt-jax" / "xla")
        fault = trust.fault_of(folder) if folder.exists() else ""  # it may be the address of a bucket
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        fault = f"cannot be made or looked at ({error})"
        folder = Path(named or "~/.cache/gapt-jax/xla")
    if fault:
        what = "is used all the same, as JAX_COMPILATION_CACHE_DIR says" if named else "compiled programs are not kept"
        print(f"warning: {folder} {fault}; {what}", file=sys.stderr)
    elif not named:
        jax.config.update("jax_compilation_cache_dir", str(folder))


@contextlib.contextmanager
def compiling_anew() -> Iterator[None]:
    """Without the persistent cache: every program is compiled here and now."""
    before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
