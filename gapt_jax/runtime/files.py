"""Files that are either whole or absent, JSON that any reader accepts, and the revision of the source."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

from gapt_jax.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[1]
_SOURCE = _PACKAGE.parent


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replaces the file in one step: a crash leaves the old content or the new, never a part of either."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path, made_by: str) -> Any:
    """The content of a JSON file; `made_by` is the command that writes it, named in the error."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist: make it with '{made_by}'") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a file: remove it and run '{made_by}'") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): make it anew with '{made_by}'") from None


UPSTREAM = "upstream"  # in a run or an ablation: the finished stages that it used
DONE = "done.json"  # in the folder of a finished stage


def stage_warnings(workdir: Path) -> list[str]:
    """What the supervised stages of a run, or of the ablation that it is part of, have ended with."""
    files = [path for root in (workdir, workdir.parent) for path in sorted((root / UPSTREAM).glob(f"*/{DONE}"))]
    return list(dict.fromkeys(filter(None, (read_json(path, "gapt run").get("warning") for path in files))))


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON text in which NaN and infinities are null; paths become text, arrays become numbers and lists."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def source_hash() -> str:
    """Twelve hex digits of all that computes; the same for the same code, in a checkout or installed from a wheel."""
    folders = os.walk(_PACKAGE, followlinks=True)  # in a checkout, three folders are links
    files = sorted(Path(folder, name) for folder, _, names in folders for name in names if name.endswith(".py"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def git_revision() -> str:
    """Commit of the source checkout, with ``+dirty`` where it differs; ``unknown`` outside a checkout."""
    if not (_SOURCE / ".git").exists():
        return "unknown"
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    if commit is None or changes is None:
        return "unknown"
    return commit + ("+dirty" if changes else "")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_SOURCE), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
