"""MIDI ports by their names, through mido and its backend python-rtmidi (extra ``midi``)."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mido

from gapt_jax.errors import UserError, install
from gapt_jax.live.duet import Timed

VIRTUAL = "virtual"  # in the place of a name: a port of our own, which other programs connect to
_OWN = "gapt"  # its name


def chosen(name: str, names: Sequence[str], kind: str) -> str:
    """The port that is called so, or the only one whose name holds it. Raises UserError, which lists those of a `kind`
    that there are."""
    found = [other for other in names if other == name] or [other for other in names if name.lower() in other.lower()]
    if len(set(found)) == 1:
        return found[0]
    there = ", ".join(dict.fromkeys(f"'{other}'" for other in names)) or "none"
    what = f"more than one MIDI {kind} is called '{name}'" if found else f"there is no MIDI {kind} '{name}'"
    raise UserError(f"{what} (there is: {there}): name one of these, or '{VIRTUAL}' for one of its own")


@contextlib.contextmanager
def opened(input_name: str, output_name: str) -> Iterator[tuple[Callable[[], list[Timed]], Callable[[Any], None]]]:
    """(what came since it was last called, at times of `time.monotonic`; what sends a message) of an input and an
    output. Raises UserError where they cannot be had."""
    came: deque[Timed] = deque()  # filled by a thread of the backend

    def incoming() -> list[Timed]:
        return [came.popleft() for _ in range(len(came))]

    with (
        _open("output", output_name) as output,
        _open("input", input_name, callback=lambda message: came.append((time.monotonic(), message))),
    ):
        yield incoming, output.send


def _open(kind: str, name: str, **options: Any) -> Any:
    names, port = {
        "input": (mido.get_input_names, mido.open_input),
        "output": (mido.get_output_names, mido.open_output),
    }[kind]
    try:
        if name == VIRTUAL:
            return port(_OWN, virtual=True, **options)
        return port(chosen(name, names(), kind), **options)
    except ImportError:
        raise UserError(f"MIDI ports need python-rtmidi: {install('midi')}") from None
    except NotImplementedError:
        raise UserError(f"this system has no virtual MIDI ports: name an {kind} in the place of '{VIRTUAL}'") from None
    except OSError as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"the MIDI {kind} '{name}' cannot be opened ({reason}): see whether another program uses it, and on Linux "
            "whether there is /dev/snd/seq, ALSA's sequencer"
        ) from None
