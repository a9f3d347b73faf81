"""The rendered batch script under a real SLURM: one controller and two nodes on the loopback addresses of this machine.

Only GPUs and the number of processes are changed. ``apt-get install slurm-wlm munge`` gives what it needs.
"""

import dataclasses
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gapt_jax.launch import render
from tests.launch.launching import SLURM

ROOT = Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"SLURM is not installed: {', '.join(missing)} missing"),
]
# The names of the nodes are addresses, so that processes find the first node without an entry in /etc/hosts.
# Requeued jobs wait until their credentials have expired.
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0,default_queue_depth=10
MinJobAge=600
KillWait=5
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=1000
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.2 Port={ports[2]} CPUs=8 RealMemory=1000
PartitionName=gpu Nodes=127.0.0.1,127.0.0.2 Default=YES MaxTime=INFINITE State=UP
"""
# Preempted once it is asked to stop, done when it is started again.
TRAINER = """\
#!/bin/bash
trap 'echo saved >>saved; exit 42' TERM
echo "$*" >"started-$SLURM_PROCID-${SLURM_RESTART_COUNT:-0}"
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then exit 0; fi
while :; do sleep 0.1; done
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def wait_for(condition, what: str, seconds: float = 30.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The environment in which SLURM's commands talk to the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf = CONF.format(folder=folder, host=host, user=getpass.getuser(), ports=free_ports(3))
    (folder / "slurm.conf").write_text(conf)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    commands = [["munged", *munge], ["slurmctld", "-D", "-c"]]
    commands += [["slurmd", "-D", "-N", name] for name in ("127.0.0.1", "127.0.0.2")]
    daemons = []
    try:
        for command in commands:
            output = (folder / f"{len(daemons)}.out").open("w")
            daemons.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            if command[0] == "munged":
                wait_for((folder / "munge.socket").exists, "munged")
        idle = ["sinfo", "--noheader", "--format=%D", "--states=idle"]
        wait_for(
            lambda: subprocess.run(idle, env=environment, capture_output=True, text=True).stdout.strip() == "2",
            f"two idle nodes (logs in {folder})",
        )
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


class Job:
    """One submission of the rendered script, with a stand-in for ``gapt``."""

    def __init__(self, cluster: dict[str, str], folder: Path, gapt: str, **changes: object) -> None:
        (folder / "gapt").write_text(gapt)
        (folder / "gapt").chmod(0o755)
        script = render.render(dataclasses.replace(SLURM, env=(), **changes)).files["job.sh"]
        script = script.replace("--devices=16", "--devices=2")
        lines = [line.replace("node=8", "node=1") for line in script.splitlines() if "--gpus-per-node" not in line]
        (folder / "job.sh").write_text("\n".join(lines) + "\n")
        self.folder = folder
        self.env = {**cluster, "PATH": f"{folder}{os.pathsep}{cluster['PATH']}"}
        self.number = self.do("sbatch", "--parsable", "job.sh").strip()

    def do(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def show(self) -> dict[str, str]:
        words = self.do("scontrol", "show", "job", self.number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def end(self) -> dict[str, str]:
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        return wait_for(lambda: (job := self.show())["JobState"] in ended and job, "the end of the job")

    def has_started(self) -> None:
        wait_for(lambda: len(list(self.folder.glob("started-*-0"))) == 2, "both processes")

    def log(self) -> str:
        return (self.folder / f"gapt-a-{self.number}.log").read_text()


def test_a_preempted_job_goes_on(cluster, tmp_path):
    job = Job(cluster, tmp_path, TRAINER)
    job.has_started()
    job.do("scancel", "--signal=TERM", job.number)  # as SLURM does before the time limit: to the steps, not the script
    found = job.end()
    assert (found["JobState"], found["Restarts"], found["ExitCode"]) == ("COMPLETED", "1", "0:0"), job.log()
    assert (tmp_path / "saved").read_text() == "saved\nsaved\n"
    assert "exit code 42: restart 1 of 3\n" in job.log()
    assert (tmp_path / "started-1-1").read_text() == f"{' '.join(SLURM.command[1:])}\n"


def test_a_cancelled_job_stays_cancelled(cluster, tmp_path):
    job = Job(cluster, tmp_path, TRAINER)
    job.has_started()
    job.do("scancel", job.number)
    assert job.end()["JobState"] == "CANCELLED"
    time.sleep(1.0)
    assert job.show()["JobState"] == "CANCELLED"
    assert not list(tmp_path.glob("started-*-1"))


@pytest.mark.parametrize(("gapt", "restarts", "code"), [("exit 3", 3, "3:0"), ("exit 42", 0, "42:0")])
def test_what_does_not_restart(cluster, tmp_path, gapt, restarts, code):
    job = Job(cluster, tmp_path, f"#!/bin/sh\n{gapt}\n", restarts=restarts)
    found = job.end()
    assert (found["JobState"], found["Restarts"], found["ExitCode"]) == ("FAILED", "0", code)


def test_the_processes_find_each_other(cluster, tmp_path):
    """`gapt_jax.runtime.hosts` joins them through what JAX detects: no variable of ours is set."""
    variables = f"PYTHONPATH={ROOT} JAX_PLATFORMS=cpu NPROC=16 XLA_FLAGS= JAX_COMPILATION_CACHE_DIR={tmp_path}/cache"
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec env {variables} {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    job = Job(cluster, tmp_path, "", preflight=True, workdir=f"{tmp_path}/run")
    assert job.end()["JobState"] == "COMPLETED", job.log()
    assert "process 0 of 2" in job.log() and "by 2 processes" in job.log()


def test_sbatch_refuses_what_the_cluster_does_not_have(cluster, tmp_path):
    script = render.render(SLURM).files["job.sh"]
    (tmp_path / "job.sh").write_text(script)
    done = subprocess.run(
        ["sbatch", "--test-only", "job.sh"], cwd=tmp_path, env=cluster, capture_output=True, text=True
    )
    assert done.returncode != 0  # it has no GPUs: the script did ask for some
    assert "generic resource" in done.stderr
