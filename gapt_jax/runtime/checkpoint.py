"""Orbax checkpoints of trees: saved asynchronously and atomically, restored by the shapes of a given tree."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from gapt_jax.errors import UserError

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of errors that it raises to us as well


@contextlib.contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """A full disk reaches us as a ValueError of many lines (tensorstore) or an OSError; it becomes one sentence."""
    try:
        yield
    except (ValueError, OSError) as error:
        if "No space left on device" not in str(error):
            raise
        raise UserError(
            f"no space is left for {folder}: free some and run the same command again, "
            "it goes on from the last complete checkpoint"
        ) from error


def save_tree(folder: Path, tree: Any) -> None:
    """Writes one tree and waits for it; replaces what an interrupted attempt left."""
    with _disk_faults(folder), ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), tree, force=True)


def load_tree(folder: Path, like: Any) -> Any:
    """The tree in `folder`, with the shapes and dtypes of `like`, on the first device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder.resolve(), abstract)


class Checkpoints:
    """Numbered steps in one folder; the newest `keep` complete ones are kept."""

    def __init__(self, folder: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self.folder = folder
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, step: int, tree: Any) -> None:
        """Starts a save; the error of an earlier one surfaces here."""
        if step not in self._manager.all_steps():
            with _disk_faults(self.folder):
                self._manager.save(step, args=ocp.args.StandardSave(tree), force=True)

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The tree saved at `step` (default: the newest), with the shapes and dtypes of `like`."""
        step = self.latest() if step is None else step
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except (ValueError, FileNotFoundError, KeyError) as error:
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} cannot be read ({str(error).splitlines()[0][:120]}); "
                "remove that step's folder to go on from the one before"
            ) from error

    def close(self) -> None:
        with _disk_faults(self.folder):
            self._manager.wait_until_finished()
            self._manager.close()


@contextlib.contextmanager
def checkpoints(folder: Path, keep: int) -> Iterator[Checkpoints]:
    """Opens a folder of checkpoints and waits for its saves on every way out."""
    opened = Checkpoints(folder, keep)
    try:
        yield opened
    finally:
        opened.close()
