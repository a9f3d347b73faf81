import io
import json
import sys

import pytest

from gapt_jax.runtime import console as module
from gapt_jax.runtime.console import Console


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return terminal


def test_plain_lines_go_to_stdout(capsys):
    console = Console()
    console.say("[bold]not markup[/bold]")
    console.warn("low")
    console.emit({"a": 1})
    out, err = capsys.readouterr()
    assert out == "[bold]not markup[/bold]\nwarning: low\n" and err == ""


def test_json_mode_keeps_stdout_for_one_object(capsys):
    console = Console(json_mode=True)
    console.say("hello")
    console.table("t", ["a"], [[1]])
    with console.progress("mle", 2) as bar:
        bar.update(2, loss=1.0)
    console.emit({"a": float("nan"), "b": 2})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": None, "b": 2}
    assert err.startswith("hello\n") and "mle  2/2" in err


def test_plain_table_is_aligned_and_numbers_are_to_the_right(capsys):
    Console().table(
        "scores", ["metric", "mle", "gapt"], [["vendi", 12.34567, None], ["n", 512, 7], ["x", "1 ± 0.1", 3]]
    )
    assert capsys.readouterr().out.splitlines() == [
        "scores",
        "metric      mle  gapt",
        "------  -------  ----",
        "vendi     12.35     -",
        "n           512     7",
        "x       1 ± 0.1     3",
    ]


def test_table_without_rows(capsys):
    Console().table("nothing", ["a", "b"], [])
    assert capsys.readouterr().out.splitlines() == ["nothing", "a  b", "-  -"]


def test_plain_progress_says_a_line_every_ten_seconds_and_one_at_the_end(capsys, clock):
    with Console().progress("mle", 2000, start=380) as bar:
        for step in range(381, 401):
            clock.now += 1.0 if step > 381 else 60.0  # the first step compiles
            bar.update(step, loss=1.2344, kl=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "mle  381/2000  eta -  loss 1.234  kl 0.5"
    assert lines[1] == "mle  391/2000  1 it/s  eta 26m49s  loss 1.234  kl 0.5"
    assert lines[2] == "mle  400/2000  1 it/s  took 1m19s  loss 1.234  kl 0.5"
    assert len(lines) == 3


def test_values_are_not_read_before_they_are_shown(capsys, clock):
    class OnDevice:
        reads = 0

        def __float__(self):
            OnDevice.reads += 1
            return 1.0

    with Console().progress("gapt", 100) as bar:
        for step in range(1, 101):
            bar.update(step, loss=OnDevice())
    assert OnDevice.reads == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_failing_step_still_shows_where_it_was(capsys, clock):
    with pytest.raises(KeyError), Console().progress("gapt", 100) as bar:
        bar.update(3, loss=2.0)
        raise KeyError
    assert capsys.readouterr().out.startswith("gapt  3/100")


def test_phases_are_bars_of_their_own(capsys, clock):
    with Console().phases() as report:
        report("reading", 1, None)
        report("reading", 2, None)
        report("writing", 5, 5)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [["reading", "2"], ["writing", "5/5"]]


def test_a_phase_that_another_follows_is_done(capsys, clock):
    with pytest.raises(KeyError), Console().phases() as report:
        report("writing grammar", 0, 3600)
        report("reading it back", 1, 3600)
        raise KeyError
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[:2] for line in lines] == [["writing grammar", "3600/3600"], ["reading it back", "1/3600"]]


def test_terminal_shows_a_live_bar_and_lines_above_it(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal)  # not in the fixture: pytest sets stdout after it
    console = Console()
    with console.progress("mle", 10) as bar:
        console.say("[note] a line")
        bar.update(10, loss=1.5)
    console.table("scores", ["metric", "[x]"], [["vendi", 1.5]])
    shown = terminal.getvalue()
    assert "\x1b[" in shown and "mle  10/10" in shown and "loss 1.5" in shown
    assert "[note] a line" in shown and "[x]" in shown


def test_text_that_the_terminal_cannot_encode_is_no_error(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Console().say("λ = 1")
    assert raw.getvalue() == b"\\u03bb = 1\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (12, "12"), (0.000123456, "0.0001235"), (12345.6, "12346"), (2e12, "2e+12"), (True, "True")],
)
def test_format_value(value, text):
    assert module.format_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.4, "0s"), (59.6, "1m00s"), (130, "2m10s"), (11_100, "3h05m")]
)
def test_format_seconds(seconds, text):
    assert module.format_seconds(seconds) == text
