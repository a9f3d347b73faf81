"""How a command ends: its exit code, and one sentence for an error."""

from __future__ import annotations

import errno
import os
import re
import sys

from gapt_jax.errors import TrainingStopped, UserError

EXIT_FAULT, EXIT_BAD_INPUT, EXIT_TRAINING_STOPPED = 1, 2, 3
EXIT_PREEMPTED, EXIT_LOST_HOST, EXIT_INTERRUPTED, EXIT_UNREAD = 42, 43, 130, 141
_LOST_HOST = re.compile(r"connection (reset|closed|refused)|UNAVAILABLE|DEADLINE_EXCEEDED|heartbeat|peer", re.I)
_DISK_FAULTS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
)


def explain(error: Exception) -> tuple[int, str]:
    """Exit code and sentence for an error that ended a command."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return EXIT_BAD_INPUT, text
    if isinstance(error, TrainingStopped):
        return EXIT_TRAINING_STOPPED, text
    if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
        where = f": {error.filename}" if error.filename else ""
        return EXIT_BAD_INPUT, f"{(error.strerror or 'the disk refuses').lower()}{where}"
    first_line = str(error).strip().partition("\n")[0]
    if is_one_of_many() and type(error).__name__ == "JaxRuntimeError" and _LOST_HOST.search(text):
        return EXIT_LOST_HOST, f"another host was lost ({first_line[:120]}): run the same command on all hosts again"
    return EXIT_FAULT, f"{type(error).__name__}: {first_line} (run again with --debug for the traceback)"


def leave_other_hosts(code: int) -> None:
    """Ends at once where other processes would be waited for that in turn wait for this one."""
    if is_one_of_many():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_one_of_many() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1
