"""Kills whole runs with SIGKILL at random points of every stage, resumes them, and compares the ends bit by bit.

python -m tests.kill_points --points 20 --folder /tmp/kills
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from tests.small_runs import STAGE_STEPS, STAGES, STEPS, Run, assert_same_end

PLACES = (*STAGES, "gapt")


def kill_and_resume(whole: Run, folder: Path, stage: str, rows: int, delay: float) -> int:
    """Runs in `folder`, kills once `rows` steps of `stage` are logged and `delay` s have passed, resumes; then the
    end must be that of `whole`. Gives the step of the stage that was logged when it was killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(whole.workdir.parent / "data", folder / "data")
    for earlier in PLACES[: PLACES.index(stage)]:
        for done in (whole.workdir.parent / "stages").glob(f"{earlier}-*"):
            shutil.copytree(done, folder / "stages" / done.name)
    run = Run(folder / "run", whole.processes, whole.devices).start()
    run.wait_for(stage, rows)
    time.sleep(delay)  # small, but a later stage may be reached
    logged = run.rows(stage)
    run.signal(signal.SIGKILL)
    assert run.wait() == [-signal.SIGKILL] * whole.processes, "it had ended before it could be killed"
    assert run.start().wait() == [0], run.log().read_text()[-2000:]
    assert_same_end(run, whole)
    return logged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    whole = Run(args.folder / "whole" / "run")
    if not (whole.workdir / "evaluation.json").exists():
        assert whole.start().wait() == [0], whole.log().read_text()[-2000:]
    draw = random.Random(args.seed)
    for point in range(args.points):
        stage = PLACES[point % len(PLACES)]
        rows, delay = draw.randint(1, STEPS - 2 if stage == "gapt" else STAGE_STEPS), draw.uniform(0, 0.2)
        logged = kill_and_resume(whole, args.folder / "killed", stage, rows, delay)
        print(f"{point + 1:2d}  {stage:12s} killed after step {logged:2d}: ended bit-equal", flush=True)


if __name__ == "__main__":
    main()
