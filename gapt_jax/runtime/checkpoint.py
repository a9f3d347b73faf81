"""Orbax checkpoints of trees: saved asynchronously and atomically, restored on whatever mesh there is now.

A step is written where it stays and finished by a file of its own, on every storage: on a mounted bucket the renaming
of a folder is many copies. Orbax is told so each time; what it would do by itself differs with its versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from gapt_jax.config import RuntimeConfig
from gapt_jax.errors import UserError
from gapt_jax.runtime import hosts
from gapt_jax.runtime.console import Console

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs tracebacks of errors that it raises to us as well


COMMIT_FILE = ocp.path.atomicity.COMMIT_SUCCESS_FILE  # in the folder of a finished step
_BY_FILE = ocp.path.atomicity.CommitFileTemporaryPath  # for writing
_ANY_FOLDER = ocp.path.atomicity.AtomicRenameTemporaryPath  # for reading: asks for no file, which older steps lack
_MARK = ".commit_files"  # in a folder whose finished steps all have theirs; without it they may be older


def finished_steps(folder: Path) -> list[int]:
    """The numbers of the steps in a folder of checkpoints that are whole, without opening them."""
    return sorted(set(_steps_in(folder)) - set(_unfinished(folder)))


def _steps_in(folder: Path) -> dict[int, Path]:
    return {int(path.name): path for path in folder.glob("*") if path.name.isdigit()}


def _unfinished(folder: Path) -> list[int]:
    if not (folder / _MARK).exists():  # finished by renaming: what was unfinished had another name
        return []
    return sorted(number for number, path in _steps_in(folder).items() if not (path / COMMIT_FILE).exists())


def _tidy(folder: Path) -> list[int]:
    """Removes unfinished steps and gives their numbers; older steps, finished by renaming, get their files once."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _MARK).exists():
        for path in _steps_in(folder).values():
            (path / COMMIT_FILE).write_text("finished by renaming")
        (folder / _MARK).write_text(f"A step without {COMMIT_FILE} is not finished.\n")
    removed = _unfinished(folder)
    for number in removed:
        shutil.rmtree(folder / str(number))
    return removed


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


HASHES = "sha256"  # among the metadata of a checkpoint


def tree_hashes(tree: Any) -> dict[str, str]:
    """For each field of a tree the SHA-256 over names, shapes, dtypes and bytes of its arrays, in hex.

    A field with an array of which this process has only a part gets none: parameters split over several hosts.
    """
    fields: dict[str, list[tuple[str, Any]]] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        fields.setdefault(name.partition("/")[0], []).append((name, leaf))
    whole = {field: leaves for field, leaves in fields.items() if all(_is_here(leaf) for _, leaf in leaves)}
    with ThreadPoolExecutor() as threads:  # hashing lets go of the interpreter
        digests = {field: [*threads.map(_leaf_digest, leaves)] for field, leaves in whole.items()}
    return {field: hashlib.sha256(b"".join(found)).hexdigest() for field, found in digests.items()}


def _is_here(leaf: Any) -> bool:
    return not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated


