"""Private names of JAX that are used: one that is gone, or means something else, is named here first."""

import ast
import inspect
from pathlib import Path

import jax
import pytest
from jax._src import clusters, distributed, hardware_utils, xla_bridge

ROOT = Path(__file__).parents[2]
USED = {
    "gapt_jax/runtime/devices.py": {"hardware_utils"},
    "gapt_jax/runtime/hosts.py": {"clusters", "distributed", "xla_bridge"},
}


def test_no_other_private_modules_are_used():
    found: dict[str, set[str]] = {}
    for folder in ("gapt_jax", "data_pipeline", "experiments", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jax._src"):
                    names = {alias.name for alias in node.names}
                    found.setdefault(path.relative_to(ROOT).as_posix(), set()).update(names)
    assert found == USED


def test_chips_are_counted_without_their_runtime():
    count, device = hardware_utils.num_available_tpu_chips_and_device_id()
    assert isinstance(count, int) and (device is None or isinstance(device, str))


def test_backends_tell_whether_they_are_there():
    jax.devices()
    assert xla_bridge.backends_are_initialized() is True


@pytest.mark.parametrize("name", ["client", "preemption_sync_manager"])
def test_the_state_of_the_processes_is_there(name):
    assert getattr(distributed.global_state, name) is None  # no processes were joined here


def test_the_cluster_is_detected_from_what_is_not_given():
    """(coordinator, processes, process, local devices, ...), None where no cluster is found."""
    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    given = list(inspect.signature(detect).parameters)
    assert given[:3] == ["coordinator_address", "num_processes", "process_id"] and len(given) == 6
    assert detect("host:1", 2, 1, None, "deactivate", 1)[:3] == ("host:1", 2, 1)
