"""What examples of every kind share: the splits, and what is said of those that were left out."""

from __future__ import annotations

import dataclasses
import hashlib

SPLITS = ("train", "valid", "test")
ALL_SPLITS = "all"  # the three together
_SHARES = (80, 90)  # of a hundred groups: where training and validation end


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A line of a file that was left out, and why; lines count from 1."""

    file: str
    line: int
    reason: str


def split_of(group: str) -> str:
    """Training, validation or test (80, 10, 10 of a hundred), by the group's name alone: no order of files, no
    machine and no other example has a say."""
    number = int(hashlib.sha1(group.encode()).hexdigest(), 16) % 100
    return SPLITS[sum(number >= share for share in _SHARES)]
