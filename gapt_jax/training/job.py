"""An experiment with its data opened, and the supervised stages that all its runs share.

They lie beside the run folder under ``stages/``: every run that needs the same ones reuses them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gapt_jax import models as model_library
from gapt_jax.algorithm import supervised
from gapt_jax.algorithm.state import Frozen, Spec
from gapt_jax.config import Experiment, config_hash, to_dict
from gapt_jax.errors import UserError
from gapt_jax.models import fused, kernel
from gapt_jax.runtime import hosts, native
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json, source_hash
from gapt_jax.runtime.mesh import MeshLayout
from gapt_jax.task import Corpus
from gapt_jax.training import pretrain, run_folder
from gapt_jax.training.stages import Stage, run_stage
from gapt_jax.types import Batch, Params


@dataclasses.dataclass(frozen=True)
class Job:
    """An experiment with its data opened and its folders known."""

    experiment: Experiment
    workdir: Path
    corpus: Corpus
    spec: Spec
    layout: MeshLayout  # that of `spec`
    console: Console
    of_data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what run.json says of it beside

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says of the data."""
        return {"data_fingerprint": self.corpus.fingerprint, **self.of_data}

    @property
    def root(self) -> Path:
        return run_folder.root_of(self.workdir)

    def batches(self, seed: int, *, augment: bool = True, rows_here: Callable[[int], np.ndarray] | None = None) -> Any:
        """Training batches by (rows, start); of so many rows this host loads `rows_here`, or what its devices hold."""
        here = rows_here or self.layout.rows_here
        return lambda rows, start: self.corpus.training_batches(
            batch_size=rows, seed=seed, augment=augment, start=start, rows=here(rows)
        )

    def valid_songs(self, count: int) -> Any:
        """Songs of the valid split of the first training set."""
        return self.corpus.evaluation_songs(self.experiment.data.mixture[0][0], "valid", count)


@dataclasses.dataclass(frozen=True)
class Upstream:
    """What the supervised stages made."""

    policy: Params
    anchor: Params
    rewards: dict[str, Params]  # stacked seeds by name; of the encoder the held-out ones come last


def agree(job: Job, flags: Mapping[str, str]) -> None:
    """All processes must be about to do the same; compared before any of them waits for another's device."""
    hosts.agree(
        dict(flags)
        | {
            "settings": run_folder.run_hash(job.experiment),
            "runtime settings": config_hash(job.experiment.runtime, job.experiment.health),
            "source code": source_hash(),
            "jax": jax.__version__,
            "songs": job.corpus.fingerprint,
            **job.spec.task.identity,
            "devices": f"{jax.device_count()} in all, {jax.local_device_count()} here",
        }
    )


def stage_names(experiment: Experiment) -> tuple[str, ...]:
    """All stages of such a run, in order."""
    return ("data", "policy", "anchor", *experiment.algorithm.rewards.MODELS, "gapt", "evaluation")


def open_job(experiment: Experiment, workdir: Path, devices: Mesh, console: Console) -> Job:
    """Opens the data; the tokens and the fingerprint of an existing run must be those of the data."""
    if not hosts.is_first():
        hosts.wait_for_all("data")  # the first process prepares what is not there yet
    with console.phases() as on_progress:
        folder = run_folder.root_of(workdir) / "data"
        task, corpus, of_data, warnings = experiment.domain().open(experiment.data, folder, workdir, on_progress)
    if hosts.is_first():
        hosts.wait_for_all("data")
    for warning in warnings:
        console.warn(warning)
    facts = workdir / "run.json"
    if facts.exists():
        known = read_json(facts, "gapt run")["data_fingerprint"]
        if known != corpus.fingerprint:
            raise UserError(
                f"{workdir} was trained on other songs (fingerprint {known}, now {corpus.fingerprint}): "
                "give data.songs the folder it was made from, or choose another --workdir"
            )
    platform = devices.devices.flat[0].platform
    can_help = platform == "cpu" and kernel.suits(experiment.models.policy, experiment.models.compute_dtype)
    reason = native.load() if can_help else ""
    if reason:
        console.say(f"rollouts do without the compiled kernel and take longer: {reason}")
    _, why_not = fused.implementation(experiment.models, platform)
    if why_not:
        console.say(why_not)
    models = model_library.build(
        experiment.models, task.vocab_size, task.reward_models, has_kernel=can_help and not reason, platform=platform
    )
    layout = MeshLayout(experiment.runtime.microbatch_rows, mesh=devices)
    return Job(experiment, workdir, corpus, Spec(models, experiment.algorithm, task, layout), layout, console, of_data)


