"""The decoding kernel, compiled once for this machine by the C++ compiler that is there; without one, JAX decodes.

The library lies in ``~/.cache/gapt-jax/native``, under the hash of its source, the compiler, the processor and JAX.
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

SOURCE = Path(__file__).with_name("decode.cc")
SWITCH = "GAPT_NATIVE"  # 0 in this variable of the environment does without the kernel
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-w")
COMPILE_SECONDS = 120


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
    compiler = shlex.split(named) if named else [*found][:1]
    if not compiler:
        raise Absent("no C++ compiler on PATH (c++, g++ or clang++, or one named by CXX)")
    version = subprocess.run([*compiler, "--version"], capture_output=True).stdout
    command = [*compiler, *FLAGS, "-isystem", jax.ffi.include_dir(), str(SOURCE)]
    facts = SOURCE.read_bytes(), shlex.join(command).encode(), version, jaxlib.__version__.encode(), _processor()
    digest = hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]
    target = Path.home() / ".cache" / "gapt-jax" / "native" / f"decode-{digest}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            try:
                subprocess.run([*command, "-o", str(made)], check=True, capture_output=True, timeout=COMPILE_SECONDS)
            except subprocess.CalledProcessError as error:
                first = error.stderr.decode(errors="replace").strip().partition("\n")[0]
                raise Absent(f"{compiler[0]} cannot compile {SOURCE.name}: {first}") from None
            except subprocess.TimeoutExpired:
                raise Absent(f"{compiler[0]} took longer than {COMPILE_SECONDS} s over {SOURCE.name}") from None
            made.replace(target)
    return target


def _processor() -> bytes:
    """What ``-march=native`` depends on: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(dict.fromkeys(line for line in lines if line.startswith((b"model name", b"flags", b"Features"))))
