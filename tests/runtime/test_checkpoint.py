"""Faults of the disk under a checkpoint; saving and resuming themselves are tested in tests/training."""

import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from gapt_jax.config import RuntimeConfig
from gapt_jax.errors import UserError
from gapt_jax.runtime import checkpoint
from gapt_jax.runtime.checkpoint import COMMIT_FILE, checkpoints, finished_steps, load_tree, save_tree, tree_hashes
from gapt_jax.runtime.console import Console
from tests.buckets import only_files_are_renamed

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


def tree(step: int):
    return {"a": jnp.full(1000, float(step)), "b": {"c": jnp.int32(step)}}


def save(folder, steps, scores=None, **settings):
    with opened(folder, **settings) as saved:
        for step in steps:
            saved.save(step, tree(step), {"config": "x", "data_position": 8 * step}, (scores or {}).get(step))


def arrays(folder, step) -> list[Path]:
    return [path for path in (folder / "c" / str(step)).rglob("d/*") if path.is_file()]


@pytest.mark.parametrize("damage", ["truncate", "delete", "empty the folder of all but its commit file"])
def test_a_damaged_step_is_named_and_the_one_before_is_taken(tmp_path, capsys, damage):
    save(tmp_path, (1, 2))
    files = arrays(tmp_path, 2)
    assert files
    for path in (tmp_path / "c" / "2").rglob("*") if damage.startswith("empty") else files:
        if damage == "truncate":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif path.is_file() and path.name != COMMIT_FILE:
            path.unlink()
    with opened(tmp_path) as saved:
        step, restored = saved.restore(tree(0), {"config": "x"})
        assert step == 1 and float(restored["a"][7]) == 1
        told = capsys.readouterr().out
        assert "cannot be read at step 2" in told and "goes on from step 1, the last complete one" in told
        saved.save(2, tree(2), {})  # the run comes by step 2 again
    with opened(tmp_path) as saved:
        assert saved.restore(tree(0), {})[0] == 2
        assert "cannot be read" not in capsys.readouterr().out


def test_only_damaged_steps_are_an_error_not_a_new_start(tmp_path):
    save(tmp_path, (1,))
    for path in arrays(tmp_path, 1):
        path.unlink()
    with opened(tmp_path) as saved, pytest.raises(UserError, match=r"no checkpoint in .* can be read \(step 1"):
        saved.restore(tree(0), {})


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    save(tmp_path, (1,))
    with opened(tmp_path) as saved, pytest.raises(UserError, match="saved with another config"):
        saved.restore(tree(0), {"config": "y"})
    with opened(tmp_path) as saved:
        facts = saved._manager.metadata(1).custom_metadata
    assert facts == {"config": "x", "data_position": 8, "sha256": tree_hashes(tree(1))}


def test_the_newest_the_best_and_every_so_many_stay(tmp_path):
    save(tmp_path, range(1, 11), scores={2: 0.5, 3: 0.9, 5: 0.1}, keep_every=4, keep_best=1)
    assert finished_steps(tmp_path / "c") == [3, 4, 8, 9, 10]


def test_a_part_is_restored_whatever_the_rest_is(tmp_path):
    save(tmp_path, (1, 2))
    with opened(tmp_path) as saved:
        step, part = saved.restore_part({"b": {"c": jnp.int32(0)}}, {"config": "x"})
    assert step == 2 and int(part["b"]["c"]) == 2 and set(part) == {"b"}


