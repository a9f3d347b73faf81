import os
import subprocess
import sys

import pytest

from gapt_jax.runtime import devices


@pytest.mark.parametrize(("most", "count"), [(3, 3), (99, 4)])
def test_cores_become_devices(most, count, monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1")
    devices.set_up(most)
    assert os.environ["XLA_FLAGS"].split()[:2] == ["--xla_a=1", f"--xla_force_host_platform_device_count={count}"]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    devices.set_up()
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[0] == "--xla_force_host_platform_device_count=1" and not any("eigen" in flag for flag in flags)


def test_time_outs_of_the_user_stay(monkeypatch):
    asked = "--xla_cpu_collective_call_terminate_timeout_seconds=5"
    monkeypatch.setenv("XLA_FLAGS", asked)
    devices.set_up()
    flags = os.environ["XLA_FLAGS"].split()
    assert [flag for flag in flags if "terminate" in flag] == [asked]
    assert "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600" in flags


LATE = """
import time
from gapt_jax.runtime import devices
devices.set_up()
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P

def wait(i):
    time.sleep({seconds} if i == 0 else 0)
    return np.float32(1)

def own(x):
    late = jax.pure_callback(wait, jax.ShapeDtypeStruct((), np.float32), jax.lax.axis_index("x"))
    return jax.lax.psum(x + late, "x")

mesh = jax.sharding.Mesh(np.array(jax.devices()), ("x",))
add = jax.jit(jax.shard_map(own, mesh=mesh, in_specs=P("x"), out_specs=P(), check_vma=False))
print("sum", add(jnp.zeros(2))[0])
"""


def late(seconds: int, flags: str) -> subprocess.CompletedProcess[str]:
    """A program whose first device comes so many seconds late to an addition over two."""
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count=2 {flags}"}
    command = [sys.executable, "-c", LATE.format(seconds=seconds)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_device_may_come_late():
    """Later than the minute after which XLA ends a process by default."""
    found = late(70, "")
    assert found.returncode == 0 and "sum 2.0" in found.stdout, found.stderr
    assert "stuck" not in found.stderr and "timeout" not in found.stderr.lower()


def test_the_time_out_is_what_ends_a_late_program():
    """Without patience the same program dies, so that the test above can fail."""
    impatient = (
        "--xla_cpu_collective_call_terminate_timeout_seconds=2 --xla_cpu_collective_call_warn_stuck_timeout_seconds=1"
    )
    assert late(8, impatient).returncode < 0
