"""From prepared conversations to token batches: each participant in turn is the agent.

The tokens are those of a task, which says how to `Encode` frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grain
import numpy as np

from gapt_jax.data_pipeline.conversations.builders import Splits, open_splits, prepare
from gapt_jax.data_pipeline.conversations.conversation import Conversation
from gapt_jax.data_pipeline.examples import ALL_SPLITS, SPLITS
from gapt_jax.data_pipeline.preparing import PreparedDataset, Progress
from gapt_jax.data_pipeline.stream import (
    EvaluationSongs,
    TokenisedSplit,
    TrainingBatches,
    check_open,
    crop,
    derived_seed,
    id_hash,
)
from gapt_jax.errors import UserError

Encode = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""(speech, vocal sounds) [S, T] bool of a conversation -> (context, actions) [S, T], at most 256 tokens."""


def tokenise(conversations: Sequence[Conversation], frame_seconds: float, encode: Encode) -> TokenisedSplit:
    """Each participant of each conversation as an example of (context, actions), uint8."""
    ids: list[str] = []
    lengths: list[int] = []
    parts = [np.zeros((2, 0), np.uint8)]
    for conversation in conversations:
        pair = np.stack(encode(*conversation.frames(frame_seconds))).astype(np.uint8)  # [2, S, T]
        parts.append(pair.reshape(2, -1))
        ids += [f"{conversation.id}/{speaker}" for speaker in conversation.speakers]
        lengths += [pair.shape[2]] * pair.shape[1]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenisedSplit(np.array(ids, "U"), starts, np.concatenate(parts, axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class _Windows:
    """Window number -> tokens [2, T]. An agent of L frames has ceil(L / T) windows; each begins at a random place of
    its share of the L - T + 1, so all places are equally likely and longer conversations count more."""

    split: TokenisedSplit
    max_frames: int
    firsts: np.ndarray  # [N + 1] number of the first window of each agent

    @classmethod
    def of(cls, split: TokenisedSplit, max_frames: int) -> _Windows:
        counts = -(-np.diff(split.starts) // max_frames)
        return cls(split, max_frames, np.concatenate([[0], np.cumsum(counts)]))

    def __len__(self) -> int:
        return int(self.firsts[-1])

    def __call__(self, number: int, rng: np.random.Generator) -> np.ndarray:
        agent = int(np.searchsorted(self.firsts, number, side="right")) - 1
        first, end = self.firsts[agent], self.firsts[agent + 1]
        tokens = self.split.example(agent)
        places = max(0, tokens.shape[1] - self.max_frames) + 1
        start = int((number - first + rng.random()) / (end - first) * places)
        return crop(tokens, min(start, places - 1), self.max_frames)


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Opened conversations: `gapt_jax.task.Corpus`. `max_frames` is T of all batches and crops."""

    fingerprint: str  # of all datasets together, 12 hex digits
    mixture: tuple[tuple[str, float], ...]
    max_frames: int
    frame_seconds: float
    encode: Encode
    datasets: Mapping[str, Splits] = dataclasses.field(repr=False)
    _tokenised: dict[tuple[str, str], TokenisedSplit] = dataclasses.field(default_factory=dict, repr=False)

    def split(self, dataset: str, split: str) -> TokenisedSplit:
        """Tokens of all agents of one split, or of all three with split "all"; made once."""
        check_open(self.datasets, dataset, split)
        if (dataset, split) not in self._tokenised:
            chosen = SPLITS if split == ALL_SPLITS else (split,)
            conversations = [found for name in chosen for found in self.datasets[dataset][name]]
            self._tokenised[dataset, split] = tokenise(conversations, self.frame_seconds, self.encode)
        return self._tokenised[dataset, split]

    def training_examples(self, *, seed: int) -> grain.MapDataset:
        """Endless Grain dataset of tokens [2, T] int32 (context, actions); element i is global example i."""
        parts = []
        for name, _ in self.mixture:
            windows = _Windows.of(self.split(name, "train"), self.max_frames)
            order = grain.MapDataset.source(range(len(windows))).shuffle(seed=derived_seed(seed, f"{name}/order"))
            parts.append(order.repeat().random_map(windows, seed=derived_seed(seed, f"{name}/crop")))
        return grain.MapDataset.mix(parts, weights=[weight for _, weight in self.mixture])

    def training_batches(
        self, *, batch_size: int, seed: int, augment: bool = False, start: int = 0, rows: np.ndarray | None = None
    ) -> TrainingBatches:
        """Batches from number `start` on; of each only the `rows` that this host wants (default: all). Conversations
        are never augmented."""
        if start < 0:
            raise ValueError(f"start {start}")
        rows = np.arange(batch_size) if rows is None else rows
        examples = self.training_examples(seed=seed)
        return TrainingBatches(examples, self.max_frames, batch_size, start, rows, agent=1)

    def evaluation_songs(self, dataset: str, split: str, max_songs: int) -> EvaluationSongs:
        """At most `max_songs` windows, none of which overlap for one agent.

        An agent of L frames has max(1, L // T) windows, spread evenly from its first frame to its last. First comes one
        window of each agent, then a second of each that has two, and so on; agents, and the windows of an agent, are in
        hash order of their ids. So other conversations change no window, and more windows keep those that fewer have.
        """
        agents = self.split(dataset, split)
        if not len(agents.ids) or max_songs < 1:
            raise UserError(f"dataset '{dataset}' has no conversations in split {split}: choose another split")
        chosen = self._in_turns(agents)[:max_songs]
        crops = np.stack([crop(agents.example(agent), start, self.max_frames) for agent, start in chosen])
        ids = tuple(f"{agents.ids[agent]}/{start * self.frame_seconds:.1f}" for agent, start in chosen)
        return EvaluationSongs(crops[:, 0], crops[:, 1], ids, np.arange(len(chosen), dtype=np.int32))

    def _in_turns(self, agents: TokenisedSplit) -> list[tuple[int, int]]:
        """(agent, first frame) of all windows, in the order in which evaluation takes them."""
        turns = []
        for agent, (identity, length) in enumerate(
            zip(agents.ids.tolist(), np.diff(agents.starts).tolist(), strict=True)
        ):
            last = max(0, length - self.max_frames)
            count = last // self.max_frames + 1
            starts = [last * k // max(1, count - 1) for k in range(count)]
            starts.sort(key=lambda start: id_hash("window", f"{identity}/{start}"))
            agent_order = id_hash("order", identity)
            turns += [(turn, agent_order, identity, agent, start) for turn, start in enumerate(starts)]
        return [(agent, start) for *_, agent, start in sorted(turns)]


def _check_splits(prepared: PreparedDataset, splits: Splits) -> None:
    """Conversations that are trained on need some in all three splits."""
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise UserError(
            f"dataset '{prepared.name}' of data.mixture has no conversations in split {' and '.join(empty)} "
            f"({sum(map(len, splits.values()))} in {prepared.report['source']}): name the files after the "
            "splits, as in train.rttm, dev.rttm and test.rttm, or give more, or move "
            f"'{prepared.name}' to data.out_of_domain"
        )


def open_corpus(
    *,
    conversations: str | Path,
    mixture: Sequence[tuple[str, float]],
    out_of_domain: Sequence[str],
    max_frames: int,
    frame_seconds: float,
    encode: Encode,
    data_dir: Path,
    on_progress: Progress | None = None,
) -> Corpus:
    """Opens the datasets of an experiment, preparing those that are absent."""
    trained = [name for name, _ in mixture]
    names = list(dict.fromkeys([*trained, *out_of_domain]))
    if len(set(trained)) < len(trained):
        raise UserError("data.mixture names a dataset twice: give each dataset one weight")
    prepared = {name: prepare(name, conversations, data_dir, on_progress) for name in names}
    datasets = {name: open_splits(dataset) for name, dataset in prepared.items()}
    for name in trained:
        _check_splits(prepared[name], datasets[name])
    text = " ".join(f"{name}:{prepared[name].fingerprint}" for name in names)
    return Corpus(
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:12],
        mixture=tuple((name, float(weight)) for name, weight in mixture),
        max_frames=max_frames,
        frame_seconds=frame_seconds,
        encode=encode,
        datasets=datasets,
    )
