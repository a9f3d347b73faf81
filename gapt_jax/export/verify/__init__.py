"""Reads and proves a serving bundle: ``python verify DIR``, with this folder, needs NumPy and JAX alone.
With ``--try`` it only runs every function once, which is what a server wants to know before it does so itself.

No code of a bundle runs but its exported functions. Hashes tell damage, not who made a bundle: take yours from people
whom you trust. Imports in this folder are relative, since it also works as a copy outside gapt_jax.
"""

from .checks import MAX_DRIFT, verify
from .files import (
    GOLDEN,
    MANIFEST,
    SCHEMA,
    START,
    SUMS,
    WEIGHTS,
    Refused,
    check_files,
    read,
    read_json,
    read_safetensors,
)
from .playing import (
    FUNCTIONS,
    ONNX,
    PAST,
    PRESENT,
    STATE_ARGUMENT,
    Bundle,
    load,
    onnx_commit,
    onnx_session,
    past,
    shaped,
)

__all__ = [
    "FUNCTIONS",
    "GOLDEN",
    "MANIFEST",
    "MAX_DRIFT",
    "ONNX",
    "PAST",
    "PRESENT",
    "SCHEMA",
    "START",
    "STATE_ARGUMENT",
    "SUMS",
    "WEIGHTS",
    "Bundle",
    "Refused",
    "check_files",
    "load",
    "onnx_commit",
    "onnx_session",
    "past",
    "read",
    "read_json",
    "read_safetensors",
    "shaped",
    "verify",
]
