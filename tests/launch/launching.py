"""Specs that the tests of rendering share."""

from gapt_jax.launch.spec import LaunchSpec

TPU_VM = LaunchSpec(
    target="tpu-vm",
    experiment="gapt",
    name="gapt-a",
    workdir="/mnt/gapt/runs/a",
    settings=("algorithm.adversarial_weight=0.5", 'data.mixture=[["hooktheory", 1.0]]'),
    songs="/mnt/gapt/songs",
    restarts=2,
    accelerator="v5e-64",
    image="europe-docker.pkg.dev/p/images/gapt:1",
    storage="nfs://10.0.0.2/share",
    project="my-project",
    zone="europe-west4-b",
)
GKE = LaunchSpec(
    target="gke",
    experiment="gapt",
    name="gapt-a",
    workdir="/mnt/gapt/runs/a",
    accelerator="v5p-128",
    slices=2,
    image="europe-docker.pkg.dev/p/images/gapt:1",
    storage="gs://my-bucket",
    spot=True,
    queue="multislice-queue",
    service_account="trainer",
    env=(("LIBTPU_INIT_ARGS", "--xla_a=1 --xla_b=$(HOME)"),),
)
SLURM = LaunchSpec(
    target="slurm",
    experiment="gapt",
    name="gapt-a",
    workdir="/scratch/gapt/a",
    accelerator="h100-16",
    restarts=3,
    queue="gpu",
    env=(("XLA_FLAGS", "--xla_a=1 --xla_b='x y'"),),
)
LOCAL = LaunchSpec(
    target="local", experiment="smoke", name="smoke", workdir="runs/a b", processes=2, devices_per_process=4, restarts=1
)
ALL = (TPU_VM, GKE, SLURM, LOCAL)
