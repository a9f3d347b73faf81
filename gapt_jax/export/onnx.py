"""The function `commit_frame` as an ONNX graph with its weights inside (extra ``onnx``)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from gapt_jax.config import TransformerConfig
from gapt_jax.errors import UserError
from gapt_jax.export.functions import state_names
from gapt_jax.export.verify import PAST, PRESENT
from gapt_jax.models import Model
from gapt_jax.types import Params

PACKAGES = ("jax2onnx", "onnx", "onnxruntime")
MISSING = (
    "ONNX needs packages that want an older Orbax than this environment's: 'make onnx' makes .venv-onnx for them, "
    "whose gapt exports with ONNX"
)


def is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in PACKAGES)


def write(path: Path, policy: Model, params: Params, config: TransformerConfig, length: int) -> None:
    """Writes the graph: ``tokens`` [B, 2] int32 (chord, note), ``position`` [1] int32, the caches ->
    ``logits`` [B, V], the caches. The caller adds 2 to the position."""
    try:
        import jax2onnx
        import onnx
    except ImportError as error:
        raise UserError(f"{MISSING}; or give --no-onnx (here: {error})") from error

    def commit_frame(tokens: jax.Array, position: jax.Array, *state: jax.Array) -> Any:
        arrays = iter(state)
        cache = list(zip(arrays, arrays, strict=True))
        logits, cache = policy.method(params, "decode", tokens, cache, position[0])
        return logits, *(array for pair in cache for array in pair)

    (batch,) = jax.export.symbolic_shape("B")
    shapes = [
        (batch, config.heads, config.head_dim, length),
        (batch, config.heads, length, config.head_dim),
    ] * config.depth
    inputs = [jax.ShapeDtypeStruct((batch, 2), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)]
    inputs += [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    with _quietly():
        graph = jax2onnx.to_onnx(
            commit_frame,
            inputs,
            input_names=["tokens", "position", *state_names(config.depth, PAST)],
            output_names=["logits", *state_names(config.depth, PRESENT)],
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, str(path))


@contextlib.contextmanager
def _quietly() -> Any:
    """The converter reports on stdout and by warnings what only its authors can use."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
