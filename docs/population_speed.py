"""What a member of a population costs beside a single run, in processes that take turns.

python docs/population_speed.py RUN [REPEATS]   (a finished run folder; nothing in it is changed)

`single` is `gapt run`: one device, all cores. `2 devices` and `8 devices` are populations of as many members, each
device on one thread, as in `gapt ablate` on a CPU. Printed: medians of an iteration per member with the gate shut and
open, and their ratios to the single run.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ITERATIONS = 10
KINDS = {"single": 0, "2 devices": 2, "8 devices": 8}


def measure(run: Path, devices: int) -> dict[str, list[float]]:
    """Seconds per member of iterations with the gate shut and open; `devices` is 0 for a single run."""
    import dataclasses

    import jax
    import numpy as np

    from gapt_jax.algorithm import learner, population
    from gapt_jax.algorithm.layout import Layout
    from gapt_jax.algorithm.state import init_state
    from gapt_jax.runtime import mesh
    from gapt_jax.runtime.console import Console
    from gapt_jax.runtime.mesh import MeshMembers
    from gapt_jax.training import measure as measured
    from gapt_jax.training.job import frozen_of

    job, upstream, _ = measured._load_run(run, Console(json_mode=True), None)
    rows = job.experiment.runtime.microbatch_rows
    first = jax.devices()[0]
    frozen, policy = jax.device_put(jax.device_get((frozen_of(job, upstream), upstream.policy)), first)
    batches = job.batches(0)(job.spec.config.batch_size, 0)
    # A gate that alternates: shut by its threshold, open every second step of phase 1.
    gate = dataclasses.replace(job.spec.config.discriminator, gate_period=2, gate_threshold=1e9)
    config = dataclasses.replace(job.spec.config, discriminator=gate)
    spec = dataclasses.replace(job.spec, config=config, layout=Layout(rows))
    state = init_state(spec, policy, 0, job.experiment.data.max_frames)
    if devices:
        whole = mesh.build(dataclasses.replace(job.experiment.runtime.mesh, data=0))
        spread = MeshMembers.of(mesh.split(whole, devices))
        spec = dataclasses.replace(spec, layout=spread.layout(rows))
        state = spread.place(jax.tree.map(lambda x: np.stack([np.asarray(x)] * devices), state))
        frozen = spread.everywhere(frozen)
    found: dict[str, list[float]] = {"shut": [], "open": []}
    for number in range(ITERATIONS + 2):
        batch = next(batches)
        if devices:
            batch = spread.place(jax.tree.map(lambda x: np.stack([x] * devices), batch))
        started = time.perf_counter()
        if devices:
            state, metrics = population.iteration(spec, spread, state, frozen, batch)
        else:
            state, metrics = learner.iteration(spec, state, frozen, batch)
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - started) / max(devices, 1)
        if number >= 2:  # the first two compile
            is_open = np.asarray(metrics["discriminator/is_open"]).max() > 0
            found["open" if is_open else "shut"].append(seconds)
    return found


def main() -> None:
    run, repeats = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    known: dict[str, dict[str, list[float]]] = {name: {"shut": [], "open": []} for name in KINDS}
    for _ in range(repeats):
        for name, devices in KINDS.items():
            flags = f"--xla_force_host_platform_device_count={max(devices, 1)}"
            flags += " --xla_cpu_multi_thread_eigen=false" if devices else ""
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            command = [sys.executable, __file__, str(run), "--child", str(devices)]
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            for gate, seconds in json.loads(out.splitlines()[-1]).items():
                known[name][gate] += seconds
    for name, times in known.items():
        medians = {gate: statistics.median(seconds) for gate, seconds in times.items()}
        ratios = {gate: medians[gate] / statistics.median(known["single"][gate]) for gate in medians}
        print(
            f"{name:10s} gate shut {1e3 * medians['shut']:7.0f} ms ({ratios['shut']:.2f})   "
            f"open {1e3 * medians['open']:7.0f} ms ({ratios['open']:.2f})"
        )


if __name__ == "__main__":
    if "--child" in sys.argv:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[3]))))
    else:
        main()
