"""How long a frame takes: the network in this process, its exported function, its ONNX graph, in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax.config import TransformerConfig
from gapt_jax.export import verify
from gapt_jax.export.functions import state_names
from gapt_jax.export.verify import ONNX, PAST
from gapt_jax.models import Model
from gapt_jax.types import Params
from gapt_jax.vocabulary import SILENCE

ROUNDS, WARM_UP = 40, 5
Take = Callable[[], Any]  # one frame, from heard to logits on the host


def frame_latency(
    folder: Path, network: Model, params: Params, config: TransformerConfig, length: int
) -> dict[str, Any]:
    """Milliseconds of one frame (two tokens, one song), and how often the time of the network: ratios of medians."""
    bundle = verify.load(folder)
    takes = {
        "engine": engine(network, params, length, 1),
        "jax": exported(bundle.function("commit_frame"), bundle.weights, config, length, 1),
    }
    if (folder / ONNX).exists():
        takes["onnx"] = graph(verify.onnx_session(folder), config, length, 1)
    times: dict[str, list[float]] = {name: [] for name in takes}
    for _ in range(ROUNDS):
        for name, take in takes.items():
            start = time.perf_counter()
            take()
            times[name].append(1000 * (time.perf_counter() - start))
    kept = {name: np.array(found[WARM_UP:]) for name, found in times.items()}
    reference = float(np.median(kept["engine"]))
    return {"device": jax.devices()[0].device_kind, "cores": len(os.sched_getaffinity(0))} | {
        name: {
            "p50_ms": float(np.median(found)),
            "p95_ms": float(np.percentile(found, 95)),
            "times_engine": float(np.median(found)) / reference,
        }
        for name, found in kept.items()
    }


def engine(network: Model, params: Params, length: int, batch: int) -> Take:
    """The network as training has it: compiled here, its cache given away and taken back."""

    def decode(params: Params, tokens: jax.Array, cache: Any, position: jax.Array) -> Any:
        return network.method(params, "decode", tokens, cache, position)

    step, on_device = jax.jit(decode, donate_argnums=2), jax.device_put(params)
    cache = jax.tree.map(jnp.array, network.method(params, "empty_cache", batch, length))
    tokens = np.full((batch, 2), SILENCE, np.int32)

    def take() -> Any:
        nonlocal cache
        logits, cache = step(on_device, tokens, cache, np.int32(length // 2))
        return np.asarray(logits)

    return take


def exported(commit_frame: Any, weights: dict[str, Any], config: TransformerConfig, length: int, batch: int) -> Take:
    """The exported function, its state given away and taken back."""
    on_device = jax.device_put(weights)
    state = {name: jnp.array(array) for name, array in _state(config, length, batch).items()}
    token = np.full(batch, SILENCE, np.int32)

    def take() -> Any:
        nonlocal state
        found = state | {"position": np.int32(length // 2)}
        logits, found = commit_frame(on_device, token, token, found)
        state = verify.past(found)
        return np.asarray(logits)

    return take


def graph(session: Any, config: TransformerConfig, length: int, batch: int) -> Take:
    """The ONNX graph."""
    state = _state(config, length, batch) | {"position": np.array([length // 2], np.int32)}
    tokens = np.full((batch, 2), SILENCE, np.int32)
    return lambda: verify.onnx_commit(session, tokens, state)[0]


def _state(config: TransformerConfig, length: int, batch: int) -> dict[str, Any]:
    shapes = [
        (batch, config.heads, config.head_dim, length),
        (batch, config.heads, length, config.head_dim),
    ] * config.depth
    names = state_names(config.depth, PAST)
    return {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
