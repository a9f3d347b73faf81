"""Training curves: one JSON row per line in ``metrics.jsonl``, and TensorBoard event files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gapt_jax.errors import UserError
from gapt_jax.runtime.files import strict_json, write_atomic

FILE_NAME = "metrics.jsonl"


class MetricLog:
    """Appends ``{"stage": ..., "step": n, name: value, ...}`` rows; values that are not finite become null, and are
    left out of TensorBoard.

    The first row of a stage cuts off what an earlier attempt at this stage left behind: its rows after
    `resume_step`, or all of them where that is None because the stage begins anew. So a step has one row.
    Each stage is a TensorBoard run of its own under ``tensorboard/``, cut at the same place.
    """

    def __init__(self, folder: Path, resume_step: int | None, *, is_silent: bool = False) -> None:
        self._folder, self._is_silent = folder, is_silent  # silent where another process writes
        self._path = folder / FILE_NAME
        self._last_kept = -1 if resume_step is None else resume_step
        self._writers: dict[str, Any] = {}

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Adds one row; values may be arrays with a single element."""
        if self._is_silent:
            return
        if stage not in self._writers:
            self._cut(stage)
            self._writers[stage] = self._open_writer(stage)
        numbers = {name: float(value) for name, value in values.items()}
        row = {"stage": stage, "step": int(step)} | numbers
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(strict_json(row) + "\n")
        for name, number in numbers.items():
            if math.isfinite(number):
                self._writers[stage].add_scalar(name, number, int(step))

    def take(self) -> list[Any]:
        """The alarms raised since this was last asked: none, but by a log that raises them."""
        return []

    def close(self) -> None:
        """Writes out what TensorBoard has not yet on disk."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _cut(self, stage: str) -> None:
        old = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        rows = _parse(old, self._path)
        kept = [row for row in rows if row["stage"] != stage or row["step"] <= self._last_kept]
        new = "".join(strict_json(row) + "\n" for row in kept)
        if new != old:
            write_atomic(self._path, new)
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def _open_writer(self, stage: str) -> Any:
        from tensorboardX import SummaryWriter  # slow to import

        folder = self._folder / "tensorboard" / stage
        suffix = f".{time.time_ns()}"  # else two writers within one second share a file
        return SummaryWriter(str(folder), purge_step=self._last_kept + 1, flush_secs=30, filename_suffix=suffix)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of a ``metrics.jsonl``; a last line that a crash cut short is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: make it with 'gapt run'") from None
    return _parse(text, path)


def _parse(text: str, path: Path) -> list[dict[str, Any]]:
    *lines, _unfinished = text.split("\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({"stage": row.pop("stage"), "step": row.pop("step"), **row})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged in line {number}: remove that line") from None
    return rows
