"""Where the time of one iteration goes: each phase alone, then its largest operations from XLA's own trace.

python docs/profile_iteration.py RUN   (a finished or interrupted run folder; nothing in it is changed)
"""

import collections
import gzip
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax

from gapt_jax.algorithm import learner
from gapt_jax.algorithm.state import init_state
from gapt_jax.runtime.console import Console
from gapt_jax.training import measure
from gapt_jax.training.job import frozen_of

REPEATS = 7


def one_iteration(clock: dict[str, list[float]], spec, state, frozen, batch):
    seconds: dict[str, float] = {}

    def timed(phase, *inputs):
        started = time.perf_counter()
        outputs = jax.block_until_ready(phase(*inputs))
        seconds[phase.__name__] = time.perf_counter() - started
        return outputs

    state, metrics = learner.iteration(spec, state, frozen, batch, timed)
    gate = "open" if float(metrics["discriminator/is_open"]) else "shut"
    for name, spent in seconds.items():
        clock[f"{name}, gate {gate}" if name == "improve_discriminator" else name].append(spent)
    return state


def trace_times(folder: Path) -> dict[str, float]:
    """Seconds by operation kind, summed over threads, from the profiler's trace."""
    total: dict[str, float] = collections.Counter()
    for path in folder.rglob("*.trace.json.gz"):
        for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
            if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
                total[event["args"]["hlo_op"].split(".")[0]] += event["dur"] / 1e6
    return total


def main() -> None:
    job, upstream, policy = measure.load_run(Path(sys.argv[1]), Console(), None)
    spec, frozen = job.spec, frozen_of(job, upstream)
    state = init_state(spec, policy[1], 0, job.experiment.data.max_frames)
    batches = job.batches(0)(spec.config.batch_size, 0)
    state = one_iteration(collections.defaultdict(list), spec, state, frozen, jax.device_put(next(batches)))
    clock: dict[str, list[float]] = collections.defaultdict(list)
    for _ in range(REPEATS):
        state = one_iteration(clock, spec, state, frozen, jax.device_put(next(batches)))
    print(f"{jax.devices()[0].device_kind}, {spec.config.batch_size} songs of {job.experiment.data.max_frames} frames")
    for name, seconds in clock.items():
        print(f"{name:36s} {1e3 * statistics.median(seconds):8.1f} ms  (median of {len(seconds)})")
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            one_iteration(collections.defaultdict(list), spec, state, frozen, jax.device_put(next(batches)))
        times = trace_times(Path(folder))
    whole = sum(times.values())
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[:15]:
        print(f"{name:36s} {1e3 * seconds:8.1f} ms of thread time  {seconds / whole:6.1%}")


if __name__ == "__main__":
    main()