def test_a_disk_that_is_really_full(tmp_path):
    """On a file system of 1 MB: the save fails with one sentence, what was saved before stays readable."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        save(disk, (1,))
        noise = {"a": jax.random.normal(jax.random.key(0), (600_000,))}
        with pytest.raises(UserError, match="no space is left for"), opened(disk) as saved:
            saved.save(2, noise, {})
        with opened(disk) as saved:
            step, restored = saved.restore(tree(0), {})
        assert step == 1 and float(restored["a"][0]) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_on_a_bucket_no_folder_is_renamed(tmp_path, monkeypatch):
    tried = only_files_are_renamed(monkeypatch, tmp_path)
    with pytest.raises(OSError, match="Too many open files"), ocp.StandardCheckpointer() as renames:
        renames.save(tmp_path / "renamed", tree(1))
    assert tried
    tried.clear()
    save(tmp_path, (1, 2, 3), scores={1: 0.5}, keep_best=1)
    save_tree(tmp_path / "params", tree(4))
    save_tree(tmp_path / "params", tree(5))
    assert not tried and finished_steps(tmp_path / "c") == [1, 2, 3]
    assert int(load_tree(tmp_path / "params", tree(0))["b"]["c"]) == 5
    with opened(tmp_path) as saved:
        assert saved.restore(tree(0), {"config": "x"})[0] == 3


def broken_off(folder, monkeypatch, step, damage="none"):
    """Steps up to `step`, the last one as a process leaves it that is killed just before the commit file."""
    save(folder, range(1, step), scores=dict.fromkeys(range(1, step), 0.5))
    finish = checkpoint._BY_FILE.finalize

    async def killed(self):
        await finish(self)
        (self.get_final() / COMMIT_FILE).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._BY_FILE, "finalize", killed)
        save(folder, (step,), scores={step: 0.5})
    for path in (folder / "c" / str(step)).rglob("*") if damage != "none" else ():
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", ["none", "half of each file"])
def test_a_step_without_its_commit_file_is_named_and_the_one_before_is_taken(tmp_path, monkeypatch, capsys, damage):
    broken_off(tmp_path, monkeypatch, 3, damage)
    sentence = f"it has no {COMMIT_FILE}: the last finished one is step 2"
    with checkpoints(tmp_path / "c", RuntimeConfig(), Console(), only_reads=True) as read:
        assert read.steps() == [2] and read.restore_part({"b": tree(0)["b"]}, {})[0] == 2
    assert f"step 3 in {tmp_path / 'c'} is not finished, {sentence}" in capsys.readouterr().out
    assert (tmp_path / "c" / "3").exists() and finished_steps(tmp_path / "c") == [2]
    with opened(tmp_path) as saved:
        assert f"step 3 in {tmp_path / 'c'} was not finished and is removed, {sentence}" in capsys.readouterr().out
        assert saved.restore(tree(0), {"config": "x"})[0] == 2
        saved.save(3, tree(3), {})
    with opened(tmp_path) as saved:
        assert saved.restore(tree(0), {})[0] == 3 and "finished" not in capsys.readouterr().out


def test_an_unfinished_step_alone_is_named_and_the_run_starts_anew(tmp_path, monkeypatch, capsys):
    broken_off(tmp_path, monkeypatch, 1)
    with opened(tmp_path) as saved:
        assert saved.restore(tree(0), {}) is None and saved.latest() is None
    assert "step 1 in" in (told := capsys.readouterr().out) and "there is no finished one" in told


def test_steps_that_were_finished_by_renaming_stay_readable(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_BY_FILE", checkpoint._ANY_FOLDER)
        patch.setattr(checkpoint, "_tidy", lambda folder: [])
        save(tmp_path, (1, 2))
    for path in [*(tmp_path / "c").rglob(COMMIT_FILE)]:  # which Orbax 0.11 does not write when it renames
        path.unlink()
    (tmp_path / "c" / "3.orbax-checkpoint-tmp").mkdir()
    assert finished_steps(tmp_path / "c") == [1, 2]
    with checkpoints(tmp_path / "c", RuntimeConfig(), Console(), only_reads=True) as read:
        assert read.restore_part({"b": tree(0)["b"]}, {})[0] == 2
    save(tmp_path, (3,))
    with opened(tmp_path) as saved:
        assert saved.steps() == [2, 3] and saved.restore(tree(0), {"config": "x"}, [2])[0] == 2
    assert "finished" not in capsys.readouterr().out
