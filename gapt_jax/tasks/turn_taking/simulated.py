"""Simulated conversations: three participants who take turns, for tests and a first try without data.

They are no model of people. Each conversation draws how talkative each participant is and how long turns last; turns
follow each other with gaps or overlaps around 200 ms (the mean of ten languages in Stivers et al. 2009,
doi:10.1073/pnas.0903616106); listeners say something short during turns, and laugh after some.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.task import PAD
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.types import Batch

NAME = "simulated"  # as a setting
ALL = "all"  # the one data set there is
PARTICIPANTS = 3
MINUTES = 10
CONVERSATIONS = {"train": 48, "valid": 8, "test": 8}
GAP, GAP_SPREAD = 0.2, 0.5  # s between the turns of two
SAME_AGAIN = 0.3  # share of turns after which the same participant goes on
PAUSE = (0.6, 2.0)  # s before he does
BACKCHANNELS, LAUGHS = 5.0, 1.0  # a minute of a turn, by each listener


@dataclasses.dataclass(frozen=True, eq=False)
class Excerpts:
    """Fixed excerpts of N conversations, each beside one participant."""

    context: np.ndarray  # [N, T] int32
    actions: np.ndarray  # [N, T] int32
    ids: tuple[str, ...]
    index: np.ndarray  # [N] int32


def conversation(seed: int, number: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """(speech, vocal sounds) of one conversation, [S, T] bool."""
    rng = np.random.default_rng([seed, number])
    frames = int(seconds / tokens.FRAME_SECONDS)
    speech, vocal = np.zeros((2, PARTICIPANTS, frames), bool)
    talkative, length = rng.dirichlet(np.full(PARTICIPANTS, 2.0)), rng.uniform(2.0, 6.0)

    def fill(part: np.ndarray, start: float, end: float) -> None:
        first, last = (max(0, round(x / tokens.FRAME_SECONDS)) for x in (start, end))
        part[first : max(last, first + 1)] = True

    speaker, begin = int(rng.choice(PARTICIPANTS, p=talkative)), 0.0
    while begin < seconds:
        end = begin + min(float(rng.lognormal(np.log(length), 0.8)), 40.0)
        fill(speech[speaker], begin, end)
        for listener in set(range(PARTICIPANTS)) - {speaker}:
            for at in begin + (end - begin) * rng.random(rng.poisson(BACKCHANNELS * (end - begin) / 60)):
                fill(speech[listener], at, at + rng.uniform(0.3, 0.8))
            if rng.random() < LAUGHS * (end - begin) / 60:
                fill(vocal[listener], end, end + rng.uniform(0.5, 1.5))
        if rng.random() < SAME_AGAIN:
            begin = end + rng.uniform(*PAUSE)
            continue
        others = np.where(np.arange(PARTICIPANTS) == speaker, 0, talkative)
        speaker = int(rng.choice(PARTICIPANTS, p=others / others.sum()))
        begin = max(begin + tokens.FRAME_SECONDS, end + rng.normal(GAP, GAP_SPREAD))
    return speech, vocal


@dataclasses.dataclass(frozen=True, eq=False)
class Simulated:
    """A corpus (`gapt_jax.task.Corpus`) of simulated conversations; each participant in turn is the agent."""

    frames: int  # T
    counts: tuple[tuple[str, int], ...] = tuple(CONVERSATIONS.items())  # conversations by split
    minutes: float = MINUTES

    @functools.cached_property
    def splits(self) -> dict[str, np.ndarray]:
        """Tokens [2, R, F] int32 by split: context and actions of each participant of each conversation."""
        found = {}
        for seed, (split, count) in enumerate(self.counts):
            whole = [tokens.encode(*conversation(seed, number, 60 * self.minutes)) for number in range(count)]
            found[split] = np.concatenate([np.stack(parts) for parts in whole], axis=1)
        return found

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for parts in self.splits.values():
            digest.update(parts.tobytes())
        return digest.hexdigest()[:12]

    def _excerpts(self, parts: np.ndarray, rows: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(context, actions) [N, T] from frame `starts` [N] on; PAD after the end."""
        frame = starts[:, None] + np.arange(self.frames)
        inside = frame < parts.shape[2]
        found = parts[:, rows[:, None], np.minimum(frame, parts.shape[2] - 1)]
        context, actions = np.where(inside, found, PAD)
        return context, actions

    def training_batches(
        self, *, batch_size: int, seed: int, augment: bool, start: int = 0, rows: np.ndarray | None = None
    ) -> Iterator[Batch]:
        """Excerpt i of a seed is always the same."""
        parts, rows = self.splits["train"], np.arange(batch_size) if rows is None else rows
        places = max(1, parts.shape[2] - self.frames + 1)
        for number in range(start, 1 << 62):
            index = number * batch_size + rows
            draws = np.array([np.random.default_rng([seed, i]).random(2) for i in index.tolist()]).reshape(-1, 2).T
            row, first = (draws * np.array([[parts.shape[1]], [places]])).astype(np.int64)
            yield Batch(*self._excerpts(parts, row, first), index.astype(np.int32))

    def evaluation_songs(self, dataset: str, split: str, max_songs: int) -> Excerpts:
        """Excerpts that do not overlap, in an order that mixes conversations."""
        if dataset != ALL or split not in self.splits:
            known = ", ".join(self.splits)
            raise UserError(f"simulated conversations are one set, '{ALL}', of {known}: there is no {dataset}/{split}")
        parts = self.splits[split]
        starts, rows = np.meshgrid(np.arange(0, max(1, parts.shape[2] - self.frames + 1), self.frames),
                                   np.arange(parts.shape[1]), indexing="ij")  # fmt: skip
        chosen = np.random.default_rng(0).permutation(rows.size)[:max_songs]
        row, first = rows.ravel()[chosen], starts.ravel()[chosen]
        context, actions = self._excerpts(parts, row, first)
        who, when = divmod(row, PARTICIPANTS), first * tokens.FRAME_SECONDS
        ids = tuple(f"{split} {c + 1}, participant {p + 1}, from {t:.0f} s" for c, p, t in zip(*who, when, strict=True))
        return Excerpts(context, actions, ids, np.arange(len(ids), dtype=np.int32))
