"""What a LaunchSpec refuses."""

import dataclasses

import pytest

from gapt_jax.errors import UserError
from gapt_jax.launch.spec import LaunchSpec
from tests.launch.launching import GKE, LOCAL, SLURM, TPU_VM


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (GKE, {"name": "a; rm -rf /"}, "--name must be lower-case letters"),
        (GKE, {"name": "A"}, "--name must be"),
        (GKE, {"name": ""}, "--name must be"),
        (GKE, {"name": "a\n"}, "cannot be printed"),
        (GKE, {"name": "x" * 40}, "39 characters or fewer"),
        (GKE, {"image": "a'; reboot"}, "--image must be"),
        (GKE, {"image": ""}, "gke needs --image"),
        (GKE, {"workdir": "/mnt/gapt/a\nb"}, "cannot be printed"),
        (GKE, {"workdir": "/scratch/a"}, "must be inside /mnt/gapt"),
        (GKE, {"workdir": "/mnt/gapt/../etc"}, "must be an absolute path"),
        (GKE, {"songs": "songs"}, "--songs must be an absolute path"),
        (GKE, {"settings": ("a=\x00",)}, "cannot be printed"),
        (GKE, {"experiment": "--debug"}, "EXPERIMENT must be"),
        (GKE, {"arguments": ("--grid=a=\n",)}, "cannot be printed"),
        (GKE, {"env": (("A B", "1"),)}, "--env must be NAME=VALUE"),
        (GKE, {"env": (("WANDB_API_KEY", "1"),)}, "looks like a secret"),
        (GKE, {"env": (("GAPT_PROCESS", "1"),)}, "is set by the launcher"),
        (GKE, {"storage": "gs://a/b c"}, "--storage must be one of gs://BUCKET"),
        (GKE, {"storage": "nfs://host/$(reboot)"}, "--storage must be"),
        (GKE, {"storage": "nfs://host"}, "--storage must be"),
        (TPU_VM, {"storage": "pvc:claim"}, "--storage must be one of gs://BUCKET, nfs://SERVER/PATH, not"),
        (GKE, {"accelerator": "v5e-4"}, "needs slices of several machines"),
        (GKE, {"accelerator": "h100-8"}, "gke is for TPUs"),
        (SLURM, {"accelerator": "v5e-64"}, "slurm is for GPUs"),
        (TPU_VM, {"accelerator": "tpu7x-8"}, "use --on gke"),
        (GKE, {"cluster": "c"}, "--cluster needs --project and --zone"),
        (SLURM, {"image": "gapt:1"}, "--image means nothing on slurm: leave it out .it is for tpu-vm, gke"),
        (SLURM, {"queue": "a b"}, "--queue must be"),
        (LOCAL, {"spot": True}, "--spot means nothing on local"),
        (LOCAL, {"processes": 0}, "--processes must be 1 or more"),
        (LOCAL, {"grace_seconds": 0}, "--grace must be 1 or more"),
        (LOCAL, {"restarts": -1}, "--restarts must be 0 or more"),
        (LOCAL, {"target": "slrm"}, "did you mean 'slurm'"),
    ],
)
def test_what_cannot_be_launched_is_one_sentence(spec, changes, message):
    with pytest.raises(UserError, match=message) as raised:
        dataclasses.replace(spec, **changes)
    assert "\n" not in str(raised.value)


def test_the_command_is_that_of_the_trainer():
    assert TPU_VM.command == (
        "gapt",
        "run",
        "gapt",
        "--set=algorithm.adversarial_weight=0.5",
        '--set=data.mixture=[["hooktheory", 1.0]]',
        "--set=data.songs=/mnt/gapt/songs",
        "--workdir=/mnt/gapt/runs/a",
    )


def test_an_ablation_is_started_as_a_run_is():
    ablation = dataclasses.replace(LOCAL, program="ablate", arguments=("--lambdas=0,1", "--seeds=2"))
    assert ablation.command == ("gapt", "ablate", "smoke", "--lambdas=0,1", "--seeds=2", "--workdir=runs/a b")


def test_every_field_is_for_some_target():
    """A field that no target takes could never be given."""
    from gapt_jax.launch import spec

    known = spec._COMMON.union(*spec._BY_TARGET.values())
    assert known == {field.name for field in dataclasses.fields(LaunchSpec)}


def test_preflight_expects_all_devices():
    checked = dataclasses.replace(GKE, preflight=True)  # 2 × v5p-128, 64 chips each
    program = ("python", "-m", "gapt_jax.launch.preflight")
    assert checked.command == (*program, "--workdir=/mnt/gapt/runs/a", "--devices=128")
    assert dataclasses.replace(LOCAL, preflight=True).command[-1] == "--devices=8"
    assert dataclasses.replace(LOCAL, preflight=True, devices_per_process=0).command[-1] == "--workdir=runs/a b"


def test_exit_codes_are_those_of_the_trainer():
    from gapt_jax.commands import exits
    from gapt_jax.launch import spec

    assert spec.EXIT_PREEMPTED == exits.EXIT_PREEMPTED
    assert spec.EXITS_FINAL == (exits.EXIT_FAULT, exits.EXIT_BAD_INPUT, exits.EXIT_TRAINING_STOPPED)
