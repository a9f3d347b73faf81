"""One process at a time in a folder: a lock file that names its holder and shows that the holder lives.

The file is made with O_EXCL, which NFS and FUSE buckets keep as well as local disks, and read back: a bucket that lets
two processes write keeps one of them. Locks of the kernel (flock) end at the machine on a bucket, and stay with a
machine that is gone on NFS; they only guard the removal of a stale file here. A holder on this machine lives while its
process does. Of one on another machine, or in another container, the file's modification time must move.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

NAME = ".lock"
BEAT_SECONDS = 10.0  # between two signs of life
SILENCE_SECONDS = 120.0  # without one, and the holder on another machine counts as dead
POLL_SECONDS = 1.0  # between two looks of a process that waits
_TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # as `files.write_atomic` names them, after their process


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who made a lock file."""

    host: str
    machine: str  # the boot and the process namespace in which `pid` means something
    pid: int
    process_start: str  # tells the process from a later one of the same number
    since: str  # local time at the holder
    token: str  # of this one lock

    def __str__(self) -> str:
        return f"process {self.pid} of host {self.host}, since {self.since}"


UNKNOWN = Holder("unknown", "", 0, "", "an unknown time", "")  # the file is being written, or is damaged


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()  # not Linux


def _process_start(pid: int) -> str | None:
    """When a process of this machine was started, "" where that cannot be known; None if it is not there or dead."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


class Lock:
    """The lock of one folder, free or held by somebody."""

    def __init__(self, folder: Path, name: str = NAME):
        self.path = folder / name
        self._seen: tuple[Holder, int, float] | None = None  # holder, mtime, when we saw that mtime first
        self.is_alive = False  # whether the holder of the last attempt is known to live
        self.token = ""
        self._made: list[Path] = []  # folders that were made for the lock, the innermost first

    def attempt(self) -> Holder | None:
        """Takes the lock if it is free or its holder is dead: None then, else who holds it.

        Raises OSError where no file can be made in the folder.
        """
        self._made += itertools.takewhile(lambda folder: not folder.exists(), self.path.parents)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._make():
            return None
        holder = self._read()
        if holder is None:  # it has gone meanwhile
            return None if self._make() else UNKNOWN
        if not self._is_dead(holder):
            return holder
        self._remove(holder)
        return None if self._make() else self._read() or UNKNOWN

    def _make(self) -> bool:
        mine = Holder(
            socket.gethostname(),
            _machine(),
            os.getpid(),
            _process_start(os.getpid()) or "",
            time.strftime("%Y-%m-%d %H:%M:%S"),
            uuid.uuid4().hex,
        )
        try:
            with open(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w") as stream:
                stream.write(json.dumps(dataclasses.asdict(mine)))
                stream.flush()
                os.fsync(stream.fileno())
        except FileExistsError:
            return False
        except OSError:
            if self._read() in (None, UNKNOWN):  # a full disk; on a bucket another may have written it first
                self.path.unlink(missing_ok=True)
                raise
        if self._read() != mine:
            return False
        self.token = mine.token
        _heart.add(self)
        return True

    def _read(self) -> Holder | None:
        """Who holds it; None where there is no file."""
        try:
            return Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return UNKNOWN

    def _is_dead(self, holder: Holder) -> bool:
        self.is_alive = False
        if holder.machine == _machine():
            started = _process_start(holder.pid)
            self.is_alive = started is not None and started == holder.process_start
            return not self.is_alive
        try:
            beat = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()  # clocks of other machines may go wrong
        if self._seen is None or self._seen[:2] != (holder, beat):
            self.is_alive = self._seen is not None and self._seen[0] == holder
            self._seen = (holder, beat, now)
        return now - self._seen[2] > SILENCE_SECONDS

    def _remove(self, holder: Holder) -> None:
        """Removes the file of a dead holder, unless another process has done so and made its own."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as stream:
            with contextlib.suppress(OSError):  # a file system without such locks
                fcntl.flock(stream, fcntl.LOCK_EX)
            if self._read() == holder:
                self.path.unlink()

    def is_mine(self) -> bool:
        holder = self._read()
        return holder is not None and holder.token == self.token != ""

    def release(self) -> None:
        _heart.remove(self)
        with contextlib.suppress(OSError):
            if self.is_mine():
                self.path.unlink()
                for folder in self._made:
                    folder.rmdir()  # raises where something has come into it
        self.token = ""


class _Heart:
    """The thread that shows other machines that the holder of this process's locks lives."""

    def __init__(self) -> None:
        self._locks: set[Lock] = set()
        self._guard = threading.Lock()
        self._is_running = False

    def add(self, lock: Lock) -> None:
        with self._guard:
            self._locks.add(lock)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._beat, name="locks", daemon=True).start()

    def remove(self, lock: Lock) -> None:
        with self._guard:
            self._locks.discard(lock)

    def held(self) -> set[Path]:
        with self._guard:
            return {lock.path.resolve() for lock in self._locks}

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_SECONDS)
            with self._guard:
                locks = [*self._locks]
            for lock in locks:
                with contextlib.suppress(OSError):
                    if lock.is_mine():
                        os.utime(lock.path)


_heart = _Heart()


@contextlib.contextmanager
def in_turn(folder: Path, name: str = NAME, on_wait: Callable[[Holder], None] = lambda _: None) -> Iterator[bool]:
    """Waits until no other process holds the lock, and tells once who does.

    Gives whether the lock was taken: False where this very process holds it already.
    """
    lock = Lock(folder, name)
    if lock.path.resolve() in _heart.held():
        yield False
        return
    is_told = False
    while (holder := lock.attempt()) is not None:
        if not is_told:
            is_told = True
            on_wait(holder)
        time.sleep(POLL_SECONDS)
    try:
        yield True
    finally:
        lock.release()


def clean(folder: Path, *patterns: str) -> None:
    """Removes what killed processes have left in a folder: half-written files, and what matches the patterns.

    Only the holder of the folder's lock may do that.
    """
    for path in folder.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and _process_start(int(found[1])) is None:
            _discard(path)
    for pattern in patterns:
        for path in folder.glob(pattern):
            _discard(path)


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
