"""One bit of a saved tree turns over on the disk: it is named, and never loaded as other weights."""

import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.config import RuntimeConfig
from gapt_jax.errors import UserError
from gapt_jax.runtime.checkpoint import checkpoints, load_tree, save_tree, tree_hashes
from gapt_jax.runtime.console import Console

KEY = jax.random.key(0)
TREE = {
    "policy": {"kernel": jax.random.normal(KEY, (40, 30)), "bias": jnp.zeros(7, jnp.bfloat16)},
    "step": jnp.int32(3),
    "flags": jnp.array([True, False]),
}


def flipped(source, target, seed):
    """A copy with one bit turned in a file of array data; gives the file."""
    shutil.copytree(source, target)
    draw = random.Random(seed)
    files = sorted(path for path in target.rglob("d/*") if path.is_file() and path.stat().st_size)
    file = draw.choices(files, [path.stat().st_size for path in files])[0]
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)
    return file


def is_same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b))


def opened(folder):
    return checkpoints(folder, RuntimeConfig(keep_checkpoints=3), Console())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_tree(folder / "params", TREE)
    with opened(folder / "c") as steps:
        steps.save(1, TREE, {})
        steps.save(2, TREE, {})
    return folder


@pytest.mark.parametrize("seed", range(40))
def test_a_tree_with_a_turned_bit_is_refused(saved, tmp_path, seed):
    flipped(saved / "params", tmp_path / "stage" / "params", seed)
    try:
        found = load_tree(tmp_path / "stage" / "params", TREE, tree_hashes(TREE))
    except UserError as error:
        assert "is damaged" in str(error) and "remove" in str(error) and "\n" not in str(error)
    else:
        assert is_same(found, TREE)  # bytes that no array is read from


@pytest.mark.parametrize("part", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_checkpoint_with_a_turned_bit_is_named_and_the_one_before_is_taken(saved, tmp_path, capsys, seed, part):
    shutil.copytree(saved / "c", tmp_path / "c", ignore=shutil.ignore_patterns("2"))
    flipped(saved / "c" / "2", tmp_path / "c" / "2", seed)
    like = {"policy": TREE["policy"]} if part else TREE
    with opened(tmp_path / "c") as steps:
        step, found = (steps.restore_part if part else steps.restore)(like, {})
    assert is_same(found, like)
    assert step == 2 or "cannot be read at step 2" in capsys.readouterr().out


def test_every_bit_of_an_array_counts():
    """Whatever the file format does: each single change of the tree changes its hash."""
    hashes = tree_hashes(TREE)
    assert set(hashes) == {"policy", "step", "flags"} and all(len(value) == 64 for value in hashes.values())
    bias = TREE["policy"]["bias"]
    others = [
        TREE | {"policy": TREE["policy"] | {"bias": other}}
        for other in (bias.at[3].set(-0.0), bias.astype(jnp.float16), bias[None], bias[:-1])
    ]
    others.append(TREE | {"policy": {"kernel": TREE["policy"]["kernel"], "bias2": bias}})
    for other in others:
        assert tree_hashes(other)["policy"] != hashes["policy"] and tree_hashes(other)["step"] == hashes["step"]


def test_a_tree_without_hashes_loads(saved):
    """Without hashes, as in folders of earlier versions, trees load as they are."""
    assert is_same(load_tree(saved / "params", TREE), TREE)


def test_hashes_do_not_depend_on_where_arrays_lie():
    devices = jax.make_mesh((4,), ("x",), devices=jax.devices()[:4])
    array = jnp.arange(32.0).reshape(8, 4)
    spec = jax.sharding.PartitionSpec
    placed = [jax.device_put(array, jax.sharding.NamedSharding(devices, s)) for s in (spec(), spec("x"))]
    assert tree_hashes({"a": placed[0]}) == tree_hashes({"a": placed[1]}) == tree_hashes({"a": np.asarray(array)})


def test_a_part_is_read_from_a_folder_that_was_just_written(tmp_path):
    with opened(tmp_path / "c") as steps:
        steps.save(1, TREE, {})
        step, found = steps.restore_part({"policy": TREE["policy"]}, {})
        assert step == 1 and is_same(found["policy"], TREE["policy"])
        steps.save(2, TREE, {})
        assert steps.restore(TREE, {})[0] == 2
