import os

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
    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=1"
