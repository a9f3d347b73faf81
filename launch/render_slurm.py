"""A batch script for GPUs under SLURM, one process per GPU: the layout that JAX detects by itself there.

`jax.distributed.initialize()` gives each SLURM task the one device of its SLURM_LOCALID
(jax/_src/clusters/cluster.py of 0.10), so a process per node would use one GPU of each. For the same reason every
task must see all GPUs of its node: --gpus-per-node, not --gpus-per-task.
"""

from __future__ import annotations

import shlex

from gapt_jax.launch import templates
from gapt_jax.launch.spec import EXIT_PREEMPTED, LaunchSpec

CPUS_PER_TASK = 8  # SLURM's own default is 1, and it binds the process to it
_WAIT_SECONDS = 600  # for the other processes, once the first has ended


def job_script(spec: LaunchSpec) -> str:
    """The text for sbatch. Its header holds nothing but checked words and numbers: sbatch has no way to quote there."""
    found = spec.slice
    header = [
        f"--job-name={spec.name}",
        f"--output={spec.name}-%j.log",
        "--open-mode=append",
        f"--nodes={found.vms}",
        f"--ntasks-per-node={found.chips_per_vm}",
        f"--gpus-per-node={found.chips_per_vm}",
        f"--cpus-per-task={CPUS_PER_TASK}",
        f"--time={spec.hours}:00:00",
        f"--signal=TERM@{spec.grace_seconds}",
        "--requeue",
        *([f"--partition={spec.queue}"] if spec.queue else []),
    ]
    values = {
        "HEADER": "\n".join(f"#SBATCH {option}" for option in header),
        "EXPORTS": "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(spec.env)),
        "CPUS": str(CPUS_PER_TASK),
        "WAIT": str(_WAIT_SECONDS),
        "PREEMPTED": str(EXIT_PREEMPTED),
        "RESTARTS": str(spec.restarts),
        "COMMAND": shlex.join(spec.command),
    }
    return templates.fill(templates.SBATCH, values)
