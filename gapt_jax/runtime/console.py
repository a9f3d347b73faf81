"""Console output: bars and tables on a terminal, plain lines elsewhere, one object with ``--json``."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from gapt_jax.runtime.files import strict_json
from gapt_jax.runtime.status import NOW

PLAIN_SECONDS = 10.0  # between two lines of progress where there is no terminal
LIVE_SECONDS = 0.25  # between two redraws of a bar
RATE_SECONDS = 60.0  # of recent past that the shown rate is measured over
Show = Callable[[int, str], None]  # takes the step reached and the line that tells of it
_NUMBER = re.compile(r"^[-+]?(\d[\d,]*(\.\d*)?|\.\d+)(e[-+]?\d+)?( ?%| ?± ?.+)?$")


class Console:
    """Writes what a command says. In JSON mode stdout holds nothing but the object given to `emit`."""

    def __init__(self, json_mode: bool = False) -> None:
        self.json_mode, self.is_silent = json_mode, False
        self._stream = sys.stderr if json_mode else sys.stdout
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show λ must not end a run
        self._rich = _rich_console(self._stream) if self._stream.isatty() else None

    def silence(self) -> None:
        """Stops all output: another process writes it."""
        self.json_mode, self._rich, self._stream = False, None, io.StringIO()
        self.is_silent = True

    def say(self, text: str) -> None:
        """One line for the user."""
        self._line(text, None)

    def warn(self, text: str) -> None:
        """One line that the user should not overlook."""
        self._line(f"warning: {text}", "yellow")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Aligned columns; those that hold numbers only are set to the right. None is shown as a dash."""
        cells = [[format_value(value) for value in row] for row in rows]
        right = [all(_is_numeric(row[i]) for row in cells) for i in range(len(columns))]
        if self._rich is None:
            self._line(_plain_table(title, columns, cells, right), None)
        else:
            self._rich.print(_rich_table(title, columns, cells, right))

    @contextmanager
    def progress(self, name: str, total: int | None, start: int = 0) -> Iterator[Progress]:
        """Progress of `total` steps of which `start` are done already, for example by an interrupted run.

        `total` is None where it is not known.
        """
        with self._shower(total, start) as (show, interval):
            tracker = Progress(name, total, start, show, interval)
            try:
                yield tracker
            finally:
                tracker.finish()

    @contextmanager
    def _shower(self, total: int | None, start: int) -> Iterator[tuple[Show, float]]:
        if self._rich is None:
            yield lambda step, text: self.say(text), PLAIN_SECONDS
        else:
            with _live_bar(self._rich, total, start) as show:
                yield show, LIVE_SECONDS

    @contextmanager
    def phases(self) -> Iterator[Callable[[str, int, int | None], None]]:
        """A function ``(what is going on, done, total)`` for work that names its phases; a bar for each. A phase that
        another one follows is done, though it did not say so."""
        with ExitStack() as stack:
            bar: Progress | None = None

            def report(phase: str, done: int, total: int | None) -> None:
                nonlocal bar
                if bar is None or phase != bar.name:
                    if bar is not None and bar.total is not None:
                        bar.step = bar.total
                    stack.close()
                    bar = stack.enter_context(self.progress(phase, total))
                bar.update(done)

            yield report

    def emit(self, value: Any) -> None:
        """Prints the result as one JSON object in JSON mode; otherwise nothing."""
        if self.json_mode:
            print(strict_json(value, indent=2), flush=True)

    def _line(self, text: str, style: str | None) -> None:
        if self._rich is None:
            print(text, file=self._stream, flush=True)
        else:
            self._rich.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class Progress:
    """Steps done, their rate and the latest values."""

    def __init__(self, name: str, total: int | None, start: int, show: Show, interval: float) -> None:
        self.name, self.total, self.step = name, total, start
        NOW.stage, NOW.step = name, start
        self._show_line, self._interval = show, interval
        self._values: Mapping[str, float] = {}
        self._began = self._shown = time.monotonic()
        self._shown_step = -1
        self._marks: deque[tuple[float, int]] = deque()

    def update(self, step: int, **values: float) -> None:
        """`step` steps are done. Values are read when they are shown: device arrays cost nothing before."""
        now = time.monotonic()
        self.step = NOW.step = step
        self._values = values or self._values
        if not self._marks or now - self._marks[-1][0] >= LIVE_SECONDS:
            self._marks.append((now, step))
        while len(self._marks) > 2 and now - self._marks[1][0] > RATE_SECONDS:
            self._marks.popleft()
        if now - self._shown >= self._interval:
            self._shown = now
            self._show(f"eta {format_seconds(self._seconds_left())}")

    def finish(self) -> None:
        """Shows the last state, if there is any news in it."""
        if self.step != self._shown_step:
            self._show(f"took {format_seconds(time.monotonic() - self._began)}")

    def rate(self) -> float | None:
        """Steps a second over the last minute, or None; the first step, which compiles, does not count."""
        if not self._marks or self.step <= self._marks[0][1]:
            return None
        return (self.step - self._marks[0][1]) / max(time.monotonic() - self._marks[0][0], 1e-9)

    def _seconds_left(self) -> float | None:
        rate = self.rate()
        return None if rate is None or self.total is None else (self.total - self.step) / rate

    def _show(self, clock: str) -> None:
        self._shown_step = self.step
        rate = self.rate()
        count = str(self.step) if self.total is None else f"{self.step}/{self.total}"
        speed = [] if rate is None else [f"{format_value(rate)} it/s"]
        values = [f"{name} {format_value(float(value))}" for name, value in self._values.items()]
        self._show_line(self.step, "  ".join([self.name, count, *speed, clock, *values]))


def format_value(value: object) -> str:
    """Numbers with four significant digits, None as a dash, anything else as text."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def format_seconds(seconds: float | None) -> str:
    """``2m10s``, ``3h05m``, ``7s``."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _is_numeric(cell: str) -> bool:
    return cell in ("", "-", "nan", "inf", "-inf") or bool(_NUMBER.match(cell))


def _plain_table(title: str, columns: Sequence[str], cells: list[list[str]], right: list[bool]) -> str:
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(row, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([title, line(columns), line(["-" * width for width in widths]), *map(line, cells)])


def _rich_console(stream: Any) -> Any:
    from rich.console import Console as RichConsole  # not needed where output is plain

    console = RichConsole(file=stream)
    return None if console.is_dumb_terminal else console


def _rich_table(title: str, columns: Sequence[str], cells: list[list[str]], right: list[bool]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for name, is_right in zip(columns, right, strict=True):
        table.add_column(Text(name), justify="right" if is_right else "left", no_wrap=is_right)
    for row in cells:
        table.add_row(*map(Text, row))
    return table


@contextmanager
def _live_bar(console: Any, total: int | None, start: int) -> Iterator[Show]:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    with Progress(BarColumn(20, table_column=Column(min_width=20)), text, console=console) as bar:
        task = bar.add_task("", total=total, completed=start)
        yield lambda step, line: bar.update(task, completed=step, description=line)


def drop_stdout() -> None:
    """What is written to stdout from now on goes nowhere, and so does what its buffer still holds: without a reader
    that would fail at exit, with code 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
