"""Evaluates runs on held-out songs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gapt_jax.algorithm.rollout import WHOLE, Truncation
from gapt_jax.config import EvaluationConfig, Experiment, arm_name, from_dict
from gapt_jax.errors import UserError
from gapt_jax.evaluation.evaluator import INDEPENDENT, Evaluator
from gapt_jax.evaluation.metrics import describe
from gapt_jax.evaluation.results import rule_of
from gapt_jax.evaluation.scorecard import System, rows_of, score_systems
from gapt_jax.runtime import hosts, mesh
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import read_json, strict_json, write_atomic
from gapt_jax.task import Domain
from gapt_jax.training import run_folder
from gapt_jax.training.job import Job, Upstream, frozen_of, open_job, pretrain_all, stage_names, stages_of
from gapt_jax.training.saved import missing, newest_policy
from gapt_jax.types import Params

NUM_SAMPLES = 8  # songs whose actions are kept for the report


def evaluate(
    workdir: Path,
    console: Console,
    dataset: str | None = None,
    split: str | None = None,
    sampling: str | None = None,
    step: int | None = None,
    perturb: str | None = None,
    top_k: float | None = None,
    top_p: float | None = None,
) -> tuple[dict[str, Any], Path]:
    """Evaluates a run's newest checkpoint, or that of `step`: (what was measured, the file it was added to).

    Without arguments exactly the numbers of the run itself come out again. A dataset's split defaults to the run's.
    `perturb` is another change of what is heard (`Domain.change`); `top_k` and `top_p` are those of a `Truncation`.
    """
    job, upstream, policy = load_run(workdir, console, step)
    sets = evaluation_sets(job.experiment)
    if dataset:
        sets = [(dataset, split or dict(sets).get(dataset, "test"))]
    elif split:
        sets = [(name, split) for name, _ in sets]
    own = truncation_of(job.experiment.evaluation)
    truncation = Truncation(top_k or own.top_k, top_p or own.top_p)
    result, path = measure(
        job, upstream, policy, sets, sampling, perturb=perturb, is_newest=step is None, truncation=truncation
    )
    show(job.experiment.domain(), result, console)
    return result, path


def show(domain: Domain, result: dict[str, Any], console: Console) -> None:
    """The terminal table: a row per system and dataset."""
    systems = result["systems"]
    for dataset in dict.fromkeys(name for sets in systems.values() for name in sets):
        rows = [
            [system, *(f"{sets[dataset][m]['mean']:.3f}" if _known(sets[dataset], m) else "–" for m in domain.table)]
            for system, sets in systems.items()
            if dataset in sets
        ]
        songs = next(iter(systems["data"][dataset].values()))["n_songs"]
        title = f"{dataset}, {songs} {domain.examples}, T = 1, {rule_of(result)} sampling"
        console.table(title, ["system", *(describe(domain.metrics, m).label for m in domain.table)], rows)


def _known(metrics: dict[str, Any], name: str) -> bool:
    return metrics.get(name, {}).get("mean") is not None


def truncation_of(config: EvaluationConfig) -> Truncation:
    """That of a run's own results."""
    return Truncation(config.top_k, config.top_p)


def evaluator_of(job: Job, upstream: Upstream) -> Evaluator:
    def member(number: int) -> Params:
        return jax.tree.map(lambda x: x[number], upstream.rewards[job.experiment.algorithm.rewards.ENCODER])

    encoders = {"published": member(0)}
    if job.experiment.pretrain.held_out:
        encoders[INDEPENDENT] = member(job.experiment.pretrain.members)
    paying = frozen_of(job, upstream).rewards
    config = job.experiment.evaluation
    return Evaluator(job.spec, encoders, config, paying, upstream.policy, reward_models=upstream.rewards)


def evaluation_sets(experiment: Experiment) -> list[tuple[str, str]]:
    """Test splits of the training sets; all of the out-of-domain sets, of which nothing was trained on."""
    return [(name, "test") for name, _ in experiment.data.mixture] + [
        (name, "all") for name in experiment.data.out_of_domain
    ]


def baselines(
    job: Job,
    upstream: Upstream,
    sets: list[tuple[str, str]] | None = None,
    sampling: str | None = None,
    perturb: str | None = None,
) -> dict[str, System]:
    """Data and the supervised policy: the same for all runs of one pre-training that agree in `evaluation` and in the
    kinds of reward they use. `measure` takes them, so that many runs need them only once."""
    policies = {"data": None, "mle": upstream.policy}
    sets = sets or evaluation_sets(job.experiment)
    own = truncation_of(job.experiment.evaluation)
    return _score(job, upstream, policies, sets, sampling, perturb, own, {})[0]


