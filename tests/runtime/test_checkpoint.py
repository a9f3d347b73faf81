"""Faults of the disk under a checkpoint; saving and resuming themselves are tested in tests/training."""

import jax.numpy as jnp
import pytest

from gapt_jax.config import RuntimeConfig
from gapt_jax.errors import UserError
from gapt_jax.runtime.checkpoint import checkpoints, load_tree, save_tree
from gapt_jax.runtime.console import Console

TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "a/0": Failed to write 9 bytes: No space left on device [os_error_code=28]'
)


def opened(folder, **settings):
    return checkpoints(folder / "c", RuntimeConfig(keep_checkpoints=2, **settings), Console())


@pytest.mark.parametrize("fault", [ValueError(TENSORSTORE), OSError(28, "No space left on device")])
def test_a_full_disk_is_one_sentence_and_earlier_steps_stay(tmp_path, monkeypatch, fault):
    with opened(tmp_path) as saved:
        saved.save(1, {"a": jnp.ones(3)}, {})

    def fails(*_, **__):
        raise fault

    with (
        opened(tmp_path) as saved,
        monkeypatch.context() as patch,
    ):
        patch.setattr(saved._manager, "save", fails)
        with pytest.raises(UserError, match=r"no space is left for .*last complete checkpoint"):
            saved.save(2, {"a": jnp.ones(3)}, {})
    with opened(tmp_path) as saved:
        assert saved.latest() == 1 and float(saved.restore({"a": jnp.zeros(3)}, {})[1]["a"].sum()) == 3


def test_another_value_error_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise ValueError("no such thing")

    with (
        opened(tmp_path) as saved,
        monkeypatch.context() as patch,
    ):
        patch.setattr(saved._manager, "save", fails)
        with pytest.raises(ValueError, match="no such thing"):
            saved.save(2, {"a": jnp.ones(3)}, {})


def test_a_tree_comes_back_and_is_replaced(tmp_path):
    save_tree(tmp_path / "t", {"a": jnp.ones(3)})
    save_tree(tmp_path / "t", {"a": jnp.arange(3.0)})
    assert load_tree(tmp_path / "t", {"a": jnp.zeros(3)})["a"].tolist() == [0, 1, 2]
