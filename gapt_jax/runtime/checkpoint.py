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

logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoints:
    """Numbered steps in one folder; the newest `keep` complete ones are kept."""

    def __init__(self, folder: Path, keep: int):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
        self.folder = folder
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, step: int, tree: Any) -> None:
        """Starts a save; the error of an earlier one surfaces here."""
        if step not in self._manager.all_steps():
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
