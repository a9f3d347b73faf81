"""``gapt launch`` and what it writes, shows and submits."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gapt_jax.commands.main import parse
from gapt_jax.errors import UserError
from gapt_jax.launch import submit
from gapt_jax.launch.render import Rendered
from gapt_jax.runtime.console import Console

ROOT = Path(__file__).parents[2]
GKE = "--on gke --accelerator v5e-16 --image gapt:1 --storage gs://bucket"


def launch(line: str, json_mode: bool = False) -> int:
    args = parse(["launch", *line.split()])
    return args.command(args, Console(json_mode))


def test_without_yes_it_only_shows(capsys):
    assert launch(f"smoke {GKE} --set algorithm.adversarial_weight=0.5") == 0
    output = capsys.readouterr().out
    assert "--- jobset.yaml\n" in output
    assert "- --set=algorithm.adversarial_weight=0.5\n" in output
    assert "- --workdir=/mnt/gapt/runs/smoke\n" in output
    assert "would run: kubectl apply --filename=jobset.yaml" in output
    assert "nothing was submitted; next: the same command with --yes --out DIR" in output


def test_out_writes_the_files(capsys, tmp_path):
    assert launch(f"smoke {GKE} --out {tmp_path}") == 0
    output = capsys.readouterr().out
    for name in ("README.md", "jobset.yaml"):
        assert f"wrote {tmp_path / name}\n" in output
        assert (tmp_path / name).read_text()
    assert "would run" not in output


def test_json_has_the_files(capsys):
    assert launch(f"smoke {GKE} --json", json_mode=True) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["files"]) == {"README.md", "jobset.yaml"}
    assert result["submit"] == ["kubectl", "apply", "--filename=jobset.yaml"]


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A kubectl that writes down its arguments and folder; returns the file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kubectl").write_text('#!/bin/sh\necho "$PWD $*" >>"$RECORD"\nexit "${CODE:-0}"\n')
    (folder / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


def test_yes_submits_from_the_folder(capsys, tmp_path, kubectl):
    assert launch(f"smoke {GKE} --out {tmp_path / 'files'} --yes") == 0
    assert kubectl.read_text() == f"{tmp_path / 'files'} apply --filename=jobset.yaml\n"
    output = capsys.readouterr().out
    assert "creates the JobSet smoke\n" in output
    assert "delete: kubectl delete jobset smoke" in output


def test_a_failed_submission_is_told(capsys, tmp_path, kubectl, monkeypatch):
    monkeypatch.setenv("CODE", "5")
    assert launch(f"smoke {GKE} --out {tmp_path / 'files'} --yes") == 5
    assert "warning: kubectl ended with exit code 5" in capsys.readouterr().out


def test_nothing_runs_without_yes(tmp_path, kubectl):
    launch(f"smoke {GKE} --out {tmp_path / 'files'}")
    launch(f"smoke {GKE} --dry-run")
    assert not kubectl.exists()


def test_a_missing_tool_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="kubectl is not on the PATH: install kubectl"):
        launch(f"smoke {GKE} --out {tmp_path / 'files'} --yes")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"smok {GKE}", "did you mean 'smoke'"),
        (f"smoke {GKE} --set algorithm.adversarial_weigt=1", "unknown setting"),
        (f"smoke {GKE} --set runtime.mesh.tensor=5", "5 does not come out: v5e-16 has 16 devices"),
        (f"smoke {GKE} --set runtime.mesh.data=4", r"4 × 1 × 1 does not come out"),
        (f"smoke {GKE} --slices 2 --set runtime.mesh.data=32", "16 devices per slice"),
        ("smoke --processes 2 --devices-per-process 4 --on local --set runtime.mesh.fsdp=3", "there are 8 devices"),
        (f"smoke {GKE} --yes", "--yes needs --out"),
        (f"smoke {GKE} --yes --dry-run", "exclude each other"),
        ("smoke --on slurm --accelerator h100-8", "slurm needs --workdir"),
        ("smoke --on gk", "'gk' is not one of local, tpu-vm, gke, slurm; did you mean 'gke'"),
        (f"smoke {GKE} --env A", "--env must be NAME=VALUE"),
        (f"smoke {GKE} --lambdas 0,1", "--lambdas is for 'gapt launch ablate EXPERIMENT': add the word"),
        (f"ablat smoke {GKE}", "'ablat' is not one of ablate"),
        (f"ablate smok {GKE}", "did you mean 'smoke'"),
        (f"ablate smoke {GKE} --lambdas 0,x", "--lambdas takes numbers"),
        (f"ablate smoke {GKE} --preset lamda", "did you mean 'lambda'"),
        (f"ablate smoke {GKE} --seeds 1,1", "names a seed twice"),
        (f"ablate smoke {GKE} --at-once 0", "--at-once must be at least 1"),
        (f"ablate smoke {GKE} --lambdas 0,0", "would train the same policy"),
    ],
)
def test_bad_input_is_one_sentence(line, message, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        launch(line)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "mesh", ["", " --set runtime.mesh.fsdp=8", " --set runtime.mesh.data=4 --set runtime.mesh.tensor=4"]
)
def test_meshes_that_come_out(mesh):
    assert launch(f"smoke {GKE} --dry-run{mesh}") == 0


def test_local_runs_at_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "gapt").write_text('#!/bin/sh\necho "$GAPT_PROCESS/$GAPT_PROCESSES $*"\nsleep 0.5\nexit 3\n')
    (tmp_path / "gapt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert launch(f"smoke --on local --processes 2 --workdir {tmp_path}/run --songs songs") == 3
    lines = capsys.readouterr().out.splitlines()
    assert f"0/2 run smoke --set=data.songs=songs --workdir={tmp_path}/run" in lines
    assert f"[1] 1/2 run smoke --set=data.songs=songs --workdir={tmp_path}/run" in lines


def test_an_ablation_takes_the_options_of_gapt_ablate(capsys):
    grid = "--grid algorithm.kl_coef=0.1,0.2 --grid algorithm.gae_lambda=0.9,1"
    assert (
        launch(f"ablate smoke {GKE} {grid} --at-once 3 --profile 4 --metrics-port 9 --set data.songs=S --json", True)
        == 0
    )
    manifest = yaml.safe_load(json.loads(capsys.readouterr().out)["files"]["jobset.yaml"])
    (job,) = manifest["spec"]["replicatedJobs"]
    words = job["template"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert words[:3] == ["gapt", "ablate", "smoke"] and words[-1] == "--workdir=/mnt/gapt/runs/smoke-ablate-grid"
    args = parse(words[1:])  # they are what gapt ablate reads
    assert args.grid == ["algorithm.kl_coef=0.1,0.2", "algorithm.gae_lambda=0.9,1"] and args.seeds == "6"
    assert (args.at_once, args.profile, args.metrics_port) == (3, 4, ("127.0.0.1", 9))
    assert args.set == ["data.songs=S"] and manifest["metadata"]["name"] == "smoke-ablate-grid"


def test_local_dry_run_runs_nothing(capsys):
    assert launch("smoke --on local --processes 2 --dry-run") == 0
    assert "would run: sh local.sh" in capsys.readouterr().out


def test_preflight_needs_no_options_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "gapt_jax.launch.preflight", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "--fingerprint" in done.stdout


def commands_of_the_guide() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/launch.md").read_text(), re.DOTALL)
    return [" ".join(block.replace("\\\n", " ").split()) for block in blocks]


@pytest.mark.parametrize("line", [line for line in commands_of_the_guide() if line.startswith("gapt launch")])
def test_the_guide_is_true(line, capsys):
    words = [word for word in line.split() if word != "--yes"]
    assert launch(" ".join([*words[2:], "--dry-run"])) == 0
    assert "would run: " in capsys.readouterr().out


@pytest.mark.parametrize("line", [line for line in commands_of_the_guide() if not line.startswith("gapt launch")])
def test_the_other_commands_of_the_guide_can_be_read(line):
    program, *words = line.split()
    assert program in ("gapt", "gcloud")
    if program == "gapt":
        assert callable(parse(words).command)


def test_preflight_has_a_name_of_its_own(capsys):
    assert launch(f"smoke {GKE} --preflight") == 0
    output = capsys.readouterr().out
    assert "  name: smoke-preflight\n" in output and "- --devices=16\n" in output


def test_ctrl_c_lets_the_submitted_script_clean_up(tmp_path):
    """It may have machines to delete, which takes longer than the patience of `subprocess`."""
    text = "trap 'sleep 1; touch cleaned; exit 130' INT\nkill -INT $PPID\nsleep 0.1\nkill -INT $$\n"
    (tmp_path / "a.sh").write_text(text)
    rendered = Rendered({}, submit=("bash", "a.sh"), needs="bash", created="", delete="", watch="")
    assert submit.submit(rendered, tmp_path, Console()) == 130
    assert (tmp_path / "cleaned").exists()
