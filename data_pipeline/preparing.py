"""Prepared datasets of any kind: a folder that appears whole or not at all, with a report and TFDS records.

::

    <data_dir>/<name>-<source fingerprint>/
        <builder>/1.0.0/     what TFDS wrote
        report.json          what was found in the source, fingerprint of the result
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format  # with which TFDS writes the file

from gapt_jax.errors import UserError

MAX_REPORTED = 1_000
REPORT = "report.json"
_PREPARING = ".preparing-"  # begins the names of folders that are not whole yet
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Progress = Callable[[str, int, int | None], None]  # what is going on, how many are done, of how many (None: not known)


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """A dataset on disk: `path` is its folder, `report` the content of its report.json."""

    name: str
    path: Path
    report: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of what was prepared, 12 hex digits."""
        return self.report["fingerprint"]


def check_name(name: str) -> None:
    """Raises UserError where a dataset cannot be called so."""
    if not _NAME.fullmatch(name):
        raise UserError(f"'{name}' is no dataset name: use letters, digits, '_', '-' and '.'")


def prepare_once(
    name: str, final: Path, prepare_new: Callable[[], None], on_progress: Progress | None
) -> PreparedDataset:
    """The dataset in the folder `final`, made by `prepare_new` unless it is there; nothing is ever overwritten."""
    try:
        if not (final / REPORT).is_file():
            _in_turn(final, prepare_new, on_progress)
        return PreparedDataset(name, final, read_report(final))
    except OSError as error:
        raise UserError(
            f"dataset '{name}' cannot be prepared in {final.parent} ({error.strerror or error}): "
            f"free some space there or choose a folder that you may write to"
        ) from error


def _in_turn(final: Path, prepare_new: Callable[[], None], on_progress: Progress | None) -> None:
    """One process at a time prepares in a data folder; those that waited find what they need."""
    from gapt_jax.runtime import locks

    def on_wait(holder: locks.Holder) -> None:
        if on_progress is not None:
            on_progress(f"waiting for {holder}, which prepares in {final.parent}", 0, None)

    with locks.in_turn(final.parent, on_wait=on_wait) as is_taken:
        if is_taken:
            locks.clean(final.parent, f"{_PREPARING}*")
        if (final / REPORT).is_file():
            return
        if final.exists():
            raise UserError(f"{final} holds no whole dataset (no {REPORT}): remove that folder, it will be made again")
        final.parent.mkdir(parents=True, exist_ok=True)
        prepare_new()


def publish(name: str, final: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a temporary folder, and puts that in its place once it is whole."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{_PREPARING}{name}-", dir=final.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)  # mkdtemp makes a private folder
        try:
            os.rename(temporary, final)
        except OSError:
            if not (final / REPORT).is_file():  # otherwise another process was quicker and made the same
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_records(builder: Callable[..., Any], collected: Any, folder: Path) -> None:
    """Lets a TFDS builder write what was collected into a folder."""
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints; stdout belongs to the command
        tfds.disable_progress_bar()
        try:
            builder(collected=collected, data_dir=folder).download_and_prepare()
        except RuntimeError as error:  # how array_record reports a full disk
            raise OSError(str(error).partition(";")[0]) from error
    shutil.rmtree(folder / "downloads", ignore_errors=True)  # TFDS makes it and leaves it empty


def read_records(folder: Path, split: str, features: tfds.features.FeaturesDict) -> list[dict[str, Any]]:
    """Decodes a split from the TFDS records of a prepared dataset, in file order; none where it has no such split.

    Raises UserError where they are declared as other types than `features`.
    """
    records = next(folder.glob("*/1.0.0"))
    _check_features(records, features)
    builder = tfds.builder_from_directory(records)
    if split not in builder.info.splits:
        return []
    source = builder.as_data_source(split=split)
    return source.__getitems__(list(range(len(source))))


def _check_features(folder: Path, features: tfds.features.FeaturesDict) -> None:
    """TFDS imports whatever class the file names: it must name those of `features`, in the same places."""
    path = folder / "features.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error
    if found != json_format.MessageToDict(features.to_proto()):
        raise UserError(
            f"{path} names other types than this program writes: nothing of it is loaded, delete the folder "
            f"{folder.parents[1]} and prepare it again"
        )


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Writes report.json, the last file of a prepared dataset."""
    (folder / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_report(folder: Path) -> dict[str, Any]:
    """report.json of a prepared dataset."""
    try:
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / REPORT} is damaged: delete the folder {folder} and prepare it again") from error


@contextlib.contextmanager
def damage_named(prepared: PreparedDataset) -> Iterator[None]:
    """Turns whatever reading a prepared dataset raises into a UserError that says what to delete."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the record readers raise errors of many kinds, RuntimeError among them
        raise UserError(
            f"the prepared dataset {prepared.path} is damaged: delete that folder and run "
            f"`gapt data prepare {prepared.name}` with the same source again"
        ) from error
