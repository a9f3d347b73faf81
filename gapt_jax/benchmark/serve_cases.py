"""What serving is measured by: a frame of so many songs at once, by the network, its exported function and ONNX."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from gapt_jax import models
from gapt_jax.benchmark.cases import Size
from gapt_jax.benchmark.measure import Case
from gapt_jax.config import TransformerConfig
from gapt_jax.export import latency, onnx, verify
from gapt_jax.export.functions import Functions, exported, flatten
from gapt_jax.models import Model
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.types import Params

BATCHES = (1, 8, 64)


def serve_cases(size: Size) -> Iterator[Case]:
    """Rows by batch and by what computes; weights are random."""
    config = size.experiment.models.policy
    in_float32 = dataclasses.replace(size.experiment.models, compute_dtype="float32")
    network = models.build(in_float32, size.vocabulary.size).policy
    length = 1 + 2 * size.frames
    params = jax.device_get(network.init(jax.random.key(0)))
    weights = {name: np.asarray(array) for name, array in flatten(params).items()}
    functions = Functions(network, Accompaniment(size.vocabulary), config.depth, length)
    signatures = functions.signatures(weights, config.heads, config.head_dim, size.vocabulary.size)
    content = exported(*signatures["commit_frame"])
    commit = jax.jit(export.deserialize(bytearray(content)).call, donate_argnums=3)
    session = _session(network, params, config, length) if onnx.is_installed() else None
    for batch in BATCHES:
        takes = {
            "engine": latency.engine(network, params, length, batch),
            "jax": latency.exported(commit, weights, config, length, batch),
        }
        if session:
            takes["onnx"] = latency.graph(session, config, length, batch)
        for name, take in takes.items():
            yield Case(f"serve/{size.name}/{name}/batch={batch}", take, (), batch, "one frame")


def _session(network: Model, params: Params, config: TransformerConfig, length: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / verify.ONNX
        onnx.write(path, network, params, config, length)
        return verify.onnx_session(Path(folder))
