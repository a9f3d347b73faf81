"""Streams of training batches and fixed evaluation examples, of any kind of example.

The training stream is a function of its examples and one global example index: example i is the same for every batch
size, host count and resume point.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection

import grain
import numpy as np

from gapt_jax.data_pipeline.examples import ALL_SPLITS, SPLITS
from gapt_jax.errors import UserError
from gapt_jax.types import Batch
from gapt_jax.vocabulary import PAD

MAX_EXAMPLES = 2**31  # the example index is int32


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationSongs:
    """N fixed crops; PAD after the end of a short example."""

    context: np.ndarray  # [N, T] int32: what the agent hears
    actions: np.ndarray  # [N, T] int32: what it does in the data
    ids: tuple[str, ...]
    index: np.ndarray  # [N] int32: 0..N-1, the example index that random draws depend on
    seen: np.ndarray | None = None  # [N] bool: what training hears too (`task.Domain.seen_in_words`); None = unknown


@dataclasses.dataclass(frozen=True, eq=False)
class TokenisedSplit:
    """All N examples of a split as tokens; example n has ``starts[n]..starts[n + 1]`` of the F frames."""

    ids: np.ndarray  # [N] str
    starts: np.ndarray  # [N + 1] int64
    tokens: np.ndarray  # [2, F] int: the two parts

    def example(self, n: int) -> np.ndarray:
        """[2, length] tokens of example n (a view)."""
        return self.tokens[:, self.starts[n] : self.starts[n + 1]]


def check_open(datasets: Collection[str], dataset: str, split: str) -> None:
    """Raises UserError where a dataset is not open or there is no such split."""
    if dataset not in datasets:
        raise UserError(f"dataset '{dataset}' is not open (open: {', '.join(datasets)}): choose one of these")
    if split not in (*SPLITS, ALL_SPLITS):
        raise UserError(f"there is no split '{split}': choose one of {', '.join(SPLITS)}, {ALL_SPLITS}")


def crop(tokens: np.ndarray, start: int, max_frames: int) -> np.ndarray:
    """[2, max_frames] int32: the frames of [2, length] tokens from `start`, PAD after the end."""
    part = tokens[:, start : start + max_frames]
    padded = np.full((2, max_frames), PAD, np.int32)
    padded[:, : part.shape[1]] = part
    return padded


def derived_seed(seed: int, name: str) -> int:
    """A seed of its own for each stream, 0..2**32-1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def id_hash(use: str, identity: str) -> int:
    """A number that the id of an example decides, 0..2**64-1."""
    return int.from_bytes(hashlib.sha256(f"{use}/{identity}".encode()).digest()[:8], "big")


class TrainingBatches:
    """Endless iterator of the wanted rows of each `Batch` (NumPy int32: context and actions [R, T], index [R]).

    Its whole state is `position`, the number of batches given so far. An example is [2, T] tokens, of which row
    `agent` holds the actions.
    """

    def __init__(
        self, examples: grain.MapDataset, frames: int, batch_size: int, start: int, rows: np.ndarray, agent: int
    ) -> None:
        self._examples, self._frames, self._batch_size, self._rows = examples, frames, batch_size, rows
        self._position, self._agent = start, agent

    @property
    def position(self) -> int:
        return self._position

    def __iter__(self) -> TrainingBatches:
        return self

    def __next__(self) -> Batch:
        first = self._position * self._batch_size
        if first + self._batch_size > MAX_EXAMPLES:
            raise UserError("the training stream has given 2^31 examples, its limit: start a run with another seed")
        index = (first + self._rows).astype(np.int32)
        tokens = [self._examples[int(i)] for i in index]
        self._position += 1
        parts = np.stack(tokens, axis=1) if tokens else np.zeros((2, 0, self._frames), np.int32)
        return Batch(parts[1 - self._agent], parts[self._agent], index)
