"""A run's policy and its anchor without its songs: for export and live play."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax

from gapt_jax import models as model_library
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import Experiment, arm_name, from_dict
from gapt_jax.errors import UserError
from gapt_jax.runtime import mesh
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import read_json
from gapt_jax.runtime.mesh import MeshLayout
from gapt_jax.task import Task
from gapt_jax.training import run_folder
from gapt_jax.training.job import Job, stages_of
from gapt_jax.training.post_training import has_checkpoint, restore_policy
from gapt_jax.training.stages import load_params
from gapt_jax.types import Params

MLE = "mle"


@dataclasses.dataclass(frozen=True)
class SavedPolicy:
    """A policy and what it needs to play."""

    experiment: Experiment
    task: Task
    params: Params  # float32, on the host
    system: str  # `MLE`, or the name of the post-trained arm
    facts: dict[str, Any]  # where it comes from


def load_policy(workdir: Path, console: Console, *, supervised: bool = False, step: int | None = None) -> SavedPolicy:
    """The newest policy of a run, that of a kept `step`, or with `supervised` the one it was post-trained from."""
    job, facts = open_without_songs(workdir, console)
    experiment, spec, workdir = job.experiment, job.spec, job.workdir
    shapes = jax.eval_shape(spec.models.policy.init, jax.random.key(0))
    if supervised:
        folder, trained = _supervised(job, "policy", shapes)
        if trained is None:
            raise UserError(missing(job, "policy", folder.name))
        params, number, system = trained, 0, MLE
    else:
        (number, params), system = newest_policy(job, step), arm_name(experiment)
    origin = {
        "run": workdir.name,
        "experiment": experiment.name,
        "system": system,
        "step": number,
        "seed": experiment.seed,
        "adversarial_weight": None if supervised else experiment.algorithm.adversarial_weight,
        **{key: facts[key] for key in ("config_hash", "data_fingerprint", "git_revision")},
    }
    return SavedPolicy(experiment, spec.task, jax.device_get(params), system, origin)


def newest_policy(job: Job, step: int | None = None) -> tuple[int, Params]:
    """(step, policy) of a run's newest checkpoint, or of that of `step`. Raises UserError where there is none."""
    shapes, runtime = jax.eval_shape(job.spec.models.policy.init, jax.random.key(0)), job.experiment.runtime
    found = restore_policy(job.spec, shapes, runtime, job.workdir, job.console, step)
    if found is None:
        name = job.experiment.name
        raise UserError(f"{job.workdir} has no checkpoint of the policy yet: go on with 'gapt run {name}'")
    return found


def missing(job: Job, stage: str, name: str) -> str:
    """What to say where the finished stage in the folder `name` is not found."""
    workdir = job.workdir
    if not has_checkpoint(workdir):
        return f"{workdir} has not finished {stage} yet: go on with 'gapt run {job.experiment.name}'"
    places = ", ".join(map(str, run_folder.stage_roots(workdir)))
    return (
        f"{workdir} lacks its trained stage {name}, which is in none of {places}: copy that folder into "
        f"{workdir / run_folder.UPSTREAM} from where the run was made"
    )


def load_anchor(workdir: Path, console: Console) -> Params | None:
    """The anchor of a run, float32 on the host; None where it is not there."""
    job, _ = open_without_songs(workdir, console)
    shapes = jax.eval_shape(job.spec.models.anchor.init, jax.random.key(0))
    return jax.device_get(_supervised(job, "anchor", shapes)[1])


def open_without_songs(workdir: Path, console: Console) -> tuple[Job, dict[str, Any]]:
    """(a run without its songs, its facts)."""
    workdir = workdir.resolve()
    set_up()
    settings, facts = read_json(workdir / "config.json", "gapt run"), read_json(workdir / "run.json", "gapt run")
    experiment = from_dict(Experiment, settings)
    run_folder.check_unedited(workdir, settings, facts)
    task = experiment.domain().load(experiment.data, workdir)
    models = model_library.build(experiment.models, task.vocab_size, task.reward_models)
    layout = MeshLayout(experiment.runtime.microbatch_rows, mesh=mesh.build_any(experiment.runtime.mesh))
    spec = Spec(models, experiment.algorithm, task, layout)
    corpus: Any = SimpleNamespace(fingerprint=facts["data_fingerprint"])
    return Job(experiment, workdir, corpus, spec, layout, console), facts


def _supervised(job: Job, name: str, shapes: Params) -> tuple[Path, Params | None]:
    """(the folder of a supervised stage, what it has trained or None)."""
    (stage,) = (stage for stage in stages_of(job) if stage.name == name)
    roots = run_folder.stage_roots(job.workdir)
    folder = stage.found(roots)
    if folder is None:
        return stage.folder(roots[0]), None
    return folder, load_params(folder, job.layout.abstract(shapes))
