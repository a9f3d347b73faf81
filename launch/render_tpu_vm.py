"""Scripts for TPU VMs: a queued resource, containers on all its machines, restarts, and deletion at the end.

Sources: ``gcloud compute tpus queued-resources --help`` (SDK 528) and its code. Its `ssh` runs a command on at most 64
machines at a time, one batch after the other, and again where a connection breaks; so containers are started detached
(every machine's command ends at once, and may come twice), and only worker 0 of node 0 is watched.
"""

from __future__ import annotations

import shlex

from gapt_jax.launch import templates
from gapt_jax.launch.render_gke import environment
from gapt_jax.launch.spec import EXITS_FINAL, MOUNT, LaunchSpec, check_storage

_SHARED_MEMORY = "16g"  # Docker's own default of 64 MB is too little for libtpu


def files(spec: LaunchSpec) -> dict[str, str]:
    """launch.sh and delete.sh run here; start.sh and follow.sh are what launch.sh sends to the machines."""
    registry = spec.image.partition("/")[0]
    login = (
        f"sudo gcloud auth configure-docker {registry} --quiet\n" if registry.endswith(("pkg.dev", "gcr.io")) else ""
    )
    values = {
        "NAME": spec.name,
        "PLACE": shlex.join([f"--project={spec.project}", f"--zone={spec.zone}"]),
        "CREATE": shlex.join(_create_options(spec)),
        "RESTARTS": str(spec.restarts),
        "FINAL": " | ".join(map(str, EXITS_FINAL)),
        "GRACE": str(spec.grace_seconds),
        "MOUNT": _mount(spec).rstrip("\n"),
        "LOGIN": login,
        "IMAGE": shlex.quote(spec.image),
        "SHM": _SHARED_MEMORY,
        "DIR": MOUNT,
        "ENV": shlex.join(f"--env={name}={value}" for name, value in sorted(environment(spec).items())),
        "COMMAND": shlex.join(spec.command),
    }
    scripts = {
        "launch.sh": templates.TPU_LAUNCH,
        "delete.sh": templates.TPU_DELETE,
        "start.sh": templates.TPU_START,
        "follow.sh": templates.TPU_FOLLOW,
    }
    return {name: templates.fill(text, values) for name, text in scripts.items()}


def _create_options(spec: LaunchSpec) -> list[str]:
    found = spec.slice
    nodes = [f"--node-id={spec.name}"]
    if spec.slices > 1:
        nodes = [f"--node-count={spec.slices}", f"--node-prefix={spec.name}"]
    return [
        f"--accelerator-type={found.cloud_type}",
        f"--runtime-version={found.generation.runtime_version}",
        *nodes,
        *(["--spot"] if spec.spot else []),
        *([f"--service-account={spec.service_account}"] if spec.service_account else []),
    ]


def _mount(spec: LaunchSpec) -> str:
    kind, place, path = check_storage(spec.storage, spec.target)
    if kind == "nfs":
        return templates.fill(templates.MOUNT_NFS, {"PLACE": f"{place}:{path}", "DIR": MOUNT})
    return templates.fill(templates.MOUNT_BUCKET, {"PLACE": place, "DIR": MOUNT})
