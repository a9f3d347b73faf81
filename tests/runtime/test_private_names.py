"""Private names of JAX and Orbax that are used: one that is gone, or means something else, is named here first."""

import ast
import functools
import importlib
import inspect
from pathlib import Path

import jax
import orbax.checkpoint as ocp
import pytest

ROOT = Path(__file__).parents[2]
USED = {
    "clusters.ClusterEnv.auto_detect_unset_distributed_params": "gapt_jax/runtime/hosts.py",
    "distributed.global_state.client": "gapt_jax/runtime/hosts.py",
    "distributed.global_state.preemption_sync_manager": "gapt_jax/runtime/hosts.py",
    "hardware_utils.num_available_tpu_chips_and_device_id": "gapt_jax/runtime/devices.py",
    "xla_bridge.backends_are_initialized": "gapt_jax/runtime/hosts.py",
}


def private(name: str):
    """What ``jax._src.<name>`` is."""
    module, *path = name.split(".")
    return functools.reduce(getattr, path, importlib.import_module(f"jax._src.{module}"))


def private_names(code: str) -> set[str]:
    """Names below ``jax._src`` that a module reads, such as ``clusters.ClusterEnv``."""
    tree = ast.parse(code)
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "jax._src" in str(node.module)]
    modules = {alias.name for node in imported for alias in node.names}
    read = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read = {name for name in read if name.partition(".")[0] in modules or "jax._src" in name}
    return {name for name in read if not any(other.startswith(f"{name}.") for other in read)}


def test_no_other_private_names_are_used():
    found = {}
    for folder in ("gapt_jax", "data_pipeline", "experiments", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in private_names(path.read_text(encoding="utf-8")):
                found[name] = path.relative_to(ROOT).as_posix()
    assert found == USED


def test_private_names_are_found():
    code = "import jax\nfrom jax._src import a, b\na.b.c()\nx.y\nb.d\njax._src.e.f\n"
    assert private_names(code) == {"a.b.c", "b.d", "jax._src.e.f"}


@pytest.mark.parametrize("name", USED)
def test_the_name_is_there(name):
    try:
        private(name)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"JAX {jax.__version__} has no jax._src.{name} any more, which {USED[name]} uses: {error}")


def test_chips_are_counted_without_their_runtime():
    count, device = private("hardware_utils.num_available_tpu_chips_and_device_id")()
    assert isinstance(count, int) and (device is None or isinstance(device, str))


def test_backends_tell_whether_they_are_there():
    jax.devices()
    assert private("xla_bridge.backends_are_initialized")() is True


@pytest.mark.parametrize("name", ["client", "preemption_sync_manager"])
def test_the_state_of_the_processes_is_there(name):
    assert private(f"distributed.global_state.{name}") is None  # no processes were joined here


def test_the_cluster_is_detected_from_what_is_not_given():
    """(coordinator, processes, process, local devices, ...), None where no cluster is found."""
    detect = private("clusters.ClusterEnv.auto_detect_unset_distributed_params")
    given = list(inspect.signature(detect).parameters)
    assert given[:3] == ["coordinator_address", "num_processes", "process_id"] and len(given) == 6
    assert detect("host:1", 2, 1, None, "deactivate", 1)[:3] == ("host:1", 2, 1)


def test_orbax_keeps_how_the_items_of_a_step_are_finished(tmp_path):
    """`runtime.checkpoint` sets it, since Orbax 0.11 does not pass it on."""
    with ocp.CheckpointManager(tmp_path) as manager:
        assert hasattr(manager._checkpointer.handler, "_temporary_path_class")
