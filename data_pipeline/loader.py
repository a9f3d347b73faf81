"""From prepared datasets of songs to token batches: vocabulary, Grain training stream, fixed evaluation crops."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import grain
import numpy as np

from gapt_jax.data_pipeline import hygiene, store
from gapt_jax.data_pipeline.builders import check_present, open_splits, prepare
from gapt_jax.data_pipeline.examples import ALL_SPLITS, SPLITS
from gapt_jax.data_pipeline.preparing import PreparedDataset, Progress
from gapt_jax.data_pipeline.songs import FILE_ENDINGS, mask_intervals
from gapt_jax.data_pipeline.store import SplitFrames
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
from gapt_jax.vocabulary import CHORD_HOLD, FRAMES_PER_BEAT, NOTE_HOLD, NUM_PITCHES, Vocabulary

MAX_SHIFT = 6  # semitones up or down
ENOUGH_TUNES = 40  # all three splits have one in 97 of 100 such sets, as 2 * 0.9**40 is 3 %


def _tokenise(split: SplitFrames, vocabulary: Vocabulary) -> TokenisedSplit:
    tokens = np.stack([store.melody_tokens(split.frames), store.chord_tokens(split.frames, vocabulary)])
    return TokenisedSplit(split.ids, split.starts, tokens)


def choose_qualities(events: Mapping[int, int], coverage: float) -> list[tuple[int, ...]]:
    """Interval sets by falling frequency, the fewest whose share of all events reaches `coverage`.

    `events` counts chord events by interval mask; of equally frequent sets the lower mask goes first.
    """
    ordered = sorted(events, key=lambda mask: (-events[mask], mask))
    reached = np.cumsum([events[mask] for mask in ordered])
    needed = int(np.searchsorted(reached, coverage * reached[-1] * (1 - 1e-12))) + 1
    return [mask_intervals(mask) for mask in ordered[:needed]]


def build_vocabulary(splits: Iterable[SplitFrames], coverage: float) -> Vocabulary:
    """The vocabulary that covers at least `coverage` of the chord events of all the given splits together."""
    events: collections.Counter[int] = collections.Counter()
    for split in splits:
        for (_, mask), count in split.chord_events.items():
            events[mask] += count
    return Vocabulary.from_qualities(choose_qualities(events, coverage))


def unlisted_share(split: SplitFrames, vocabulary: Vocabulary) -> float:
    """Share of the chord events of a split whose chord is not in the vocabulary."""
    unlisted = sum(
        count
        for (root, mask), count in split.chord_events.items()
        if not vocabulary.nearest_chord(root, mask_intervals(mask))[1]
    )
    return unlisted / max(1, sum(split.chord_events.values()))


def transposition_table(vocabulary: Vocabulary) -> np.ndarray:
    """[13, V] int32: each token moved by -6..+6 semitones; a pitch beyond 0..127 comes back by an octave."""
    table = np.tile(np.arange(vocabulary.size, dtype=np.int32), (2 * MAX_SHIFT + 1, 1))
    pitch = np.arange(NUM_PITCHES)
    for row, shift in zip(table, range(-MAX_SHIFT, MAX_SHIFT + 1), strict=True):
        moved = pitch + shift
        moved += 12 * (moved < 0) - 12 * (moved >= NUM_PITCHES)
        chords = vocabulary.chord_transposition[shift % 12]
        row[NOTE_HOLD:CHORD_HOLD] = NOTE_HOLD + np.concatenate([moved, NUM_PITCHES + moved])
        row[CHORD_HOLD:] = CHORD_HOLD + np.concatenate([chords, vocabulary.num_chords + chords])
    return table


def crop_starts(length: int, max_frames: int, bars: np.ndarray | None) -> np.ndarray:
    """[P] int64, P >= 1: the frames of a song at which a crop may begin, in order.

    On beats (`bars` None) these are every fourth frame from its first one on; on bars, where `bars` [2] says what
    `store.SplitFrames` does of a song, its bar lines, rounded as its notes are: its pickup is never heard. The last one
    leaves a whole crop, where there is such a one. A song without a bar line begins at its first frame.
    """
    last = max(0, length - max_frames)
    if bars is None:
        return np.arange(0, last + 1, FRAMES_PER_BEAT)
    first, bar = bars.astype(np.float64)
    lines = np.floor(np.arange(first, length, bar) + 0.5).astype(np.int64)
    lines = lines[lines < length]
    whole = max(1, int(np.searchsorted(lines, last, side="right")))
    return lines[:whole] if len(lines) else np.zeros(1, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class _RandomCrop:
    """Song number -> tokens [2, T]: a random crop, moved by -6..+6 semitones."""

    split: TokenisedSplit
    bars: np.ndarray | None  # [N, 2] of `store.SplitFrames` where crops begin on bar lines
    shifts: np.ndarray | None  # [13, V] transposition table, None leaves the key alone
    max_frames: int

    def __call__(self, number: int, rng: np.random.Generator) -> np.ndarray:
        song = self.split.example(number)
        draw_start, draw_shift = rng.random(2)
        bars = None if self.bars is None else self.bars[number]
        starts = crop_starts(song.shape[1], self.max_frames, bars)
        part = crop(song, int(starts[int(draw_start * len(starts))]), self.max_frames)
        return part if self.shifts is None else self.shifts[int(draw_shift * len(self.shifts))][part]


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """Opened datasets, ready to be tokenised. `max_frames` is T of all batches and crops.

    `part` is what the agent plays: the actions of batches and evaluation songs; their context is the other one.
    """

    vocabulary: Vocabulary
    fingerprint: str  # of all datasets together, 12 hex digits
    unlisted_chord_share: dict[str, float]  # per dataset: share of its chords that became a nearest one
    mixture: tuple[tuple[str, float], ...]
    max_frames: int
    datasets: dict[str, dict[str, SplitFrames]] = dataclasses.field(repr=False)  # name -> split -> songs
    part: str = "chords"
    crops_on: str = "beats"  # or "bars": where crops begin
    _tokenised: dict[tuple[str, str], TokenisedSplit] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def _agent(self) -> int:
        """The row of tokens that the agent plays."""
        return 0 if self.part == "melody" else 1

    def _frames(self, dataset: str, split: str) -> SplitFrames:
        """The songs of a split or, in this order, of all three."""
        splits = self.datasets[dataset]
        return store.join(list(splits.values())) if split == ALL_SPLITS else splits[split]

    @functools.cached_property
    def _trained_windows(self) -> np.ndarray:
        return hygiene.windows_of_all(self.datasets[name]["train"] for name, _ in self.mixture)

    def split(self, dataset: str, split: str) -> TokenisedSplit:
        """Tokens of one split, or of all three with split "all"; made once."""
        check_open(self.datasets, dataset, split)
        if (dataset, split) not in self._tokenised:
            self._tokenised[dataset, split] = _tokenise(self._frames(dataset, split), self.vocabulary)
        return self._tokenised[dataset, split]

    def _bars(self, dataset: str, split: str) -> np.ndarray | None:
        """[N, 2] of the songs of a split or of all three, for `crop_starts`; None where crops begin on beats."""
        if self.crops_on == "beats":
            return None
        parts = [part for name, part in self.datasets[dataset].items() if split in (name, ALL_SPLITS)]
        return np.concatenate([part.bars for part in parts])

    def training_examples(self, *, seed: int, transpose: bool) -> grain.MapDataset:
        """Endless Grain dataset of tokens [2, T] int32 (melody, chords); element i is global example i."""
        shifts = transposition_table(self.vocabulary) if transpose else None
        parts = []
        for name, _ in self.mixture:
            split = self.split(name, "train")
            order = grain.MapDataset.source(range(len(split.ids))).shuffle(seed=derived_seed(seed, f"{name}/order"))
            crops = _RandomCrop(split, self._bars(name, "train"), shifts, self.max_frames)
            parts.append(order.repeat().random_map(crops, seed=derived_seed(seed, f"{name}/crop")))
        return grain.MapDataset.mix(parts, weights=[weight for _, weight in self.mixture])

    def training_batches(
        self, *, batch_size: int, seed: int, transpose: bool, start: int = 0, rows: np.ndarray | None = None
    ) -> TrainingBatches:
        """Batches from number `start` on; of each only the `rows` that this host wants (default: all)."""
        if start < 0:
            raise ValueError(f"start {start}")
        examples = self.training_examples(seed=seed, transpose=transpose)
        rows = np.arange(batch_size) if rows is None else rows
        return TrainingBatches(examples, self.max_frames, batch_size, start, rows, self._agent)

    def evaluation_songs(self, dataset: str, split: str, max_songs: int) -> EvaluationSongs:
        """At most `max_songs` songs of a split ("all": of all), the first in hash order of their ids, each
        cropped at a beat or bar line that its id decides. Neither file order nor the other songs change a crop. `seen`
        are those of whose whole melody a song of the training splits has a window (`hygiene.has_window_of`)."""
        songs = self.split(dataset, split)
        if not len(songs.ids) or max_songs < 1:
            raise UserError(f"dataset '{dataset}' has no songs to evaluate in split {split}: choose another split")
        order = sorted(range(len(songs.ids)), key=lambda n: (id_hash("order", str(songs.ids[n])), songs.ids[n]))
        chosen = order[:max_songs]
        bars = self._bars(dataset, split)
        crops = np.stack(
            [
                self._evaluation_crop(str(songs.ids[n]), songs.example(n), None if bars is None else bars[n])
                for n in chosen
            ]
        )
        ids = tuple(str(songs.ids[n]) for n in chosen)
        context, own = crops[:, 1 - self._agent], crops[:, self._agent]
        seen = hygiene.has_window_of(self._frames(dataset, split), self._trained_windows)[chosen]
        return EvaluationSongs(context, own, ids, np.arange(len(chosen), dtype=np.int32), seen)

    def _evaluation_crop(self, song_id: str, tokens: np.ndarray, bars: np.ndarray | None) -> np.ndarray:
        starts = crop_starts(tokens.shape[1], self.max_frames, bars)
        return crop(tokens, int(starts[id_hash("crop", song_id) % len(starts)]), self.max_frames)


def _at_bars_of_chords(splits: Mapping[str, SplitFrames]) -> dict[str, SplitFrames]:
    return {split: dataclasses.replace(part, bars=store.bars_by_chords(part)) for split, part in splits.items()}


def _check_splits(
    names: Sequence[str],
    prepared: Mapping[str, PreparedDataset],
    datasets: Mapping[str, Mapping[str, SplitFrames]],
) -> None:
    """Datasets that are trained on need songs in all three splits."""
    for name in names:
        empty = [split for split in SPLITS if not len(datasets[name][split])]
        if empty:
            source, songs = prepared[name].report["source"], sum(prepared[name].report["songs"].values())
            advice = (
                f"records say their split, so give some for each of {', '.join(SPLITS)}"
                if source.endswith(FILE_ENDINGS)
                else "a hash of their melody puts 80, 10 and 10 of a hundred imported tunes into "
                f"{', '.join(SPLITS)}, so give {ENOUGH_TUNES} or more"
            )
            raise UserError(
                f"dataset '{name}' of data.mixture has no songs in split {' and '.join(empty)} ({songs} in {source}): "
                f"{advice}, or move '{name}' to data.out_of_domain"
            )


def open_corpus(
    *,
    songs: str,
    mixture: Sequence[tuple[str, float]],
    out_of_domain: Sequence[str],
    max_frames: int,
    chord_coverage: float,
    data_dir: Path,
    part: str = "chords",
    crops_on: str = "beats",
    vocabulary: Vocabulary | None = None,
    on_progress: Progress | None = None,
) -> Corpus:
    """Opens the datasets of an experiment, preparing those that are absent.

    The vocabulary, unless given, comes from the train splits of the mixture. `unlisted_chord_share` counts
    the train split of a mixture dataset, all songs of an out-of-domain one. Where crops begin on bars, these are
    `store.bars_by_chords`, and the fingerprint changes with them.
    """
    names = list(dict.fromkeys([name for name, _ in mixture] + list(out_of_domain)))
    if len({name for name, _ in mixture}) < len(mixture):
        raise UserError("data.mixture names a dataset twice: give each dataset one weight")
    check_present(names, songs, data_dir)
    prepared = {name: prepare(name, songs, data_dir, on_progress) for name in names}
    datasets = {name: open_splits(dataset) for name, dataset in prepared.items()}
    _check_splits([name for name, _ in mixture], prepared, datasets)
    trained = {name: datasets[name]["train"] for name, _ in mixture}
    vocabulary = vocabulary or build_vocabulary(trained.values(), chord_coverage)
    counted = {name: trained.get(name) or store.join(list(datasets[name].values())) for name in names}
    text = " ".join(f"{name}:{prepared[name].fingerprint}" for name in names)
    if crops_on == "bars":
        datasets = {name: _at_bars_of_chords(splits) for name, splits in datasets.items()}
        text = " ".join([text, *(store.bars_fingerprint(datasets[name]) for name in names)])
    return Corpus(
        vocabulary=vocabulary,
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:12],
        unlisted_chord_share={name: unlisted_share(part, vocabulary) for name, part in counted.items()},
        mixture=tuple((name, float(weight)) for name, weight in mixture),
        max_frames=max_frames,
        datasets=datasets,
        part=part,
        crops_on=crops_on,
    )
