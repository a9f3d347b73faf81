"""Writing rendered files and handing them to a platform; nothing is submitted unless it is asked for."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from gapt_jax.errors import UserError
from gapt_jax.launch.render import Rendered
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import write_atomic

_GET = {
    "gcloud": "install the Google Cloud CLI (cloud.google.com/sdk)",
    "kubectl": "install kubectl (kubernetes.io/docs/tasks/tools)",
    "sbatch": "run this on a login node of the SLURM cluster",
}


def show(rendered: Rendered, console: Console) -> None:
    """Prints all files and the command that would submit them."""
    for name, text in sorted(rendered.files.items()):
        console.say(f"--- {name}")
        console.say(text.rstrip("\n"))
    console.say("---")
    console.say(f"would run: {shlex.join(rendered.submit)}")


def write(rendered: Rendered, folder: Path, console: Console) -> None:
    """Writes all files into `folder`, over those of an earlier call."""
    for name, text in sorted(rendered.files.items()):
        write_atomic(folder / name, text)
        console.say(f"wrote {folder / name}")


def submit(rendered: Rendered, folder: Path, console: Console) -> int:
    """Runs the submitting command inside `folder`, without a shell, and returns its exit code."""
    if shutil.which(rendered.needs) is None:
        get = _GET.get(rendered.needs, f"install {rendered.needs}")
        raise UserError(f"{rendered.needs} is not on the PATH: {get}, or take the files in {folder} to where it is")
    console.say(f"running: {shlex.join(rendered.submit)}")
    console.say(f"creates {rendered.created}")
    console.say(f"watch: {rendered.watch}")
    console.say(f"delete: {rendered.delete} (in {folder})")
    # Ctrl-C reaches the command as well, which may have machines to delete; `subprocess` would kill it after 0.25 s.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = subprocess.run(rendered.submit, cwd=folder, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        console.warn(f"{rendered.submit[0]} ended with exit code {code}")
    return code
