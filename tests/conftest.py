"""Eight CPU devices and quickly compiled programs for every test; must be set before jax is imported."""

import collections
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("NPROC", "16")  # 2 cores and 8 devices otherwise abort in collectives (JAX 0.10)
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with libtpu installed, JAX would look for a TPU
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # the other worker needs the same programs
_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()

import jax  # noqa: E402
import pytest  # noqa: E402

from gapt_jax.runtime import devices  # noqa: E402
from tests import quick  # noqa: E402
from tests.toy import STAGES, TOY, gapt  # noqa: E402

_LASTING = devices.patient(os.environ["XLA_FLAGS"])
os.environ["XLA_FLAGS"] = quick.added_to(_LASTING)
jax.devices()  # reads the flags, once
os.environ["XLA_FLAGS"] = _LASTING  # libtpu does not know all of `quick`; processes that tests start say it themselves

pytest_plugins = ["tests.workers"]
DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    slow = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])  # or one worker ends with the long files while the other waits
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


@pytest.fixture(scope="session")
def smoke_songs(tmp_path_factory):
    """The prepared songs of `smoke`, made once for all workers: whole runs get a copy where they look for them."""
    from gapt_jax.data_pipeline.builders import prepare

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "toy" / "data"
    for name in ("grammar", "grammar_modal"):
        prepare(name, "grammar", folder)  # where the other worker is at it, this one waits
    return folder


@pytest.fixture(scope="session")
def toy(smoke_songs):
    """A folder with the songs and the supervised stages of `tests.toy`, made once for all workers."""
    folder = smoke_songs.parent
    last, workdir = STAGES[-1], folder / os.environ.get("PYTEST_XDIST_WORKER", "alone")
    assert gapt("run", "smoke", "--workdir", str(workdir), "--stage", last, *(f"--set={s}" for s in TOY)) == 0
    return folder


@pytest.fixture(scope="module")
def toy_root(toy, tmp_path_factory):
    """A folder for runs of `tests.toy`, whose supervised stages are there."""
    folder = tmp_path_factory.mktemp("runs")
    for made in ("data", "stages"):
        shutil.copytree(toy / made, folder / made)
    return folder


@pytest.fixture(scope="session")
def vocabulary():
    from gapt_jax.vocabulary import Vocabulary

    return Vocabulary.from_qualities([(0, 4, 7)])


@pytest.fixture(scope="session")
def networks(vocabulary):
    """One tiny shape for every test that does not care."""
    from gapt_jax import models
    from gapt_jax.config import ModelsConfig, TransformerConfig
    from gapt_jax.tasks.accompaniment.task import Accompaniment

    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
    rewards = Accompaniment(vocabulary).reward_models
    return models.build(ModelsConfig(stack, stack, stack, stack), vocabulary.size, rewards)


@pytest.fixture(scope="session")
def algorithm_config():
    """Rates are arrays of the state, so that tests change them without compiling again."""
    from gapt_jax.config import DiscriminatorConfig, OptimizerConfig
    from gapt_jax.tasks.accompaniment.config import AlgorithmConfig

    adam = OptimizerConfig(1e-3, 0, 1.0, 0.9, 0.95)
    return AlgorithmConfig(
        steps=100,
        batch_size=16,
        minibatch_size=8,
        validity_mask=True,
        policy=adam,
        critic=adam,
        discriminator_optimizer=adam,
        discriminator=DiscriminatorConfig(minibatch_size=8, steps_per_update=2, buffer_rollouts=2),
    )
