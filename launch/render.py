"""The files that start a run on a platform, and the commands that submit and delete it: pure and deterministic."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from gapt_jax.launch import render_gke, render_slurm, render_tpu_vm
from gapt_jax.launch.spec import LaunchSpec


@dataclass(frozen=True)
class Rendered:
    """Files by name, and what to do with them from inside their folder."""

    files: dict[str, str]
    submit: tuple[str, ...]  # a command; its first word is the tool that must be installed
    needs: str  # the tool that the command calls
    created: str  # by `submit`, in words
    delete: str  # how to get rid of it
    watch: str


def render(spec: LaunchSpec) -> Rendered:
    """The files for `spec.target`, with a README that says how to use them."""
    rendered = {"local": _local, "tpu-vm": _tpu_vm, "gke": _gke, "slurm": _slurm}[spec.target](spec)
    return Rendered(**{**vars(rendered), "files": {**rendered.files, "README.md": _readme(spec, rendered)}})


def local_arguments(spec: LaunchSpec) -> list[str]:
    """Arguments of ``python -m gapt_jax.launch.local``."""
    devices = [f"--devices-per-process={spec.devices_per_process}"] if spec.devices_per_process else []
    limits = [f"--restarts={spec.restarts}", f"--grace={spec.grace_seconds}"]
    return [f"--processes={spec.processes}", *devices, *limits, "--", *spec.command]


def _local(spec: LaunchSpec) -> Rendered:
    script = f"#!/bin/sh\nexec python -m gapt_jax.launch.local {shlex.join(local_arguments(spec))}\n"
    return Rendered(
        {"local.sh": script},
        submit=("sh", "local.sh"),
        needs="sh",
        created="processes on this machine, which end with the script",
        delete="Ctrl-C, or SIGTERM to the script: all processes save the same step",
        watch="the output of the script",
    )


def _tpu_vm(spec: LaunchSpec) -> Rendered:
    kept = "stays until it is deleted" if spec.keep else "is deleted again when the script ends"
    return Rendered(
        render_tpu_vm.files(spec),
        submit=("bash", "launch.sh", *(["--keep"] if spec.keep else [])),
        needs="gcloud",
        created=f"the queued resource {spec.name}, which {kept}",
        delete="bash delete.sh",
        watch="the output of the script, which is that of worker 0",
    )


def _gke(spec: LaunchSpec) -> Rendered:
    kubectl = ("kubectl", *((f"--context={_context(spec)}",) if spec.cluster else ()))
    return Rendered(
        {"jobset.yaml": render_gke.jobset_yaml(spec)},
        submit=(*kubectl, "apply", "--filename=jobset.yaml"),
        needs="kubectl",
        created=f"the JobSet {spec.name}",
        delete=shlex.join((*kubectl, "delete", "jobset", spec.name)),
        watch=shlex.join((*kubectl, "logs", "--follow", f"--selector={_first_pod(spec)}", "--container=train")),
    )


def _slurm(spec: LaunchSpec) -> Rendered:
    return Rendered(
        {"job.sh": render_slurm.job_script(spec)},
        submit=("sbatch", "job.sh"),
        needs="sbatch",
        created=f"the SLURM job {spec.name}",
        delete=f"scancel --name={spec.name} --me",
        watch=f"tail -f {spec.name}-*.log",
    )


def _first_pod(spec: LaunchSpec) -> str:
    """Labels of the pod whose process speaks for all."""
    jobset = f"jobset.sigs.k8s.io/jobset-name={spec.name},jobset.sigs.k8s.io/job-index=0"
    return f"{jobset},batch.kubernetes.io/job-completion-index=0"


def _context(spec: LaunchSpec) -> str:
    """The kubectl context that ``gcloud container clusters get-credentials`` writes."""
    return f"gke_{spec.project}_{spec.zone}_{spec.cluster}"


def _readme(spec: LaunchSpec, rendered: Rendered) -> str:
    here = spec.target == "local"
    where = f", {spec.slices} × {spec.slice.describe()}" if spec.accelerator else ""
    commands = [f"    {shlex.join(rendered.submit)}", "", f"Creates {rendered.created}."]
    if spec.cluster:
        place = f"--location={spec.zone} --project={spec.project}"
        commands[:0] = [f"    gcloud container clusters get-credentials {spec.cluster} {place}"]
    lines = [
        f"# {spec.name} on {spec.target}{where}",
        "",
        "Run it in the folder that relative paths are meant for:" if here else "Submit, from inside this folder:",
        "",
        *commands,
        f"Watch: `{rendered.watch}`." if spec.target in ("gke", "slurm") else f"Watch: {rendered.watch}.",
        f"Stop: {rendered.delete}." if here else f"Delete: `{rendered.delete}`.",
        "",
        "What runs" + {"slurm": ", once per GPU:", "local": ":"}.get(spec.target, ", once per host:"),
        "",
        f"    {shlex.join(spec.command)}",
        "",
        *_notes(spec),
        f"Restarts at most {spec.restarts} times, from the last checkpoint in {_quoted(spec.workdir)}.",
    ]
    return "\n".join(lines) + "\n"


def _notes(spec: LaunchSpec) -> list[str]:
    notes = {
        "tpu-vm": "Run the script where it can stay for as long as the training (tmux on a small VM): it restarts and "
        "deletes.",
        "slurm": "Submit from a shell in which `gapt` is on the PATH: the job inherits its environment.",
    }
    lines = [notes[spec.target]] if spec.target in notes else []
    if spec.spot and spec.target == "gke":
        lines += ["A Spot node gives its pods 15 seconds unless the node pool says more, whatever --grace says."]
    if spec.spot and spec.target == "tpu-vm":
        lines += ["A Spot VM is gone 30 seconds after its notice, whatever --grace says."]
    return lines


def _quoted(text: str) -> str:
    """Markdown code whatever the text holds."""
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}"
