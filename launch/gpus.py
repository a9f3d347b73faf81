"""GPUs to compile for that need not be there: XLA's CUDA plugin takes a description in place of a device."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from gapt_jax.errors import UserError
from gapt_jax.launch.topology import Slice

PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
# Without a GPU no kernel can be timed, and the Triton products that XLA then picks do not always compile: cuBLAS.
FLAGS = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"

# As openxla/xla has it in xla/tools/hlo_opt/gpu_specs, read November 2026.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_DESCRIPTIONS = {"h100": _H100}


def devices(wanted: Slice) -> Sequence[Any]:
    """Those of one machine. Raises UserError for others, and where the compiler is not installed."""
    name = wanted.generation.name
    if name not in _DESCRIPTIONS:
        raise UserError(f"gapt plan does not know the {name}: of GPUs it compiles for {', '.join(_DESCRIPTIONS)}")
    if wanted.vms > 1:
        raise UserError(f"gapt plan compiles for GPUs of one machine, at most {name}-{wanted.chips_per_vm}")
    if not any(map(is_installed, PLUGINS)):
        raise UserError("gapt plan needs the GPU compiler, but no GPU: pip install 'jax[cuda12]'")
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"  # it asks the driver, which a machine without GPUs lacks
    os.environ["XLA_FLAGS"] = f"{FLAGS} {os.environ.get('XLA_FLAGS', '')}"  # read when the plugin is loaded, below
    from jax.experimental import topologies  # slow

    shape = f"1x1x{wanted.chips}"  # slices, machines, devices of each
    return topologies.get_topology_desc(platform="cuda", target_config=_DESCRIPTIONS[name], topology=shape).devices


def is_installed(module: str) -> bool:
    """Whether it can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # there are no plugins at all
        return False
