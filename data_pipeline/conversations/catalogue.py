"""What `gapt data` says of conversations: plain rows, printed by the command line."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gapt_jax.data_pipeline.conversations.builders import open_splits, prepare
from gapt_jax.data_pipeline.conversations.conversation import Conversation
from gapt_jax.data_pipeline.conversations.folder import read, source_files
from gapt_jax.data_pipeline.conversations.sources import fingerprint_of, opened
from gapt_jax.data_pipeline.examples import SPLITS
from gapt_jax.data_pipeline.preparing import REPORT, Progress

Row = dict[str, Any]


def list_datasets(source: str | Path, data_dir: Path) -> list[Row]:
    """Datasets of a folder of conversations: name, source, bytes, whether each is prepared."""
    return [
        {
            "name": name,
            "source": str(path),
            "bytes": sum(file.stat().st_size for file in source_files(path)),
            "prepared": (data_dir / f"{name}-{fingerprint_of(path)}" / REPORT).is_file(),
        }
        for name, path in opened(source)[1].items()
    ]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """Faults (file, line, reason), how many in all, one row of counts a dataset, and records of types not read."""

    faults: list[Row]
    faults_total: int
    datasets: list[Row]
    skipped: dict[str, int]


def check(source: str | Path) -> CheckResult:
    """Reads one RTTM file, or all of a folder, and lists what is wrong with it."""
    faults: list[Row] = []
    rows: list[Row] = []
    total = 0
    skipped: collections.Counter[str] = collections.Counter()
    for name, path in opened(source)[1].items():
        found = read(path)
        counts = collections.Counter(conversation.split for conversation in found.conversations)
        rows.append({"dataset": name} | {split: counts[split] for split in SPLITS} | {"faults": found.faults.total})
        faults += [dataclasses.asdict(fault) for fault in found.faults.kept]
        total += found.faults.total
        skipped += found.skipped
    return CheckResult(faults, total, rows, dict(skipped.most_common()))


@dataclasses.dataclass
class _Counts:
    """Numbers of frames and segments, added up over conversations."""

    frames: int = 0  # of conversations
    silent: int = 0  # in which nobody speaks
    overlapped: int = 0  # in which two or more speak
    alone: int = 0  # frames of a participant in which all others are silent
    spoken_alone: int = 0  # and he speaks
    beside_one: int = 0  # in which one other speaks
    spoken_beside_one: int = 0
    starts: int = 0  # of speech, but for those in the first frame
    starts_in_speech: int = 0  # before which another spoke
    segments: int = 0
    short_segments: int = 0  # under 1 s
    vocal_sounds: int = 0

    def add(self, conversation: Conversation, frame_seconds: float) -> None:
        speech, _ = conversation.frames(frame_seconds)
        together = speech.sum(axis=0)
        others = together - speech
        self.frames += len(together)
        self.silent += int(np.count_nonzero(together == 0))
        self.overlapped += int(np.count_nonzero(together >= 2))
        self.alone += int(np.count_nonzero(others == 0))
        self.spoken_alone += int(np.count_nonzero(speech & (others == 0)))
        self.beside_one += int(np.count_nonzero(others == 1))
        self.spoken_beside_one += int(np.count_nonzero(speech & (others == 1)))
        starts = speech[:, 1:] & ~speech[:, :-1]
        self.starts += int(np.count_nonzero(starts))
        self.starts_in_speech += int(np.count_nonzero(starts & (others[:, :-1] > 0)))
        lengths = (conversation.ends - conversation.starts)[~conversation.is_vocal]
        self.segments += len(lengths)
        self.short_segments += int(np.count_nonzero(lengths < 1))
        self.vocal_sounds += int(np.count_nonzero(conversation.is_vocal))


def describe(conversations: Sequence[Conversation], frame_seconds: float) -> Row:
    """Figures of conversations. Shares are of frames, but `under_1_s` of segments and `starts_in_speech` of starts."""
    counts = _Counts()
    for conversation in conversations:
        counts.add(conversation, frame_seconds)

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "conversations": len(conversations),
        "hours": sum(conversation.seconds for conversation in conversations) / 3600,
        "segments": counts.segments,
        "under_1_s": share(counts.short_segments, counts.segments),
        "vocal_sounds": counts.vocal_sounds,
        "nobody": share(counts.silent, counts.frames),
        "two_or_more": share(counts.overlapped, counts.frames),
        "speaks_alone": share(counts.spoken_alone, counts.alone),
        "speaks_beside_one": share(counts.spoken_beside_one, counts.beside_one),
        "starts_in_speech": share(counts.starts_in_speech, counts.starts),
    }


def stats(
    name: str, source: str | Path, data_dir: Path, frame_seconds: float, on_progress: Progress | None = None
) -> tuple[Row, list[Row]]:
    """Figures of a dataset (prepared first where needed): one row for the whole, one for each split."""
    prepared = prepare(name, source, data_dir, on_progress)
    rows = [{"split": split} | describe(found, frame_seconds) for split, found in open_splits(prepared).items()]
    whole = {key: value for key, value in prepared.report.items() if key != "faults"}
    return whole | {"path": str(prepared.path)}, rows
