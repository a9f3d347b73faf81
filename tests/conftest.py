"""Eight CPU devices for every test; must be set before jax is imported."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("NPROC", "16")  # 2 cores and 8 devices otherwise abort in collectives (JAX 0.10)
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with libtpu installed, JAX would look for a TPU
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()

import jax  # noqa: E402
import pytest  # noqa: E402

from gapt_jax.runtime import devices  # noqa: E402

os.environ["XLA_FLAGS"] = devices.patient(os.environ["XLA_FLAGS"])  # JAX reads it when it first looks for devices

pytest_plugins = ["tests.workers"]
DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not DATA.is_dir():
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason=f"the real songs are absent: {DATA}"))


@pytest.fixture(scope="module", autouse=True)
def _forget_programs() -> Iterator[None]:
    """Compiled programs hold memory maps, of which a process may have 65,530; without room for one XLA crashes."""
    yield
    jax.clear_caches()
    gc.collect()
