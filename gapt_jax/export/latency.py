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

from gapt_jax.export import verify
from gapt_jax.export.verify import ONNX
from gapt_jax.models import Model
from gapt_jax.types import Params
from gapt_jax.vocabulary import SILENCE

ROUNDS, WARM_UP = 40, 5


def frame_latency(folder: Path, network: Model, params: Params, length: int) -> dict[str, Any]:
    """Milliseconds of one frame (two tokens, one song), and how often the time of the network: ratios of medians."""
    takes: dict[str, Callable[[], None]] = {"engine": _engine(network, params, length)}
    bundle = verify.load(folder)
    takes["jax"] = _exported(bundle)
    if (folder / ONNX).exists():
        takes["onnx"] = _onnx(bundle)
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


def _engine(network: Model, params: Params, length: int) -> Callable[[], None]:
    def decode(params: Params, tokens: jax.Array, cache: Any, position: jax.Array) -> Any:
        return network.method(params, "decode", tokens, cache, position)

    step = jax.jit(decode, donate_argnums=2)
    held = {"cache": jax.tree.map(jnp.array, network.method(params, "empty_cache", 1, length))}
    on_device = jax.device_put(params)
    tokens, position = jnp.array([[SILENCE, SILENCE]], jnp.int32), jnp.int32(length // 2)

    def take() -> None:
        logits, held["cache"] = step(on_device, tokens, held["cache"], position)
        np.asarray(logits)

    return take


def _exported(bundle: verify.Bundle) -> Callable[[], None]:
    weights, commit = jax.device_put(bundle.weights), bundle.function("commit_frame")
    _, state = bundle.start()
    held = {"state": state}
    token, position = jnp.array([SILENCE], jnp.int32), np.int32(bundle.manifest["length"] // 2)

    def take() -> None:
        logits, state = commit(weights, token, token, held["state"])
        np.asarray(logits)
        held["state"] = verify.past(state) | {"position": position}

    return take


def _onnx(bundle: verify.Bundle) -> Callable[[], None]:
    session = verify.onnx_session(bundle.folder)
    _, state = verify.onnx_start(bundle, 1)
    state["position"] = np.array([bundle.manifest["length"] // 2], np.int32)
    tokens = np.array([[SILENCE, SILENCE]], np.int32)

    def take() -> None:
        verify.onnx_commit(session, tokens, state)

    return take
