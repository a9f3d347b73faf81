"""What a program costs: counted, as XLA counts it, and by the clock, beside the ceilings of the machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gapt_jax.runtime import cost
from gapt_jax.runtime.cost import Cost

COUNTED = (
    *("flops", "bytes", "xla_flops", "flops_per_s", "bytes_per_s", "ceiling_share", "bound"),
    *("compile_s", "peak_bytes"),
)  # of a row: None where only its time is known
Run = Callable[[], Any]  # dispatches a program once; what it returns can be waited for


@dataclass(frozen=True)
class Ceilings:
    """The most that the first JAX device was seen to do; one on a CPU uses all cores."""

    flops: float  # FLOP/s of matmuls in the dtype used
    bandwidth: float  # bytes/s, read and written together

    def bound(self, work: Cost) -> tuple[float, str]:
        """Seconds that the work takes at the ceilings, and which of them binds."""
        return max((work.flops / self.flops, "matmul"), (work.bytes / self.bandwidth, "memory"))


class Program:
    """A traced function, compiled ahead; called with its arguments but the static ones.

    `devices` compute it: what each of them does counts, also where all do the same.
    """

    def __init__(self, traced: Any, devices: int = 1):
        began = time.perf_counter()
        self._compiled = traced.lower().compile()
        self.compile_seconds = time.perf_counter() - began
        self.cost = cost.of(traced.jaxpr).times(devices)
        analysis = self._compiled.cost_analysis() or {}
        self.xla_flops: float = analysis.get("flops", math.nan)  # XLA counts a loop as one pass
        memory = self._compiled.memory_analysis()
        held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        self.peak_bytes: int = held + memory.temp_size_in_bytes

    def __call__(self, *arguments: Any) -> Any:
        return self._compiled(*arguments)


@dataclass(frozen=True)
class Case:
    """One row to measure: `run` dispatches `programs` in turn. Without programs only the time is known."""

    name: str
    run: Run
    programs: Sequence[Program] = ()
    frames: int | None = None  # of all songs of a run together; each is two tokens
    note: str = ""
    grown_from: str | None = None  # the row of which one dimension was doubled


def fed_back(program: Program, state: Any, *rest: Any) -> Run:
    """Runs of (state, *rest) -> (state, ...), each from the state that the one before left: it donates its own."""

    def run() -> Any:
        nonlocal state
        state, *others = program(state, *rest)
        return state, others

    return run


def in_turns(
    runs: Mapping[str, Run],
    repeats: int,
    done: Callable[[int], None] = lambda count: None,
    after_turn: Callable[[Mapping[str, list[float]]], None] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Seconds of `repeats` runs of each, in turns, so that a noisy minute hits all; a first turn does not count.

    `after_turn` gets the seconds so far after each turn, the first one included (then there are none).
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for place, (name, run) in enumerate(runs.items(), start=1):
            began = time.perf_counter()
            jax.block_until_ready(run())
            if turn:
                seconds[name].append(time.perf_counter() - began)
            done(turn * len(runs) + place)
        after_turn(seconds)
    return seconds


def row(case: Case, seconds: Sequence[float], ceilings: Ceilings) -> dict[str, Any]:
    """What is told of a case that took `seconds`; None where it does not apply.

    `ceiling_share` is the time at the binding ceiling over the median one. It exceeds 1 where caches hold what the
    count takes to come from memory.
    """
    low, median, high, late = np.percentile(seconds, (25, 50, 75, 95)).tolist()
    known: dict[str, Any] = dict.fromkeys(COUNTED)
    if case.programs:
        work = sum((program.cost for program in case.programs), Cost())
        at_ceiling, bound = ceilings.bound(work)
        known |= {
            "flops": work.flops,
            "bytes": work.bytes,
            "xla_flops": sum(program.xla_flops for program in case.programs),
            "flops_per_s": work.flops / median,
            "bytes_per_s": work.bytes / median,
            "ceiling_share": at_ceiling / median,
            "bound": bound,
            "compile_s": sum(program.compile_seconds for program in case.programs),
            "peak_bytes": max(program.peak_bytes for program in case.programs),
        }
    return {
        "name": case.name,
        "note": case.note,
        "median_ms": 1e3 * median,
        "quartiles_ms": [1e3 * low, 1e3 * high],
        "p95_ms": 1e3 * late,
        "min_ms": 1e3 * min(seconds),
        "repeats": len(seconds),
        "frames_per_s": case.frames and case.frames / median,
        "tokens_per_s": case.frames and 2 * case.frames / median,
        **known,
        "grown_from": case.grown_from,
    }


def with_growth(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with `time_ratio` to the row it has grown from and the exponent log2 of it, or None."""
    medians = {row["name"]: row["median_ms"] for row in rows}
    ratios = [row["grown_from"] and row["median_ms"] / medians[row["grown_from"]] for row in rows]
    return [r | {"time_ratio": x, "exponent": x and math.log2(x)} for r, x in zip(rows, ratios, strict=True)]
