"""A whole benchmark: ceilings first, then suite by suite, each compiled ahead and timed in turns."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gapt_jax.benchmark import ceilings, public
from gapt_jax.benchmark.cases import SUITES, Size
from gapt_jax.benchmark.measure import Case, Ceilings, Run, in_turns, row, with_growth
from gapt_jax.benchmark.serve_cases import serve_cases
from gapt_jax.live.model import LiveModel
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import compiling_anew
from gapt_jax.tasks.accompaniment.config import Experiment

SMALL, PUBLISHED, YARDSTICK = "small", "published", "yardstick"
# Interval sets: of the runs of `small`; 2,820 chords, as published; V = 6,164.
QUALITIES = {SMALL: 11, PUBLISHED: 235, YARDSTICK: 246}
ROLLOUT_FRAMES = {YARDSTICK: 256}  # where they are not those of an iteration
CEILING_REPEATS = 5  # at least
MOST_SONGS_ON_CPU = {PUBLISHED: 8}
ALL_SUITES = SUITES | {"serve": serve_cases}
FRAME_REPEATS = {"serve": 40}  # at least, of suites whose rows are single frames: for their p95
Suite = Callable[[Sequence[Size]], Iterator[Case]]


def bench(
    experiments: Mapping[str, Experiment],
    suites: Sequence[str],
    repeats: int,
    console: Console,
    policies: Sequence[LiveModel] = (),
    others: Mapping[str, Suite] = {},
    so_far: Callable[[dict[str, Any]], None] = lambda found: None,
    trace: Callable[[str, Run], None] = lambda name, run: None,
) -> dict[str, Any]:
    """Everything that is measured, ready for JSON. `experiments` by size; growth is that of the small one. `policies`
    play live, in place of random ones of the sizes. `others` are suites of what this package may not import. `so_far`
    gets what is known after each turn of a suite; `trace` gets each row's name and run when its suite is timed."""
    machine = ceilings.machine()
    limits = MOST_SONGS_ON_CPU if ceilings.is_cpu() else {}
    dtype = ceilings.dtype_used()
    sizes = {
        n: Size.of(n, e, QUALITIES[n], dtype, limits.get(n), ROLLOUT_FRAMES.get(n), has_kernel=ceilings.has_kernel())
        for n, e in experiments.items()
    }
    if ceilings.is_cpu():  # networks of a few layers are fastest on a device for each core
        sizes |= {name: sizes[name].spread() for name in (SMALL, YARDSTICK) if name in sizes}
    with compiling_anew(), console.phases() as report:
        report("ceilings", 0, None)
        most = ceilings.measure(max(repeats, CEILING_REPEATS))
        rows: list[dict[str, Any]] = []

        def found(more: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
            return {
                "schema": 1,
                "ceilings": {**machine, "flops_per_s": most.flops, "bytes_per_s": most.bandwidth},
                "rows": [row | {"times_public": public.times_public(row)} for row in (*rows, *more)],
            }

        for suite in suites:
            report(f"compiling {suite}", 0, None)
            if suite == "live":
                from gapt_jax.benchmark import live_cases  # needs packages of an extra

                players = policies or [live_cases.random_model(size) for size in sizes.values()]
                rows += live_cases.live_rows(players, repeats, functools.partial(report, "playing live"))
                so_far(found())
                continue
            cases: list[Case] = []
            chosen = [size for size in sizes.values() if suite != "growth" or size.name == SMALL]
            for case in others[suite](chosen) if suite in others else _cases(suite, chosen):
                cases.append(case)
                report(f"compiling {suite}", len(cases), None)
            turns = max(repeats, FRAME_REPEATS.get(suite, 0))
            report_turn = functools.partial(_report_turn, report, f"timing {suite}", len(cases) * (turns + 1))
            after_turn = functools.partial(_after_turn, cases, most, lambda more: so_far(found(more)))
            seconds = in_turns({case.name: case.run for case in cases}, turns, report_turn, after_turn)
            rows += _rows(cases, seconds, most)
            for case in cases:
                trace(case.name, case.run)
    return found()


def _rows(cases: Sequence[Case], seconds: Mapping[str, list[float]], most: Ceilings) -> list[dict[str, Any]]:
    return with_growth([row(case, seconds[case.name], most) for case in cases])


def _after_turn(
    cases: Sequence[Case],
    most: Ceilings,
    tell: Callable[[Sequence[dict[str, Any]]], None],
    seconds: Mapping[str, list[float]],
) -> None:
    if all(seconds.values()):  # nothing is counted in the first turn
        tell(_rows(cases, seconds, most))


def _cases(suite: str, sizes: Sequence[Size]) -> Iterator[Case]:
    return itertools.chain.from_iterable(map(ALL_SUITES[suite], sizes))


def _report_turn(report: Callable[[str, int, int | None], None], what: str, total: int, done: int) -> None:
    report(what, done, total)
