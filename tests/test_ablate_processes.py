"""`gapt launch ablate` by two processes: the members of one process, and what kills and preemptions change: nothing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import quick
from tests.small_runs import SETTINGS, Run
from tests.toy import gapt

pytestmark = pytest.mark.slow
STEPS = 8
GRID = ["--lambdas=0,1", "--seeds=2"]
SHORT = [
    *(f"--set={setting}" for setting in SETTINGS),
    *(f"--set=algorithm.steps={STEPS}", "--set=runtime.checkpoint_every=3", "--set=data.out_of_domain=[]"),
    *(f"--set=evaluation.{name}" for name in ("songs=16", f"every={STEPS}", "post_hoc_steps=0")),
    *(f"--set=evaluation.{name}=0" for name in ("same_melody_songs", "adaptation_songs")),
]
MEMBERS = [f"gapt_lambda={weight}-seed{seed}" for seed in (10, 11) for weight in (0, 1)]
TOLERANCE = 1e-5  # of parameters: another order of addition
ROUNDING = 1e-6  # a gradient this much smaller than others of its array is what is left of sums that cancel out


class Launched:
    """A grid by two processes of four devices each.

    Without `page` matplotlib cannot be imported: drawing the page takes a quarter of a start whose programs are known.
    """

    def __init__(self, workdir: Path, page: bool = False, grid: list[str] = GRID):
        self.workdir, self._page, self._grid = workdir, page, grid

    def start(self, restarts: int = 0) -> "Launched":
        command = [sys.executable, "-m", "gapt_jax", "launch", "ablate", "smoke", "--on=local", "--processes=2"]
        limits = ["--devices-per-process=4", f"--restarts={restarts}", "--grace=20", f"--workdir={self.workdir}"]
        changes = {"XLA_FLAGS": quick.added_to("")}  # as in this process
        if not self._page:
            (self.workdir.parent / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None")
            changes["PYTHONPATH"] = os.pathsep.join([str(self.workdir.parent), os.environ.get("PYTHONPATH", "")])
        with self.log.open("ab") as log:
            self._launcher = subprocess.Popen(
                [*command, *limits, *self._grid, *SHORT], env=os.environ | changes, stdout=log, stderr=log
            )
        return self

    @property
    def log(self) -> Path:
        return self.workdir.with_suffix(".log")

    def wait(self) -> int:
        try:
            return self._launcher.wait(600)
        finally:
            self._launcher.kill()  # and with it its processes

    def signal(self, number: signal.Signals, process: int) -> None:
        """To a process, once it is there: after a restart it may still be started."""
        deadline = time.monotonic() + 60
        while not (found := [pid for pid in self._children() if f"GAPT_PROCESS={process}\0" in _environment(pid)]):
            assert time.monotonic() < deadline and self._launcher.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.005)
        os.kill(found[0], number)

    def _children(self) -> list[int]:
        return [*map(int, Path(f"/proc/{self._launcher.pid}/task/{self._launcher.pid}/children").read_text().split())]

    def wait_for(self, text: str, path: Path) -> None:
        """Returns when a file holds the text."""
        deadline = time.monotonic() + 600
        while not path.exists() or text not in path.read_text():
            assert time.monotonic() < deadline and self._launcher.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.005)

    def wait_for_step(self, step: int) -> None:
        self.wait_for(f'"step": {step},', self.workdir / MEMBERS[0] / "metrics.jsonl")


def _environment(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except OSError:  # it has ended
        return ""


def beside(root: Path, folder: Path, page: bool = False, grid: list[str] = GRID) -> Launched:
    """A grid that finds the songs and the supervised stages of another one."""
    for made in ("data", "stages"):
        shutil.copytree(root / made, folder / made)
    return Launched(folder / "grid", page, grid)


def member(folder: Path, name: str) -> Run:
    return Run(folder / name)


def assert_same_member(ours: Run, theirs: Run) -> None:
    """The same tokens, and parameters within `TOLERANCE`; more where Adam saw rounding errors alone: it moves a
    parameter however small its gradients are."""
    (step, found), (_, expected) = ours.final_state(), theirs.final_state()
    assert step == STEPS
    for part in ("policy", "critic", "discriminator"):
        squares = expected[f"{part}_optimizer"]["moments"][1]["nu"]
        jax.tree.map(assert_near, found[part], expected[part], squares)
    samples = [json.loads((run.workdir / "samples.json").read_text()) for run in (ours, theirs)]
    assert [*samples[0].pop("systems").values()] == [*samples[1].pop("systems").values()]  # arms may have other names
    assert samples[0] == samples[1]


def assert_near(ours: jax.Array, theirs: jax.Array, squares: jax.Array) -> None:
    gradients = np.sqrt(squares)
    is_rounding = (gradients > 0) & (gradients < ROUNDING * gradients.max())
    assert is_rounding.mean() < 0.01
    np.testing.assert_allclose(np.where(is_rounding, theirs, ours), theirs, atol=TOLERANCE)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)  # a step of Adam at the rate of `smoke`


@pytest.fixture(scope="module")
def one(tmp_path_factory, smoke_songs):
    """The grid by this process, on one device."""
    root = shutil.copytree(smoke_songs, tmp_path_factory.mktemp("one") / "data").parent
    assert gapt("ablate", "smoke", "--workdir", str(root / "grid"), *GRID, *SHORT, "--set=runtime.mesh.data=1") == 0
    return root


@pytest.fixture(scope="module")
def two(one, tmp_path_factory):
    launched = beside(one, tmp_path_factory.mktemp("two"), page=True)
    assert launched.start().wait() == 0, launched.log.read_text()[-3000:]
    return launched


def test_two_processes_train_the_members_of_one(one, two):
    assert (two.workdir / "report.html").stat().st_size > 10_000
    record = json.loads((two.workdir / "ablation.json").read_text())
    assert [entry["folder"] for entry in record["members"]] == MEMBERS
    assert {entry["status"] for entry in record["members"]} == {"finished"}
    assert record["population"] == {"members_at_once": 4, "devices": 8, "chunks": 1}
    for name in MEMBERS:
        assert_same_member(member(two.workdir, name), member(one / "grid", name))
    assert f"gapt × 4  {STEPS}/{STEPS}" in two.log.read_text() and "[1] gapt × 4" not in two.log.read_text()


def test_a_member_diverges_and_two_wait_their_turn(one, tmp_path):
    """Two members at once, a process each; of each two, one gets a learning rate that no run survives."""
    grid = ["--grid=algorithm.policy.learning_rate=0.001,1e30", "--seeds=2", "--at-once=2"]  # 0.001 is that of `smoke`
    run = beside(one, tmp_path, grid=grid).start()
    assert run.wait() == 0, run.log.read_text()[-3000:]
    record = json.loads((run.workdir / "ablation.json").read_text())
    assert record["population"] == {"members_at_once": 2, "devices": 8, "chunks": 2}
    assert sorted(entry["status"] for entry in record["members"]) == ["finished"] * 2 + ["stopped"] * 2
    for entry in record["members"]:
        if "1e30" in entry["folder"]:
            assert "skipped because" in entry["reason"]
            assert f"{entry['folder']} is left out" in run.log.read_text()
        else:
            seed = entry["folder"].rpartition("-")[2]
            assert_same_member(member(run.workdir, entry["folder"]), member(one / "grid", f"gapt_lambda=1-{seed}"))


def test_a_preemption_of_one_process_and_a_kill_of_one_change_nothing(one, two, tmp_path):
    draw = random.Random()
    preempted, killed, victim = draw.randint(0, 4), draw.randint(6, STEPS), draw.randint(0, 1)
    print(f"preempted at step {preempted}, process {victim} killed at step {killed}")  # shown when it fails
    run = beside(one, tmp_path).start(restarts=1)
    run.wait_for_step(preempted)
    run.signal(signal.SIGTERM, process=1)
    run.wait_for("preempted: restart 1 of 1", run.log)
    run.wait_for_step(killed)
    run.signal(signal.SIGKILL, victim)
    assert run.wait() == 128 + signal.SIGKILL, run.log.read_text()[-3000:]
    assert run.start().wait() == 0, run.log.read_text()[-3000:]
    for name in MEMBERS:
        (step, ours), (_, theirs) = member(run.workdir, name).final_state(), member(two.workdir, name).final_state()
        assert step == STEPS
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        assert member(run.workdir, name).systems() == member(two.workdir, name).systems()
    assert not [*run.workdir.rglob(".lock")]
