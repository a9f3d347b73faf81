"""What a member of a population costs beside a single run, in processes that take turns.

python docs/population_speed.py RUN [REPEATS]   (a finished run of `small`; nothing in it is changed)

A run on one device, whose operations share the cores, and on two, as `gapt run` makes them of two cores; a population
of two members on two devices, as in `gapt ablate`. Printed: medians of an iteration per member with the gate shut and
open, and their ratios to the run on two devices.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ITERATIONS = 10
KINDS = {"run, 1 device": (1, 1), "run, 2 devices": (1, 2), "2 members": (2, 2)}  # members, devices


def measure(run: Path, members: int) -> dict[str, list[float]]:
    """Seconds per member of iterations with the gate shut and open."""
    import dataclasses

    import jax
    import numpy as np

    from gapt_jax import experiments
    from gapt_jax.algorithm import learner, population
    from gapt_jax.algorithm.state import init_state
    from gapt_jax.runtime import mesh
    from gapt_jax.runtime.console import Console
    from gapt_jax.runtime.mesh import MeshLayout, MeshMembers
    from gapt_jax.training import measure as measured
    from gapt_jax.training.job import frozen_of

    job, upstream, _ = measured.load_run(run, Console(json_mode=True), None)
    rows = experiments.load("small").runtime.microbatch_rows  # a finished run may have been made with another
    whole = mesh.build(dataclasses.replace(job.experiment.runtime.mesh, data=0))
    layout = MeshLayout(rows, mesh=whole)
    frozen, policy = layout.share(jax.device_get((frozen_of(job, upstream), upstream.policy)))
    batches = job.batches(0)(job.spec.config.batch_size, 0)
    # A gate that alternates: shut by its threshold, open every second step of phase 1.
    gate = dataclasses.replace(job.spec.config.discriminator, gate_period=2, gate_threshold=1e9)
    config = dataclasses.replace(job.spec.config, discriminator=gate)
    spec = dataclasses.replace(job.spec, config=config, layout=layout)
    state = init_state(spec, policy, 0, job.experiment.data.max_frames)
    if members > 1:
        spread = MeshMembers.of(mesh.split(whole, members))
        spec = dataclasses.replace(spec, layout=spread.layout(rows))
        state = spread.place(jax.tree.map(lambda x: np.stack([np.asarray(x)] * members), state))
        frozen = spread.everywhere(frozen)
    else:
        state = jax.jit(layout.stored)(state)
    found: dict[str, list[float]] = {"shut": [], "open": []}
    for number in range(ITERATIONS + 2):
        batch = next(batches)
        if members > 1:
            batch = spread.place(jax.tree.map(lambda x: np.stack([x] * members), batch))
        else:
            batch = layout.place(batch, job.spec.config.batch_size)
        started = time.perf_counter()
        if members > 1:
            state, metrics = population.iteration(spec, spread, state, frozen, batch)
        else:
            state, metrics = learner.iteration(spec, state, frozen, batch)
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - started) / members
        if number >= 2:  # the first two compile
            is_open = np.asarray(metrics["discriminator/is_open"]).max() > 0
            found["open" if is_open else "shut"].append(seconds)
    return found


def main() -> None:
    run, repeats = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    known: dict[str, dict[str, list[float]]] = {name: {"shut": [], "open": []} for name in KINDS}
    for _ in range(repeats):
        for name, (members, devices) in KINDS.items():
            flags = f"--xla_force_host_platform_device_count={devices}"
            flags += " --xla_cpu_multi_thread_eigen=false" if devices > 1 else ""
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            command = [sys.executable, __file__, str(run), "--child", str(members)]
            out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            for gate, seconds in json.loads(out.splitlines()[-1]).items():
                known[name][gate] += seconds
    for name, times in known.items():
        medians = {gate: statistics.median(seconds) for gate, seconds in times.items()}
        ratios = {gate: medians[gate] / statistics.median(known["run, 2 devices"][gate]) for gate in medians}
        print(
            f"{name:14s} gate shut {1e3 * medians['shut']:7.0f} ms ({ratios['shut']:.2f})   "
            f"open {1e3 * medians['open']:7.0f} ms ({ratios['open']:.2f})"
        )


if __name__ == "__main__":
    if "--child" in sys.argv:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[3]))))
    else:
        main()
