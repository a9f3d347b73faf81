"""Orbax checkpoints of trees: saved asynchronously and atomically, restored on whatever mesh there is now."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from gapt_jax.config import RuntimeConfig
from gapt_jax.errors import UserError
from gapt_jax.runtime import hosts
from gapt_jax.runtime.console import Console

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
    """The tree in `folder`, with the shapes, dtypes and shardings of `like`."""
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(folder.resolve(), jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
        except (ValueError, OSError, KeyError) as error:
            raise UserError(
                f"{folder} cannot be read ({_first_line(error)}): remove {folder.parent}, it will be made again"
            ) from error


class _Kept(preservation_policy.PreservationPolicy):
    """Steps that were saved to stay; Orbax stores the metrics that say so with each step."""

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        return [bool(info.metrics and info.metrics.get("is_kept")) for info in checkpoints]


def _score(metrics: Mapping[str, float]) -> float:
    return metrics.get("score", float("-inf"))


class Checkpoints:
    """Numbered steps in one folder. The newest ones stay, those of every so many steps, the best, and those saved to
    be kept."""

    def __init__(self, folder: Path, config: RuntimeConfig, console: Console):
        policies: list[Any] = [preservation_policy.LatestN(config.keep_checkpoints), _Kept()]
        if config.keep_every:
            policies.append(preservation_policy.EveryNSteps(config.keep_every))
        if config.keep_best:
            best = preservation_policy.BestN(
                get_metric_fn=_score,
                n=config.keep_best,
                keep_checkpoints_without_metrics=False,
            )
            policies.append(best)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            best_fn=_score,  # deletes nothing beside the policies; without it Orbax does not store scores
            create=True,
            enable_async_checkpointing=True,
        )
        self.folder, self._console = folder, console
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        self._damaged: set[int] = set()

    def save(
        self, step: int, tree: Any, facts: Mapping[str, Any], score: float | None = None, *, is_kept: bool = False
    ) -> None:
        """Starts a save of a tree and of what must be the same when it is read; `score` says how good it is."""
        if step in self._damaged:
            self._manager.delete(step)
        if step not in self._manager.all_steps():
            metrics = ({} if score is None else {"score": score}) | ({"is_kept": 1.0} if is_kept else {})
            with _disk_faults(self.folder):
                self._manager.save(
                    step,
                    args=ocp.args.StandardSave(tree),
                    metrics=metrics or None,
                    custom_metadata=dict(facts),
                    force=True,
                )

    def check(self) -> None:
        """Raises the error of a save that went wrong in the background."""
        with _disk_faults(self.folder):
            self._manager.check_for_errors()

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """The steps that are kept."""
        return sorted(self._manager.all_steps())

    def restore(
        self, like: Any, facts: Mapping[str, Any], steps: Iterable[int] | None = None
    ) -> tuple[int, Any] | None:
        """(step, tree) of the newest checkpoint, among `steps` if given, that every process can read; None where there
        is none at all.

        The tree gets the shapes, dtypes and shardings of `like`. Raises UserError where there are only damaged ones,
        or where one was saved under other `facts`.
        """
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._newest(ocp.args.StandardRestore(like), facts, self.steps() if steps is None else steps)

    def restore_part(
        self, like: dict[str, Any], facts: Mapping[str, Any], step: int | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """As `restore`, for some fields of the saved tree by their names; `step` asks for one checkpoint."""
        if step is not None and step not in self._manager.all_steps():
            kept = ", ".join(map(str, self._manager.all_steps()))
            raise UserError(f"{self.folder} has no checkpoint of step {step} (kept: {kept or 'none'})")
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        places = ocp.checkpoint_utils.construct_restore_args(like)
        arguments = ocp.args.PyTreeRestore(like, restore_args=places, partial_restore=True)
        return self._newest(arguments, facts, self._manager.all_steps() if step is None else [step])

    def _newest(self, arguments: Any, facts: Mapping[str, Any], steps: Iterable[int]) -> tuple[int, Any] | None:
        faults: list[str] = []
        for step in sorted(steps, reverse=True):
            fault, tree = None, None
            try:
                known = self._manager.metadata(step).custom_metadata or {}
                self._check_facts(step, known, facts)
                tree = self._manager.restore(step, args=arguments)
            except (ValueError, OSError, KeyError, TypeError) as error:
                fault = _first_line(error)
            found = [fault for fault in hosts.gather(fault) if fault]  # each process reads its own part
            if not found:
                if faults:
                    self._console.warn(f"goes on from step {step}, the last complete one")
                return step, tree
            self._damaged.add(step)
            faults.append(f"step {step}: {found[0]}")
            self._console.warn(f"{self.folder} cannot be read at step {step} ({found[0]})")
        if faults:
            raise UserError(
                f"no checkpoint in {self.folder} can be read ({'; '.join(faults)}): if these are damaged remove the "
                "folder, if they are of another experiment choose another one"
            )
        return None

    def _check_facts(self, step: int, known: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        other = [name for name, value in facts.items() if known.get(name, value) != value]
        if other:
            raise UserError(
                f"the checkpoint of step {step} in {self.folder} was saved with another {' and '.join(other)}: "
                "choose another --workdir, or put back what was changed"
            )

    def close(self) -> None:
        with _disk_faults(self.folder):
            self._manager.wait_until_finished()
            self._manager.close()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


@contextlib.contextmanager
def checkpoints(folder: Path, config: RuntimeConfig, console: Console) -> Iterator[Checkpoints]:
    """Opens a folder of checkpoints and waits for its saves on every way out."""
    opened = Checkpoints(folder, config, console)
    try:
        yield opened
    finally:
        opened.close()