def stages_of(job: Job) -> list[Stage]:
    """The supervised stages in order; reward models that carry no weight are left out, but encoders are always needed
    by the evaluation."""
    config, models, task = job.experiment, job.spec.models, job.spec.task
    fits, weights, names = config.pretrain, config.algorithm.rewards, stage_names(config)
    data = run_folder.without_later("data", to_dict(config)["data"])
    data = {name: value for name, value in data.items() if name not in config.data.BESIDE}
    common = {
        "songs": job.corpus.fingerprint,
        "data": data,
        **task.identity,
        "compute_dtype": config.models.compute_dtype,
    }

    def stage(
        name: str, network: Any, loss: Any, guessing: Any, model_config: Any, identity: Any, members: int | None
    ) -> Stage:
        fit = pretrain.Fit(loss, getattr(fits, name), members, job.layout, guessing)
        identity = common | {"model": dataclasses.asdict(model_config)} | identity
        number = names.index(name) - 1  # without the data
        return Stage(name, fit, network.init, fits.seed * len(names) + number, identity)

    def any_token(songs: int) -> float:
        return math.log(task.vocab_size)

    def agent(name: str, loss: Any) -> Stage:  # rewards judge pairs: agents of all roles share them
        network, size = getattr(models, name), getattr(config.models, name)
        return stage(name, network, loss, any_token, size, task.role, None)

    stages = [agent("policy", supervised.policy_loss(models)), agent("anchor", supervised.anchor_loss(models))]
    for name in weights.fitted():
        reward, network, size = task.reward_models[name], models.rewards[name], config.models.reward
        seeds = fits.members + fits.held_out * (name == weights.ENCODER)
        stages.append(stage(name, network, reward.loss(network), reward.guessing, size, {}, seeds))
    return stages


def pretrain_all(job: Job, last: str, timed: Callable[[str], AbstractContextManager[None]]) -> Upstream | None:
    """Runs or reuses the supervised stages; None when `last` is one of them."""
    made: dict[str, Params] = {}
    roots = run_folder.stage_roots(job.workdir)
    rewards, songs = job.spec.task.reward_models, job.valid_songs(512)
    validation = Batch(songs.context, songs.actions, songs.index)
    for stage in stages_of(job):
        reward = rewards.get(stage.name)
        batches = job.batches(stage.seed, augment=reward is None or reward.augmented)
        root = (stage.found(roots) or stage.folder(roots[0])).parent
        with timed(stage.name):
            made[stage.name] = run_stage(stage, root, batches, validation, job.experiment.runtime, job.console)
        if stage.name == last:
            return None
    return Upstream(made.pop("policy"), made.pop("anchor"), made)


def keep_stages(job: Job, folder: Path) -> None:
    """Gives `folder`, that of a run or an ablation, the finished stages of the job."""
    if hosts.is_first():
        roots = run_folder.stage_roots(job.workdir)
        run_folder.keep_stages(folder, [found for stage in stages_of(job) if (found := stage.found(roots))])


def frozen_of(job: Job, upstream: Upstream) -> Frozen:
    """Anchor and reward models in use; the held-out seeds are not among them."""
    seeds, weights = job.experiment.pretrain.members, job.experiment.algorithm.rewards
    used = {name: p for name, p in upstream.rewards.items() if getattr(weights, name) > 0}
    anchor = {"offline": upstream.anchor, "online": upstream.policy, "none": None}[job.spec.config.anchor]
    return Frozen(anchor, {k: jax.tree.map(lambda x: x[:seeds], p) for k, p in used.items()})