def measure(
    job: Job,
    upstream: Upstream,
    checkpoint: tuple[int, Params],
    sets: list[tuple[str, str]],
    sampling: str | None = None,
    *,
    perturb: str | None = None,
    is_newest: bool = True,
    truncation: Truncation | None = None,
    known: Mapping[str, System] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measures (step, policy) beside the data and the pre-trained policy: (results, the file they were added to).

    `known` is what `baselines` has measured with the same arguments; without it that is done here. The run's own
    sampling rule and truncation, the usual change of what is heard and the newest checkpoint go into
    ``evaluation.json``, with the songs of all its sets in ``songs.npz``, and others into files of their own.
    """
    experiment = job.experiment
    own, usual = experiment.evaluation.sampling, truncation_of(experiment.evaluation)
    sampling, truncation, (step, policy) = sampling or own, truncation or usual, checkpoint
    policies = {"data": None, "mle": upstream.policy, arm_name(experiment): policy}
    systems, songs = _score(job, upstream, policies, sets, sampling, perturb, truncation, known or {})
    suffix = "" if sampling == own else f"-{sampling}"
    suffix += "" if truncation == usual else f"-top_k{truncation.top_k:g}-top_p{truncation.top_p:g}"
    suffix += "" if is_newest else f"-step{step}"
    suffix += experiment.domain().change(perturb, experiment.data.max_frames).suffix
    extras = experiment.domain().extras
    result = {
        **origin(job, step, sampling),
        **({} if truncation == WHOLE else {"truncation": _truncated(truncation, job.spec.task.vocab_size)}),
        "arm": arm_name(experiment),
        "systems": {
            system: {name: entries(card.metrics, len(songs[name].ids)) for name, card in scored.sets.items()}
            for system, scored in systems.items()
        },
        "reward_models": _reward_models(systems["data"]),
        "unseen": {
            system: {
                name: entries(card.unseen.metrics, card.unseen.songs)
                for name, card in scored.sets.items()
                if card.unseen
            }
            for system, scored in systems.items()
        },
        **{extra: _extras(systems, extra) for extra in extras},
        "decode_step": {system: scored.decode_step for system, scored in systems.items() if scored.decode_step},
    }
    path = job.workdir / f"evaluation{suffix}.json"
    if hosts.is_first():
        run_folder.add_results(path, result, ("systems", "reward_models", "unseen", *extras))
        if not suffix and sets == evaluation_sets(experiment):
            write_atomic(job.workdir / "samples.json", strict_json(_samples(systems, songs)))
            write_atomic(job.workdir / "songs.npz", _npz(rows_of(systems)))
    return result, path


def _score(
    job: Job,
    upstream: Upstream,
    policies: Mapping[str, Params | None],
    sets: list[tuple[str, str]],
    sampling: str | None,
    perturb: str | None,
    truncation: Truncation,
    known: Mapping[str, System],
) -> tuple[dict[str, System], dict[str, Any]]:
    """(systems, songs by set)."""
    config = job.experiment.evaluation
    evaluator = dataclasses.replace(evaluator_of(job, upstream), before_batch=hosts.stop_if_told, truncation=truncation)
    songs = {f"{name}/{split}": job.corpus.evaluation_songs(name, split, config.songs) for name, split in sets}
    domain = job.experiment.domain()
    change = domain.change(perturb, job.experiment.data.max_frames)
    return score_systems(evaluator, domain, songs, policies, sampling or config.sampling, change, known), songs


def _truncated(truncation: Truncation, size: int) -> dict[str, Any]:
    return {"top_k": truncation.top_k, "tokens": truncation.tokens(size), "top_p": truncation.top_p}


def entries(metrics: Mapping[str, float], songs: int) -> dict[str, Any]:
    """The metrics of one seed as files of results hold them."""
    return {
        metric: {"mean": v, "ci95": None, "n_seeds": 1, "per_seed": [v], "n_songs": songs}
        for metric, v in metrics.items()
    }


def origin(job: Job, step: int, sampling: str) -> dict[str, Any]:
    """What a file of results says of the policy that was measured."""
    experiment, facts = job.experiment, read_json(job.workdir / "run.json", "gapt run")
    return {
        "schema": 1,
        "experiment": experiment.name,
        "seed": experiment.seed,
        "step": step,
        "adversarial_weight": experiment.algorithm.adversarial_weight,
        "sampling": sampling,
        **{key: facts[key] for key in ("config_hash", "data_fingerprint", "git_revision")},
    }


def _extras(systems: Mapping[str, System], extra: str) -> dict[str, Any]:
    return {
        system: {name: card.extras[extra] for name, card in scored.sets.items() if extra in card.extras}
        for system, scored in systems.items()
        if scored.decode_step  # an agent, which hears something
    }


def _reward_models(data: System) -> dict[str, Any]:
    """What the sets of data say of each reward model, by its name and theirs."""
    names = dict.fromkeys(model for card in data.sets.values() for model in card.reward_models)
    return {
        model: {name: card.reward_models[model] for name, card in data.sets.items() if model in card.reward_models}
        for model in names
    }


def _samples(systems: Mapping[str, System], songs: Mapping[str, Any]) -> dict[str, Any]:
    """The first songs of the first set, for the report."""
    name, chosen = next(iter(songs.items()))
    return {
        "dataset": name,
        "ids": list(chosen.ids[:NUM_SAMPLES]),
        "context": chosen.context[:NUM_SAMPLES],
        "systems": {system: scored.sets[name].actions[:NUM_SAMPLES] for system, scored in systems.items()},
    }


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def with_songs(workdir: Path, console: Console) -> Job:
    """A run as its folder describes it, with its data."""
    workdir = workdir.resolve()
    set_up()
    experiment = from_dict(Experiment, read_json(workdir / "config.json", "gapt run"))
    return open_job(experiment, workdir, mesh.build_any(experiment.runtime.mesh), console)


def load_run(workdir: Path, console: Console, step: int | None) -> tuple[Job, Upstream, tuple[int, Params]]:
    """A run as its folder describes it: data, finished upstream stages, (step, policy) of the newest checkpoint or of
    the one asked for."""
    job = with_songs(workdir, console)
    roots = run_folder.stage_roots(job.workdir)
    unfinished = [stage for stage in stages_of(job) if stage.found(roots) is None]
    if unfinished:
        raise UserError(missing(job, unfinished[0].name, unfinished[0].folder(roots[0]).name))
    upstream = pretrain_all(job, stage_names(job.experiment)[-1], lambda _: contextlib.nullcontext())
    assert upstream is not None
    return job, upstream, newest_policy(job, step)
