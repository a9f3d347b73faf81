"""Runs in processes of their own, killed and told to stop: they end as if nothing had happened."""

import json
import random
import shutil
import signal

import jax
import numpy as np
import pytest

from tests.kill_points import kill_and_resume
from tests.small_runs import STAGE_STEPS, STEPS, Run, assert_same_end

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5  # of parameters after all stages and 12 iterations: another order of addition on another mesh


@pytest.fixture(scope="module")
def alone(tmp_path_factory, smoke_songs):
    """A whole run on one device."""
    run = Run(shutil.copytree(smoke_songs, tmp_path_factory.mktemp("alone") / "data").parent / "run", page=True)
    assert run.start().wait() == [0], run.log().read_text()[-2000:]
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory, smoke_songs):
    """A whole run by two processes of four devices each, parameters split over fsdp = 2."""
    run = two_processes(shutil.copytree(smoke_songs, tmp_path_factory.mktemp("two") / "data").parent, page=True)
    assert run.start().wait() == [0, 0], run.log().read_text()[-2000:]
    return run


def two_processes(folder, page: bool = False) -> Run:
    return Run(folder / "run", 2, 4, ("runtime.mesh.fsdp=2",), page)


@pytest.mark.parametrize("stage", ["anchor", "contrastive", "gapt"])
def test_a_run_killed_at_a_random_point_ends_bit_equal(alone, tmp_path, stage):
    draw = random.Random()
    rows, delay = draw.randint(1, STEPS - 2 if stage == "gapt" else STAGE_STEPS), draw.uniform(0, 0.2)
    print(f"killed in {stage} {delay:.3f} s after step {rows}")  # shown when it fails
    kill_and_resume(alone, tmp_path / "killed", stage, rows, delay)


def test_two_processes_train_what_one_device_trains(alone, two):
    (_, ours), (_, theirs) = two.final_state(), alone.final_state()
    for part in ("policy", "critic", "discriminator"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE), ours[part], theirs[part])
    samples = [json.loads((run.workdir / "samples.json").read_text()) for run in (two, alone)]
    assert samples[0] == samples[1]  # token for token
    assert "gapt  12/12" in two.log(0).read_text() and "12/12" not in two.log(1).read_text()  # one speaks for both


def test_the_first_interrupt_saves_and_the_run_resumes_bit_equal(alone, tmp_path):
    for made in ("data", "stages"):
        shutil.copytree(alone.workdir.parent / made, tmp_path / made)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and so would its children
    run = Run(tmp_path / "run").start()
    run.wait_for("gapt", 1)
    run.signal(signal.SIGINT)
    assert run.wait() == [130], run.log().read_text()[-2000:]
    step = run.final_state()[0]
    assert f"stopped at step {step} of {STEPS} of post-training, which is saved" in run.log().read_text()
    assert "Traceback" not in run.log().read_text()
    assert run.start().wait() == [0], run.log().read_text()[-2000:]
    assert_same_end(run, alone)


def test_sigterm_to_one_of_two_saves_both_and_resumes_bit_equal(two, tmp_path):
    for made in ("data", "stages"):
        shutil.copytree(two.workdir.parent / made, tmp_path / made)
    run = two_processes(tmp_path).start()
    run.wait_for("gapt", 1)  # the row of step 0: the first iteration is being compiled, which takes seconds
    run.signal(signal.SIGTERM, process=1)
    assert run.wait() == [42, 42], run.log().read_text()[-2000:]
    step = run.final_state()[0]
    assert f"preempted at step {step} of {STEPS} of post-training, which is saved" in run.log().read_text()
    assert f"preempted at step {step}" in run.log(1).read_text()
    assert run.start().wait() == [0, 0], run.log().read_text()[-2000:]
    assert_same_end(run, two)
