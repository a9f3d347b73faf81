"""What to run where, checked: nothing in a `LaunchSpec` can end a word, a line or a string of a rendered file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from gapt_jax.config import MeshConfig, did_you_mean
from gapt_jax.errors import UserError
from gapt_jax.launch import topology

TARGETS = ("local", "tpu-vm", "gke", "slurm")
EXIT_PREEMPTED = 42  # everything is saved, run the same command again
EXITS_FINAL = (1, 2, 3)  # fault, bad input, training stopped: starting again would end the same way
MOUNT = "/mnt/gapt"  # where the shared storage appears in the containers of tpu-vm and gke

_LABEL = (r"[a-z]([-a-z0-9]*[a-z0-9])?", "lower-case letters, digits and inner dashes, beginning with a letter")
_WORD = (r"[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_])?", "letters, digits and inner dashes and dots")
# JobSet puts up to 24 more characters behind the name of a pod, which may have 63.
_LONGEST_NAME = 39
_PATTERNS = {
    "name": _LABEL,
    "image": (r"[a-z0-9][-A-Za-z0-9._/:@]*", "an image reference such as europe-docker.pkg.dev/project/images/gapt:1"),
    "project": (r"[a-z]([-a-z0-9.:]*[a-z0-9])?", "a Google Cloud project id"),
    "zone": _LABEL,
    "cluster": _LABEL,
    "queue": _WORD,
    "service_account": (r"[a-z0-9][-a-z0-9.@]*", "the name of a service account"),
}
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_BY_TARGET = {
    "local": {"processes", "devices_per_process"},
    "tpu-vm": {
        "accelerator", "slices", "image", "storage", "spot", "env", "project", "zone", "service_account", "keep",
    },
    "gke": {
        "accelerator", "slices", "image", "storage", "spot", "env", "project", "zone", "cluster", "queue",
        "service_account",
    },
    "slurm": {"accelerator", "env", "queue", "hours"},
}  # fmt: skip
_COMMON = {
    "target", "experiment", "name", "workdir", "program", "arguments", "settings", "restarts", "grace_seconds", "songs",
    "preflight",
}  # fmt: skip
_REQUIRED = {
    "local": (),
    "tpu-vm": ("accelerator", "image", "storage", "project", "zone"),
    "gke": ("accelerator", "image", "storage"),
    "slurm": ("accelerator",),
}


@dataclass(frozen=True)
class LaunchSpec:
    """One run of ``gapt run EXPERIMENT``, or of ``gapt ablate``, on one platform. Empty text and False mean: not
    given."""

    target: str
    experiment: str
    name: str  # of everything that is created; a DNS label
    workdir: str  # of the run; a folder that all hosts see
    program: str = "run"  # or "ablate"
    arguments: tuple[str, ...] = ()  # of the program's own, such as --lambdas=0,1
    settings: tuple[str, ...] = ()  # path=value, as for --set
    songs: str = ""  # folder of songs
    preflight: bool = False  # check the machines instead of training
    restarts: int = 10
    grace_seconds: int = 120  # between SIGTERM and SIGKILL: must cover one save
    accelerator: str = ""  # of one slice
    slices: int = 1  # connected by the data-centre network
    image: str = ""  # that holds gapt-jax
    storage: str = ""  # gs://BUCKET, nfs://SERVER/PATH or pvc:CLAIM, mounted at MOUNT
    spot: bool = False
    keep: bool = False  # the TPU VMs, when the script ends
    env: tuple[tuple[str, str], ...] = ()
    project: str = ""
    zone: str = ""  # of the cluster on GKE: its location, zone or region
    cluster: str = ""  # on GKE; empty: the current context of kubectl
    queue: str = ""  # Kueue's LocalQueue on GKE, the partition on SLURM
    service_account: str = ""  # on GKE that of Kubernetes, on TPU VMs that of Google Cloud
    hours: int = 24  # time limit of one start on SLURM
    processes: int = 1  # local
    devices_per_process: int = 0  # local; 0 leaves it to JAX

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            hint = did_you_mean(self.target, TARGETS)
            raise UserError(f"'{self.target}' is not one of {', '.join(TARGETS)}{hint}")
        self._check_words()
        self._check_fits_target()
        self._check_paths()
        for name in ("slices", "grace_seconds", "hours", "processes"):
            if getattr(self, name) < 1:
                raise UserError(f"{_flag(name)} must be 1 or more, not {getattr(self, name)}")
        for name in ("restarts", "devices_per_process"):
            if getattr(self, name) < 0:
                raise UserError(f"{_flag(name)} must be 0 or more, not {getattr(self, name)}")
        if self.accelerator:
            self._check_accelerator()

    @property
    def slice(self) -> topology.Slice:
        return topology.parse(self.accelerator)

    @property
    def devices(self) -> int:
        """Devices that JAX shows over all hosts; 0 where only JAX knows."""
        return self.slices * self.slice.devices if self.accelerator else self.processes * self.devices_per_process

    @property
    def command(self) -> tuple[str, ...]:
        """The process to start, once per host (on SLURM once per GPU)."""
        if self.preflight:
            expected = (f"--devices={self.devices}",) if self.devices else ()
            return ("python", "-m", "gapt_jax.launch.preflight", f"--workdir={self.workdir}", *expected)
        settings = self.settings + ((f"data.songs={self.songs}",) if self.songs else ())
        return (
            *("gapt", self.program, self.experiment, *self.arguments),
            *(f"--set={text}" for text in settings),
            f"--workdir={self.workdir}",
        )

    def _check_words(self) -> None:
        texts = {_flag(name): str(value) for name, value in vars(self).items() if isinstance(value, str)}
        texts |= {f"--set {text!r}": text for text in self.settings}
        texts |= {repr(text): text for text in self.arguments}
        texts |= {f"--env {name}": value for name, value in self.env}
        for what, text in texts.items():
            if not text.isprintable():
                raise UserError(f"{what} holds a character that cannot be printed, such as a line break: {text!r}")
        for name, (pattern, meaning) in _PATTERNS.items():
            value = getattr(self, name)
            if (value or name == "name") and not re.fullmatch(pattern, value, re.ASCII):
                raise UserError(f"{_flag(name)} must be {meaning}, not {value!r}")
        if len(self.name) > _LONGEST_NAME:
            raise UserError(f"--name must have {_LONGEST_NAME} characters or fewer, not {len(self.name)}: {self.name}")
        if not self.experiment or self.experiment.startswith("-"):
            raise UserError(f"EXPERIMENT must be a name or path/to/file.py:function, not {self.experiment!r}")
        for name, _ in self.env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII):
                raise UserError(
                    f"--env must be NAME=VALUE with a name of letters, digits and underscores, not {name!r}"
                )
            if _SECRET.search(name):
                raise UserError(
                    f"--env {name} looks like a secret, and rendered files are no place for one: leave it out"
                )
            if name.startswith("GAPT_"):
                raise UserError(f"--env {name} is set by the launcher: leave it out")

    def _check_fits_target(self) -> None:
        for name, field in self.__dataclass_fields__.items():
            given = getattr(self, name) not in (field.default, "")
            if given and name not in _COMMON | _BY_TARGET[self.target]:
                others = ", ".join(target for target in TARGETS if name in _BY_TARGET[target])
                raise UserError(f"{_flag(name)} means nothing on {self.target}: leave it out (it is for {others})")
        for name in _REQUIRED[self.target]:
            if not getattr(self, name):
                raise UserError(f"{self.target} needs {_flag(name)}")
        if self.cluster and not (self.project and self.zone):
            raise UserError("--cluster needs --project and --zone as well, as in the name of its kubectl context")

    def _check_paths(self) -> None:
        if not self.workdir:
            raise UserError("--workdir must name a folder")
        if self.target == "local":
            return
        for name in ("workdir", "songs"):
            value = getattr(self, name)
            if not value or (name, value) == ("songs", "grammar"):
                continue
            if not value.startswith("/") or ".." in value.split("/"):
                raise UserError(f"{_flag(name)} must be an absolute path that all hosts see, not {value!r}")
            if self.storage and name == "workdir" and not value.startswith(f"{MOUNT}/"):
                raise UserError(f"--workdir must be inside {MOUNT}, where --storage is mounted, not {value!r}")
        if self.storage:
            check_storage(self.storage, self.target)

    def _check_accelerator(self) -> None:
        found, is_gpu = self.slice, self.slice.generation.dimensions == 1
        if is_gpu != (self.target == "slurm"):
            wanted = "GPUs, such as h100-16" if self.target == "slurm" else "TPUs, such as v5e-64"
            raise UserError(f"{self.target} is for {wanted}, not {found.name}")
        if self.target == "tpu-vm" and not found.generation.runtime_version:
            raise UserError(f"{found.name} is launched through GKE here: use --on gke")
        if self.target == "gke" and self.slices > 1 and found.vms == 1:
            raise UserError(f"--slices needs slices of several machines on GKE, and {found.describe()}")


def check_storage(storage: str, target: str) -> tuple[str, str, str]:
    """Kind and place of the storage: (gs, bucket, ""), (nfs, server, path) or (pvc, claim, "")."""
    if match := re.fullmatch(r"gs://([a-z0-9][-a-z0-9_.]*[a-z0-9])/?", storage, re.ASCII):
        return "gs", match[1], ""
    if storage.startswith("nfs://"):
        url = urlsplit(storage)
        if re.fullmatch(r"[A-Za-z0-9][-A-Za-z0-9.]*", url.netloc, re.ASCII) and re.fullmatch(
            r"(/[-A-Za-z0-9_.]+)+", url.path, re.ASCII
        ):
            return "nfs", url.netloc, url.path
    match = re.fullmatch(r"pvc:([a-z0-9]([-a-z0-9.]*[a-z0-9])?)", storage, re.ASCII)
    if match and target == "gke":
        return "pvc", match[1], ""
    kinds = "gs://BUCKET, nfs://SERVER/PATH" + (" or pvc:CLAIM" if target == "gke" else "")
    raise UserError(f"--storage must be one of {kinds}, not {storage!r}")


def _flag(name: str) -> str:
    special = {"grace_seconds": "--grace", "target": "--on", "experiment": "EXPERIMENT", "settings": "--set"}
    return special.get(name, f"--{name.replace('_', '-')}")


def check_mesh(mesh: MeshConfig, spec: LaunchSpec) -> None:
    """Whether the mesh comes out at the devices of a slice; the trainer would find out only once it holds them."""
    devices = spec.devices // spec.slices
    inner = mesh.fsdp * mesh.tensor
    comes_out = devices == mesh.data * inner if mesh.data else devices % inner == 0
    if devices and not comes_out:  # 0: local, and JAX itself finds out
        where = f"{spec.slice.name} has {devices} devices" if spec.accelerator else f"there are {devices} devices"
        raise UserError(
            f"runtime.mesh data × fsdp × tensor = {mesh.data or '(rest)'} × {mesh.fsdp} × {mesh.tensor} "
            f"does not come out: {where}{' per slice' if spec.slices > 1 else ''}"
        )