def _leaf_digest(named: tuple[str, Any]) -> bytes:
    name, leaf = named
    if isinstance(leaf, jax.Array) and leaf.is_fully_replicated:
        leaf = leaf.addressable_data(0)
    array = np.ascontiguousarray(leaf)
    digest = hashlib.sha256(f"{name} {np.shape(leaf)} {array.dtype}\0".encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.digest()


def _damage(tree: Any, hashes: Mapping[str, str]) -> str:
    """Which fields of a tree are not those of the hashes; "" where all are, as far as there are hashes."""
    found = tree_hashes(tree)
    damaged = [field for field, value in found.items() if hashes.get(field, value) != value]
    return f"{' and '.join(damaged)} differ{'s' if len(damaged) == 1 else ''} from what was saved" if damaged else ""


def save_tree(folder: Path, tree: Any) -> None:
    """Writes one tree and waits for it; replaces what an interrupted attempt left."""
    with _disk_faults(folder), ocp.StandardCheckpointer(temporary_path_class=_BY_FILE) as checkpointer:
        checkpointer.save(folder.resolve(), tree, force=True)


def load_tree(folder: Path, like: Any, hashes: Mapping[str, str] | None = None) -> Any:
    """The tree in `folder`, with the shapes, dtypes and shardings of `like`.

    Raises UserError where it cannot be read or, given the `tree_hashes` of what was saved, is another.
    """
    with ocp.StandardCheckpointer(temporary_path_class=_ANY_FOLDER) as checkpointer:
        try:
            tree = checkpointer.restore(folder.resolve(), jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
            fault = _damage(tree, hashes or {})
        except Exception as error:  # damaged files raise errors of many kinds
            fault = _first_line(error)
    if fault:
        raise UserError(f"{folder} is damaged ({fault}): remove {folder.parent}, it will be made again")
    return tree


class _Kept(preservation_policy.PreservationPolicy):
    """Steps that were saved to stay; Orbax stores the metrics that say so with each step."""

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        return [bool(info.metrics and info.metrics.get("is_kept")) for info in checkpoints]


class _Newest(preservation_policy.PreservationPolicy):
    """The newest steps, not counting those that stay anyway: so members of a population have some in common, though one
    keeps more than the others."""

    def __init__(self, count: int) -> None:
        self._count = count

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        is_kept = _Kept().should_preserve(checkpoints, context=context)
        newest = [number for number, kept in enumerate(is_kept) if not kept][-self._count :]
        return [number in newest for number in range(len(is_kept))]


def _score(metrics: Mapping[str, float]) -> float:
    return metrics.get("score", float("-inf"))


class Checkpoints:
    """Numbered steps in one folder. The newest ones stay, those of every so many steps, the best, and those saved to
    be kept."""

    def __init__(self, folder: Path, config: RuntimeConfig, console: Console, *, only_reads: bool = False):
        policies: list[Any] = [_Newest(config.keep_checkpoints), _Kept()]
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
            read_only=only_reads,
            enable_async_checkpointing=True,
            temporary_path_class=_ANY_FOLDER if only_reads else _BY_FILE,
            lightweight_initialize=only_reads,  # reads no scores: a step that is being saved may have half of them
            # Many processes wait for each other by names: those of saves of several folders, under way at once, differ.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=f"{folder.parent.name}/{folder.name}"
            ),
        )
        self.folder, self._console = folder, console
        with _disk_faults(folder):
            removed = [] if only_reads else hosts.first_says(lambda: _tidy(folder))
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)
        # Orbax 0.11 does not pass it on to what a step consists of.
        self._manager._checkpointer.handler._temporary_path_class = _BY_FILE
        self._unfinished = _unfinished(folder) if only_reads else []  # after the manager has looked
        self._damaged: set[int] = set()
        last = "there is no finished one" if self.latest() is None else f"the last finished one is step {self.latest()}"
        for step in removed or self._unfinished:
            end = "was not finished and is removed" if removed else "is not finished"
            console.warn(f"step {step} in {folder} {end}, it has no {COMMIT_FILE}: {last}")

    def save(
        self, step: int, tree: Any, facts: Mapping[str, Any], score: float | None = None, *, is_kept: bool = False
    ) -> None:
        """Starts to save a tree with the facts that must match when it is read; `score` ranks the checkpoint."""
        if step in self._damaged:
            self._manager.delete(step)
        if step not in self._manager.all_steps():
            metrics = ({} if score is None else {"score": score}) | ({"is_kept": 1.0} if is_kept else {})
            with _disk_faults(self.folder):
                self._manager.save(
                    step,
                    args=ocp.args.StandardSave(tree),
                    metrics=metrics or None,
                    custom_metadata=dict(facts) | {HASHES: tree_hashes(tree)},
                    force=True,
                )

    def check(self) -> None:
        """Raises the error of a save that went wrong in the background."""
        with _disk_faults(self.folder):
            self._manager.check_for_errors()

    def latest(self) -> int | None:
        return max(self.steps(), default=None)

    def steps(self) -> list[int]:
        """The steps that are kept."""
        return sorted(set(self._manager.all_steps()) - set(self._unfinished))

    def restore(
        self, like: Any, facts: Mapping[str, Any], steps: Iterable[int] | None = None
    ) -> tuple[int, Any] | None:
        """(step, tree) of the newest checkpoint, among `steps` if given, that every process can read; None where there
        is none at all.

        The tree gets the shapes, dtypes and shardings of `like`. Raises UserError where there are only damaged ones,
        or where one was saved under other `facts`.
        """
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._newest(
            lambda step: self._manager.restore(step, args=ocp.args.StandardRestore(like)),
            facts,
            self.steps() if steps is None else steps,
        )

    def restore_part(
        self, like: dict[str, Any], facts: Mapping[str, Any], step: int | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """As `restore`, for some fields of the saved tree by their names; `step` asks for one checkpoint."""
        if step is not None and step not in self.steps():
            kept = ", ".join(map(str, self.steps()))
            raise UserError(f"{self.folder} has no checkpoint of step {step} (kept: {kept or 'none'})")
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        places = ocp.checkpoint_utils.construct_restore_args(like)
        arguments = ocp.args.PyTreeRestore(like, restore_args=places, partial_restore=True)

        def read(step: int) -> Any:  # a manager that has saved reads whole trees only
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(), temporary_path_class=_ANY_FOLDER) as reader:
                return reader.restore(self.folder.resolve() / str(step) / "default", args=arguments)

        return self._newest(read, facts, self.steps() if step is None else [step])

    def _newest(
        self, read: Callable[[int], Any], facts: Mapping[str, Any], steps: Iterable[int]
    ) -> tuple[int, Any] | None:
        with _disk_faults(self.folder):
            self._manager.wait_until_finished()  # a save may be under way
        faults: list[str] = []
        for step in sorted(steps, reverse=True):
            fault, tree = None, None
            try:
                known = self._manager.metadata(step).custom_metadata or {}
                self._check_facts(step, known, facts)
                tree = read(step)
                fault = _damage(tree, known.get(HASHES, {})) or None
            except UserError:
                raise
            except Exception as error:  # damaged files raise errors of many kinds
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
def checkpoints(
    folder: Path, config: RuntimeConfig, console: Console, *, only_reads: bool = False
) -> Iterator[Checkpoints]:
    """Opens a folder of checkpoints and waits for its saves on every way out.

    With `only_reads` another process may save into the folder meanwhile: nothing is made or removed there.
    """
    opened = Checkpoints(folder, config, console, only_reads=only_reads)
    try:
        yield opened
    finally:
        opened.close()
