"""The whole pipeline of an experiment: data → policy (MLE) → anchor → reward models → post-training → evaluation."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

from gapt_jax.config import Experiment, from_dict
from gapt_jax.errors import UserError
from gapt_jax.runtime import hosts, mesh
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import read_json
from gapt_jax.training import run_folder, turns
from gapt_jax.training.job import (
    Job,
    Upstream,
    agree,
    frozen_of,
    keep_stages,
    open_job,
    pretrain_all,
    stage_names,
)
from gapt_jax.training.measure import evaluation_sets, evaluator_of, measure, show
from gapt_jax.training.post_training import has_checkpoint, post_train, restore_policy
from gapt_jax.types import Params


def run(
    experiment: Experiment, workdir: Path, console: Console, stage: str | None = None, init_from: Path | None = None
) -> dict[str, Any]:
    """Runs or resumes everything up to `stage` (default: the evaluation) and returns the evaluation.

    Post-training starts from the supervised policy, or from that of the run `init_from`. Raises Preempted.
    """
    stages = stage_names(experiment)
    if stage is not None and stage not in stages:
        raise UserError(f"unknown stage '{stage}': choose one of {', '.join(stages)}")
    rewards = experiment.algorithm.rewards
    if stage in rewards.MODELS and stage not in rewards.fitted():
        raise UserError(f"stage '{stage}' is not part of this run: its reward has weight 0")
    set_up()
    hosts.start(console)
    workdir, experiment = workdir.resolve(), run_folder.with_absolute_paths(experiment)
    run_folder.check_same_run(experiment, workdir)
    with (
        hosts.watching_for_hangs(experiment.runtime.hang_minutes),
        turns.refused_if_taken(workdir, console),
    ):
        return _run(experiment, workdir, console, stage or stages[-1], init_from)


def _run(experiment: Experiment, workdir: Path, console: Console, last: str, init_from: Path | None) -> dict[str, Any]:
    started = time.monotonic()
    job = open_job(experiment, workdir, mesh.build(experiment.runtime.mesh), console)
    agree(job, {"--stage": last, "--init-from": str(init_from)})
    if init_from and not has_checkpoint(workdir):
        _check_source(job, init_from)
    if hosts.is_first():
        source = str(init_from.resolve()) if init_from else None
        run_folder.write_facts(workdir, experiment, job.spec.task, job.facts, source)
    hosts.wait_for_all("facts")
    hosts.stop_if_told()
    run_folder.add_time(workdir, "data", time.monotonic() - started)
    if last == "data":
        return {}
    timed = functools.partial(run_folder.timed, workdir)
    with hosts.saving_on_interrupt():
        upstream = pretrain_all(job, last, timed)
    if upstream is None:
        return {}
    keep_stages(job, workdir)
    with timed("gapt"), hosts.saving_on_interrupt():
        state = post_train(
            job.spec,
            frozen_of(job, upstream),
            _first_policy(job, upstream, init_from),
            job.batches(experiment.seed),
            evaluator_of(job, upstream),
            job.valid_songs(experiment.evaluation.monitor_songs),
            experiment,
            workdir,
            console,
        )
    if last == "gapt":
        return {}
    with timed("evaluation"):
        result = measure(job, upstream, (int(state.step), state.policy), evaluation_sets(experiment))[0]
    show(experiment.domain(), result, console)
    return result


def _check_source(job: Job, source: Path) -> None:
    """`source` must be a run of the same network, task and role that has a policy."""
    other, task = from_dict(Experiment, read_json(source / "config.json", "gapt run")), job.spec.task
    same = other.models.policy == job.experiment.models.policy and other.task == job.experiment.task
    if same:
        its = other.domain().load(other.data, source)
        same = (its.facts(), its.role) == (task.facts(), task.role)
    if not same:
        raise UserError(f"{source} has another policy network, role or tokens: its weights do not fit this experiment")
    if not has_checkpoint(source):
        raise UserError(f"{source} has no checkpoint of the policy yet: go on with 'gapt run {other.name}'")


def _first_policy(job: Job, upstream: Upstream, source: Path | None) -> Params:
    """What post-training starts from: the supervised policy, or the newest of the run `source`, its weights alone."""
    if source is None or has_checkpoint(job.workdir):
        return upstream.policy
    found = restore_policy(job.spec, upstream.policy, job.experiment.runtime, source, job.console)
    assert found is not None  # `_check_source` saw it
    return found[1]
