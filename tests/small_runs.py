"""Whole runs of a toy experiment in processes of their own: started, watched, killed, compared."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from tests import quick
from tests.toy import SONGS

logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax warns of a file that it does not need
NETS = ("policy", "anchor", "reward", "discriminator")
STAGES = ("policy", "anchor", "contrastive")  # supervised ones, in order
STAGE_STEPS, STEPS = 12, 12
SETTINGS = [
    *(f"models.{n}.{k}={v}" for n in NETS for k, v in {"dim": 16, "depth": 1, "heads": 2, "head_dim": 8}.items()),
    *(f"pretrain.{stage}.steps={STAGE_STEPS}" for stage in STAGES),
    *(f"pretrain.{stage}.batch_size=8" for stage in STAGES),
    *(f"algorithm.rewards.{kind}=0" for kind in ("discriminative", "rhythm_contrastive", "rhythm_discriminative")),
    *SONGS, "data.max_frames=16", f"algorithm.steps={STEPS}", "algorithm.batch_size=16", "algorithm.minibatch_size=8",
    "algorithm.discriminator.minibatch_size=8", "algorithm.discriminator.steps_per_update=3",
    "evaluation.songs=24", "evaluation.batch_size=16", "evaluation.every=6", "evaluation.monitor_songs=16",
    "runtime.checkpoint_every=5", "runtime.stage_checkpoint_every=5",
]  # fmt: skip
# `python -m gapt_jax` without matplotlib: drawing the page of a run takes a quarter of a run whose programs are known.
WITHOUT_PAGE = "import sys; sys.modules['matplotlib'] = None; from gapt_jax.commands.main import main; main()"


class Run:
    """One run of the toy experiment by `processes` processes of `devices` CPU devices each."""

    def __init__(
        self, workdir: Path, processes: int = 1, devices: int = 1, settings: tuple[str, ...] = (), page: bool = False
    ) -> None:
        self.workdir, self.processes, self.devices, self._page = workdir, processes, devices, page
        self._settings = [*SETTINGS, *settings]
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> Run:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = ["-m", "gapt_jax"] if self._page else ["-c", WITHOUT_PAGE]
        command = [sys.executable, *program, "run", "smoke", "--workdir", str(self.workdir), "--debug"]
        command += [f"--set={setting}" for setting in self._settings]
        self.workdir.parent.mkdir(parents=True, exist_ok=True)
        self._running = []
        for process in range(self.processes):
            flags = f"--xla_force_host_platform_device_count={self.devices}"
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": flags}
            if self.processes > 1:  # one process alone compiles as a user's does
                environment |= {
                    "XLA_FLAGS": quick.added_to(flags),
                    "GAPT_COORDINATOR": f"127.0.0.1:{port}",
                    "GAPT_PROCESSES": str(self.processes),
                    "GAPT_PROCESS": str(process),
                }
            with self.log(process).open("ab") as log:
                self._running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self

    def log(self, process: int = 0) -> Path:
        return self.workdir.with_suffix(f".{process}.log")

    def wait(self, timeout: float = 600.0) -> list[int]:
        """Exit codes of the processes; none is left behind."""
        try:
            return [process.wait(timeout) for process in self._running]
        finally:
            for process in self._running:
                process.kill()

    def signal(self, number: signal.Signals, process: int = 0) -> None:
        self._running[process].send_signal(number)

    def rows(self, stage: str) -> int:
        """How many steps of a stage have been logged."""
        folders = [self.workdir] if stage == "gapt" else (self.workdir.parent / "stages").glob(f"{stage}-*")
        return sum(len(path.read_bytes().splitlines()) for f in folders if (path := f / "metrics.jsonl").exists())

    def wait_for(self, stage: str, rows: int, timeout: float = 600.0) -> None:
        """Returns when so many steps of the stage are logged, or the run has ended."""
        deadline = time.monotonic() + timeout
        while self.rows(stage) < rows and any(process.poll() is None for process in self._running):
            assert time.monotonic() < deadline, f"{stage} does not reach {rows} steps: see {self.log()}"
            time.sleep(0.005)

    def final_state(self):
        """(step, every array of the newest checkpoint)."""
        step = max(int(path.name) for path in (self.workdir / "checkpoints").iterdir() if path.name.isdigit())
        folder = (self.workdir / "checkpoints" / str(step) / "default").resolve()
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with ocp.StandardCheckpointer() as reader:
            saved = reader.metadata(folder).item_metadata.tree
            like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), saved)
            return step, reader.restore(folder, like)

    def systems(self):
        return json.loads((self.workdir / "evaluation.json").read_text())["systems"]


def assert_same_end(run: Run, whole: Run) -> None:
    """The two runs ended with the same bits."""
    (step, ours), (expected, theirs) = run.final_state(), whole.final_state()
    assert step == expected == STEPS
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert run.systems() == whole.systems()
