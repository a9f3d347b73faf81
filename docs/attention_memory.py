"""Compiles attention of published size for a TPU that need not be there, by XLA and fused.

python docs/attention_memory.py v5e:2x2 [SONGS]     (songs of a device, 8 if not given)

Prints one JSON object. For the gradient of one layer of a policy (512 positions, causal) and the pass of one layer of a
reward model (517 positions, padding hidden), in bfloat16 and from queries, keys and values on: the temporaries that the
compiler reports, and HBM traffic and FLOPs as `gapt plan` counts them, all of a device.
"""

import json
import sys
from importlib import metadata
from typing import Any

import jax

jax.config.update("jax_platforms", "cpu")  # with libtpu installed, JAX would look for a TPU first

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402

from gapt_jax.config import MeshConfig, TransformerConfig  # noqa: E402
from gapt_jax.launch import plan  # noqa: E402
from gapt_jax.models import fused  # noqa: E402
from gapt_jax.models.layers import Attention  # noqa: E402
from gapt_jax.runtime import cost, mesh  # noqa: E402
from gapt_jax.runtime.devices import compiling_anew  # noqa: E402
from gapt_jax.runtime.files import git_revision  # noqa: E402

SIZES = TransformerConfig(dropout=0.0)
CASES = {"policy": (512, True), "reward": (517, False)}  # positions, whether causal and with its gradient


class Alone(Attention):
    """Attention without its last product."""

    def projected(self, mixed: jax.Array) -> jax.Array:
        return mixed


def attend(kernel: str, is_causal: bool, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """As a `Stack` does it."""
    if kernel != fused.XLA:
        return fused.attend(kernel, q, k, v, None if is_causal else mask, causal=is_causal)
    attention = Alone(SIZES, rotary=False, dtype=q.dtype, rngs=nnx.Rngs(0))
    if not is_causal:
        return attention.attend(q, k, v, bias=jnp.where(mask, 0.0, -1e30)[:, None, None])
    places = jnp.arange(q.shape[2])
    return attention.attend_causally(q, k, v, bias=jnp.where(places[:, None] < places, -1e30, 0.0)[None, None])


def measure(topology: str, songs: int, case: str, kernel: str) -> dict[str, float]:
    """Bytes and FLOPs of one program, on a device."""
    (length, is_causal), devices = CASES[case], mesh.build(MeshConfig(), plan.devices_of(topology, 1))

    def local(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> Any:
        if not is_causal:
            return attend(kernel, is_causal, q, k, v, mask)
        weigh = jnp.cos(jnp.arange(length))[:, None]
        return jax.grad(lambda *x: jnp.sum(weigh * attend(kernel, is_causal, *x, mask)), argnums=(0, 1, 2))(q, k, v)

    by_song, names = NamedSharding(devices, mesh.BY_SONG), set(devices.axis_names) - {"tensor"}
    spread = jax.shard_map(
        local, mesh=devices, axis_names=names, in_specs=mesh.BY_SONG, out_specs=mesh.BY_SONG, check_vma=False
    )
    whole = (songs * devices.size, SIZES.heads)
    q, k = (*whole, length, SIZES.head_dim), (*whole, SIZES.head_dim, length)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=by_song) for shape in (q, k, q)]
    mask = jax.ShapeDtypeStruct((whole[0], length), bool, sharding=by_song)
    traced = jax.jit(spread).trace(*arrays, mask)
    with compiling_anew():
        memory = traced.lower().compile().memory_analysis()
    work = cost.of(traced.jaxpr)
    return {"temporary_bytes": memory.temp_size_in_bytes, "hbm_bytes": work.bytes, "flops": work.flops}


def main(topology: str, songs: int = 8) -> None:
    kernels = {"xla": fused.XLA, "fused": fused.SPLASH}
    found = {case: {name: measure(topology, songs, case, k) for name, k in kernels.items()} for case in CASES}
    versions = {name: metadata.version(name) for name in ("jax", "libtpu")}
    source = {"topology": topology, "songs": songs, "git_revision": git_revision(), "versions": versions}
    print(json.dumps(source | {"cases": found}, indent=1))


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], *map(int, sys.argv[2:]))
