"""What a command tells its user: one clear sentence and an exit code, never a traceback."""

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]  # of the checkout, if this is one


class UserError(Exception):
    """Bad input. The message is one sentence that says what is wrong and what to do; the command exits with 2."""


class TrainingStopped(Exception):
    """Training stopped with its last good checkpoint intact; the message names the cause. Exit code 3."""


class Preempted(Exception):
    """The machine is being taken away; all is saved, and the same command goes on from there."""


class Interrupted(Preempted):
    """The user pressed Ctrl-C; all is saved, as for `Preempted`."""


def install(extra: str) -> str:
    """The command that installs an extra of this package. pip knows the extras of an installed one by its metadata."""
    if not (_ROOT / "pyproject.toml").is_file():
        return f"pip install 'gapt-jax[{extra}]'"
    place = "." if Path.cwd() == _ROOT else str(_ROOT)
    return f"pip install -e '{place}[{extra}]'"
