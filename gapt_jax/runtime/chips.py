"""What each accelerator can do at most: the ceilings of the roofline in `launch.plan`, and of the MFU of a run.

Sources, read November 2026: the tables of key specifications of docs.cloud.google.com/tpu/docs, pages v4, v5e, v5p, v6e
and tpu7x; NVIDIA's data sheet of the H100 SXM, dense. The TPU pages give ICI as the sum of both directions; here it is
one direction, for a chip sends and receives at once (v4 has no such line: all-reduce bandwidth of the pod over its
chips). DCN is the share of a chip in the network cards of its host: stated for v5p and tpu7x, for v6e on the page of
tpu7x, for v5e as 2 × 100 Gbit/s per 8 chips; assumed for v4, as for v5p, and for H100, one 400 Gbit/s card per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """Ceilings of one JAX device."""

    name: str
    flops: float  # FLOP/s of bfloat16 matmuls. On TPU float32 ones run as one such pass too (HIGH 3, HIGHEST 6)
    hbm_bytes: float
    hbm_bandwidth: float  # bytes/s
    ici_bandwidth: float  # bytes/s out of the chip, all links together (H100: NVLink)
    dcn_bandwidth: float  # bytes/s out of the chip


V4 = Chip("v4", 275e12, 32 * 2**30, 1200e9, 1.1e15 / 4096, 50e9 / 8)
V5E = Chip("v5e", 197e12, 16 * 2**30, 819e9, 200e9, 25e9 / 8)
V5P = Chip("v5p", 459e12, 95 * 2**30, 2765e9, 600e9, 50e9 / 8)
V6E = Chip("v6e", 918e12, 32 * 2**30, 1638e9, 400e9, 100e9 / 8)
# A JAX device is one of the two TensorCores, with half of everything; v4 and v5p join their two into one device.
TPU7X = Chip("tpu7x", 2307e12 / 2, 192 * 2**30 / 2, 7380e9 / 2, 600e9 / 2, 100e9 / 8 / 2)
H100 = Chip("h100", 989e12, 80e9, 3350e9, 450e9, 400e9 / 8)

BY_DEVICE_KIND = {  # as `jax.Device.device_kind` names them
    "TPU v4": V4,
    "TPU v5 lite": V5E,
    "TPU v5": V5P,
    "TPU v6 lite": V6E,
    "TPU7x": TPU7X,
    "NVIDIA H100 80GB HBM3": H100,
}
