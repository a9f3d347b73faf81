"""The decoding kernel, compiled once for this machine by the C++ compiler that is there; without one, JAX decodes.

The library lies in ``~/.cache/gapt-jax/native``, under the hash of its source, the compiler, the processor and JAX. A
library or a folder above it that another user owns or can write is not used.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

from gapt_jax.models import kernel
from gapt_jax.runtime import trust

SOURCE = Path(__file__).with_name("decode.cc")
SWITCH = "GAPT_NATIVE"  # 0 in this variable of the environment does without the kernel
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
COMPILE_SECONDS, VERSION_SECONDS = 120, 20


class Absent(Exception):
    """Why there is no kernel."""


@functools.cache
def load() -> str:
    """Compiles the kernel where that has not been done yet, and tells JAX about it.

    Returns "" or why it is not there; asks once in a process.
    """
    try:
        if os.environ.get(SWITCH) == "0":
            raise Absent(f"switched off by {SWITCH}=0")
        library = ctypes.CDLL(str(compiled()))
        kernel.register(jax.ffi.pycapsule(getattr(library, kernel.TARGET)))
    except (Absent, OSError, AttributeError, RuntimeError) as reason:  # RuntimeError: there is no home
        return str(reason)
    return ""


def compiled() -> Path:
    """The library, made now where it is not there yet. Raises Absent where that cannot be."""
    named = os.environ.get("CXX")
    found = filter(None, map(shutil.which, ("c++", "g++", "clang++")))
    try:
        compiler = shlex.split(named) if named else [*found][:1]
    except ValueError as error:
        raise Absent(f"CXX={named} is no command ({error})") from None
    if not compiler:
        raise Absent("no C++ compiler on PATH (c++, g++ or clang++, or one named by CXX)")
    version = _run([*compiler, "--version"], VERSION_SECONDS, "its version").stdout
    command = [*compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE)]
    facts = SOURCE.read_bytes(), shlex.join(command).encode(), version, jaxlib.__version__.encode(), _processor()
    digest = hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]
    cache = trust.private_folder(Path.home() / ".cache" / "gapt-jax" / "native")
    _check_private(cache)
    target = cache / f"decode-{digest}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / target.name
            done = _run([*command, "-o", str(made)], COMPILE_SECONDS, SOURCE.name)
            if done.returncode:
                first = done.stderr.decode(errors="replace").strip().partition("\n")[0]
                raise Absent(f"{compiler[0]} cannot compile {SOURCE.name}: {first}")
            made.chmod(0o700)
            made.replace(target)
    _check_private(target)
    return target


def _check_private(path: Path) -> None:
    """A library that others could have put there is not loaded."""
    fault = trust.fault_of(path)
    if fault:
        raise Absent(f"{path} {fault}; remove {path} or let only yourself write there")


def _run(command: list[str], seconds: int, over: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Absent(f"{command[0]} took longer than {seconds} s over {over}") from None


def _processor() -> bytes:
    """What ``-march=native`` depends on: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(dict.fromkeys(line for line in lines if line.startswith((b"model name", b"flags", b"Features"))))
