"""Attention by kernels that never write their scores [L, S] to memory: splash attention on TPUs, cuDNN on GPUs.

`models.attention=fused` asks for it. It computes what `layers.Attention` does, in another order of additions, in full
passes inside a `shard_map`, where every device has songs of its own. Dropout of attention weights and the relative bias
of the anchor stay with XLA, as does decoding.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from gapt_jax.config import ModelsConfig

XLA, SPLASH, CUDNN = "xla", "splash", "cudnn"
FACTORS = (8.0, 2.0)  # their sum is the factor 10 of the products; each leaves a rounded query exact
LANES, MOST_BLOCK = 128, 512  # positions of a block of splash attention: a multiple, the most
CUDNN_POSITIONS, CUDNN_WIDTHS = 8, range(8, 129, 8)
INTERPRETED = False  # tests run splash attention on a CPU


def implementation(config: ModelsConfig, platform: str) -> tuple[str, str]:
    """(what computes attention on devices of a platform, why that is XLA where the settings ask for another)."""
    if config.attention == XLA or platform == "tpu":
        return (XLA if config.attention == XLA else SPLASH), ""
    if platform not in ("gpu", "cuda"):
        return XLA, f"models.attention=fused has no implementation for a {platform.upper()}, XLA computes attention"
    widths = {stack.head_dim for stack in (config.policy, config.anchor, config.reward, config.discriminator)}
    if config.compute_dtype != "bfloat16" or not widths <= {*CUDNN_WIDTHS}:
        needs = "models.compute_dtype=bfloat16 and a head_dim of 8, 16, ... 128"
        return XLA, f"models.attention=fused needs {needs} on a GPU, XLA computes attention"
    return CUDNN, ""


def is_here(kernel: str) -> bool:
    """Whether the kernel can be called where we are: inside a `shard_map`, for no compiler spreads it over devices.

    Not in the gradients of a population: where a `shard_map` within another is vectorised, JAX splits members twice.
    """
    around = jax.sharding.get_abstract_mesh()
    is_split_twice = "population" in around.axis_names and bool(_left_to_compiler(around))
    return kernel != XLA and not around.empty and not is_split_twice


def _left_to_compiler(around: Any) -> list[str]:
    """The axes of a mesh that the `shard_map` around does not handle itself: tensor, which splits heads, or none."""
    return [a for a, kind in zip(around.axis_names, around.axis_types, strict=True) if kind is AxisType.Auto]


def attend(kernel: str, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, causal: bool) -> jax.Array:
    """softmax(10 q k) v over the keys that `mask` [B, S] and `causal` show: [B, H, L, d] float32.

    q [B, H, L, d], k [B, H, d, S] and v [B, H, S, d], as `layers.Attention` makes them.
    """
    if mask is None and not causal:  # filled-up positions must be hidden, which causality does by itself
        mask = jnp.ones((q.shape[0], v.shape[2]), bool)
    compute = functools.partial({SPLASH: _splash, CUDNN: _cudnn}[kernel], causal=causal)
    around = jax.sharding.get_abstract_mesh()
    if left := _left_to_compiler(around):
        even = q.shape[1] % math.prod(around.shape[axis] for axis in left) == 0
        by_head, everywhere = PartitionSpec(None, tuple(left) if even else None), PartitionSpec()
        compute = jax.shard_map(
            compute,
            axis_names=set(left),
            in_specs=(by_head, by_head, by_head, everywhere),
            out_specs=by_head,
            check_vma=False,
        )
    return compute(q, k.swapaxes(-1, -2), v, mask).astype(jnp.float32)


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, causal: bool) -> jax.Array:
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds  # slow

    length = q.shape[2]
    # Heads of 64 so fill the lanes, which are padded otherwise.
    q, k = jnp.concatenate([factor * q for factor in FACTORS], axis=-1), jnp.concatenate([k] * len(FACTORS), axis=-1)
    q, k, v = (_padded(x, 2, LANES) for x in (q, k, v))
    segments = None
    if mask is not None:
        segments = SegmentIds(jnp.ones((len(q), q.shape[2]), jnp.int32), _padded(mask, 1, LANES).astype(jnp.int32))
    return jax.vmap(_kernel(q.shape[1], q.shape[2], k.shape[2], causal))(q, k, v, segments)[:, :, :length]


def _kernel(heads: int, length: int, keys: int, causal: bool) -> Any:
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    one = (splash.CausalMask if causal else splash.FullMask)((length, keys))
    rows, columns = _block(length), _block(keys)
    sizes = splash.BlockSizes(
        block_q=rows,
        block_kv=columns,
        block_q_dkv=rows,
        block_kv_dkv=columns,
        block_q_dq=rows,
        block_kv_dq=columns,
    )
    mask = splash.MultiHeadMask([one] * heads)
    return splash.make_splash_mha_single_device(mask, block_sizes=sizes, interpret=INTERPRETED)


def _block(length: int) -> int:
    """The largest block that divides a padded length."""
    return max(size for size in range(LANES, MOST_BLOCK + 1, LANES) if length % size == 0)


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, causal: bool) -> jax.Array:
    length = q.shape[2]
    q, k, v = (_padded(x, 2, CUDNN_POSITIONS).swapaxes(1, 2) for x in (q, k, v))
    if mask is not None:
        mask = _padded(mask, 1, CUDNN_POSITIONS)[:, None, None, :]
        mask = jnp.broadcast_to(mask, (len(q), 1, q.shape[1], k.shape[1]))
    mixed = jax.nn.dot_product_attention(
        q, k, v, mask=mask, scale=sum(FACTORS), is_causal=causal, implementation="cudnn"
    )
    return mixed.swapaxes(1, 2)[:, :, :length]


def _padded(x: jax.Array, axis: int, multiple: int) -> jax.Array:
    width = np.zeros((x.ndim, 2), int)
    width[axis, 1] = -x.shape[axis] % multiple
    return jnp.pad(x, width)
