"""The whole pipeline of an experiment: data → policy (MLE) → anchor → reward models → post-training → evaluation.

Upstream stages lie beside the run folder under ``stages/`` and are shared by every run that needs the same ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gapt_jax import models as model_library
from gapt_jax.algorithm.state import Frozen, Spec
from gapt_jax.config import Experiment, config_hash, from_dict, to_dict
from gapt_jax.errors import UserError
from gapt_jax.models import REWARD_KINDS
from gapt_jax.runtime import hosts, mesh
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import read_json, read_vocabulary, source_hash, strict_json, write_atomic
from gapt_jax.runtime.mesh import MeshLayout
from gapt_jax.training import pretrain, run_folder
from gapt_jax.training.stages import Stage, run_stage
from gapt_jax.training.systems import Evaluator
from gapt_jax.training.trainer import has_checkpoint, post_train, restore_policy
from gapt_jax.types import Batch, Params
from gapt_jax.vocabulary import PAD

STAGES = ("data", "policy", "anchor", *REWARD_KINDS, "gapt", "evaluation")
NUM_SAMPLES = 8  # songs whose accompaniments are kept for the report
TABLE = (
    "note_in_chord",
    "note_in_chord_chance",
    "vendi_independent",
    "vendi_published",
    "quality_entropy",
    "unique_chords",
    "chord_changes_per_beat",
    "js_bigram",
    "silent_share",
    "invalid_share",
)


@dataclasses.dataclass(frozen=True)
class Job:
    """An experiment with its data opened and its folders known."""

    experiment: Experiment
    workdir: Path
    corpus: Any  # data_pipeline.loader.Corpus
    spec: Spec
    layout: MeshLayout  # that of `spec`
    console: Console

    @property
    def root(self) -> Path:
        return self.workdir.parent

    def batches(self, seed: int, *, transpose: bool = True) -> Any:
        """Training batches by (rows, start); of each, this host loads what its devices hold."""
        transpose = transpose and self.experiment.data.transpose
        return lambda rows, start: self.corpus.training_batches(
            batch_size=rows, seed=seed, transpose=transpose, start=start, rows=self.layout.rows_here(rows)
        )

    def valid_songs(self, count: int) -> Any:
        """Songs of the valid split of the first training set."""
        return self.corpus.evaluation_songs(self.experiment.data.mixture[0][0], "valid", count)


@dataclasses.dataclass(frozen=True)
class Upstream:
    """What the supervised stages made."""

    policy: Params
    anchor: Params
    rewards: dict[str, Params]  # stacked members by kind; of the contrastive kind the held-out ones come last


def run(
    experiment: Experiment, workdir: Path, console: Console, stage: str | None = None, init_from: Path | None = None
) -> dict[str, Any]:
    """Runs or resumes everything up to `stage` (default: the evaluation) and returns the evaluation.

    Post-training starts from the supervised policy, or from that of the run `init_from`. Raises Preempted.
    """
    if stage is not None and stage not in STAGES:
        raise UserError(f"unknown stage '{stage}': choose one of {', '.join(STAGES)}")
    set_up()
    hosts.start(console)
    workdir, experiment = workdir.resolve(), run_folder.with_absolute_paths(experiment)
    run_folder.check_same_run(experiment, workdir)
    with hosts.watching_for_hangs(experiment.runtime.hang_minutes):
        return _run(experiment, workdir, console, stage or STAGES[-1], init_from)


def _run(experiment: Experiment, workdir: Path, console: Console, last: str, init_from: Path | None) -> dict[str, Any]:
    started = time.monotonic()
    job = _open(experiment, workdir, mesh.build(experiment.runtime.mesh), console)
    _agree(job, {"--stage": last, "--init-from": str(init_from)})
    if init_from and not has_checkpoint(workdir):
        _check_source(job, init_from)
    if last in REWARD_KINDS and last not in {s.name for s in _stages(job)}:
        raise UserError(f"stage '{last}' is not part of this run: its reward has weight 0")
    if hosts.is_first():
        run_folder.write_facts(workdir, experiment, job.corpus, str(init_from.resolve()) if init_from else None)
    hosts.wait_for_all("facts")
    hosts.stop_if_told()
    run_folder.add_time(workdir, "data", time.monotonic() - started)
    if last == "data":
        return {}
    timed = functools.partial(run_folder.timed, workdir)
    upstream = _pretrain(job, last, timed)
    if upstream is None:
        return {}
    with timed("gapt"):
        state = post_train(
            job.spec,
            _frozen(job, upstream),
            _first_policy(job, upstream, init_from),
            job.batches(experiment.seed),
            _evaluator(job, upstream),
            job.valid_songs(experiment.evaluation.monitor_songs),
            experiment,
            workdir,
            console,
        )
    if last == "gapt":
        return {}
    with timed("evaluation"):
        result = _evaluate(job, upstream, (int(state.step), state.policy), _evaluation_sets(experiment))[0]
    show(result, console)
    return result


def evaluate(
    workdir: Path,
    console: Console,
    dataset: str | None = None,
    split: str | None = None,
    sampling: str | None = None,
    step: int | None = None,
) -> tuple[dict[str, Any], Path]:
    """Evaluates a run's newest checkpoint, or that of `step`: (what was measured, the file it was added to).

    Without arguments exactly the numbers of the run itself come out again. A dataset's split defaults to the run's.
    """
    job, upstream, policy = _load_run(workdir, console, step)
    sets = _evaluation_sets(job.experiment)
    if dataset:
        sets = [(dataset, split or dict(sets).get(dataset, "test"))]
    elif split:
        sets = [(name, split) for name, _ in sets]
    result, path = _evaluate(job, upstream, policy, sets, sampling, is_newest=step is None)
    show(result, console)
    return result, path


def sample(
    workdir: Path,
    console: Console,
    melody: Path | None = None,
    out: Path | None = None,
    songs: int = 4,
    seed: int = 0,
    step: int | None = None,
) -> list[Path]:
    """Writes accompaniments of held-out songs, or of the melody in a MIDI file, as MIDI."""
    from gapt_jax.runtime.midi import melody_tokens, read_melody, write_accompaniment

    notes = read_melody(melody) if melody is not None else None
    job, upstream, (_, policy) = _load_run(workdir, console, step)
    evaluator, frames = _evaluator(job, upstream), job.experiment.data.max_frames
    if melody is not None and notes is not None:
        heard = melody_tokens(notes, frames)
        tokens = np.pad(heard, (0, frames - len(heard)), constant_values=PAD)[None].repeat(songs, axis=0)
        names = [f"{melody.stem}-{n + 1}" for n in range(songs)]
        index = np.arange(songs, dtype=np.int32)
    else:
        name, split = _evaluation_sets(job.experiment)[0]
        chosen = job.corpus.evaluation_songs(name, split, songs)
        tokens, index, names = chosen.melody, chosen.index, [i.replace("/", "-") for i in chosen.ids]
    chords = evaluator.play(policy, tokens, index, sampling="masked", seed=seed)
    folder = out or job.workdir / "samples"
    paths = []
    for name, played, accompaniment in zip(names, tokens, chords, strict=True):
        paths.append(folder / f"{name}.mid")
        write_accompaniment(paths[-1], played, accompaniment, job.spec.vocabulary)
    return paths


def show(result: dict[str, Any], console: Console) -> None:
    """The terminal table: a row per system and dataset."""
    from gapt_jax.evaluation.metrics import describe

    systems = result["systems"]
    for dataset in dict.fromkeys(name for sets in systems.values() for name in sets):
        rows = [
            [system, *(f"{sets[dataset][m]['mean']:.3f}" if _known(sets[dataset], m) else "–" for m in TABLE)]
            for system, sets in systems.items()
            if dataset in sets
        ]
        songs = next(iter(systems["data"][dataset].values()))["n_songs"]
        title = f"{dataset}, {songs} songs, T = 1, {result['sampling']} sampling"
        console.table(title, ["system", *(describe(m).label for m in TABLE)], rows)


def _known(metrics: dict[str, Any], name: str) -> bool:
    return metrics.get(name, {}).get("mean") is not None


def _open(experiment: Experiment, workdir: Path, devices: Mesh, console: Console) -> Job:
    """Opens the data; the vocabulary and fingerprint of an existing run must be those of the data."""
    from data_pipeline.loader import open_corpus

    if not hosts.is_first():
        hosts.wait_for_all("data")  # the first process prepares what is not there yet
    data, path = experiment.data, workdir / "vocabulary.json"
    vocabulary = read_vocabulary(path) if path.exists() else None
    with console.phases() as on_progress:
        corpus = open_corpus(
            songs=data.songs,
            mixture=data.mixture,
            out_of_domain=data.out_of_domain,
            max_frames=data.max_frames,
            chord_coverage=data.chord_coverage,
            data_dir=workdir.parent / "data",
            vocabulary=vocabulary,
            on_progress=on_progress,
        )
    if hosts.is_first():
        hosts.wait_for_all("data")
    facts = workdir / "run.json"
    if facts.exists():
        known = read_json(facts, "gapt run")["data_fingerprint"]
        if known != corpus.fingerprint:
            raise UserError(
                f"{workdir} was trained on other songs (fingerprint {known}, now {corpus.fingerprint}): "
                "give data.songs the folder it was made from, or choose another --workdir"
            )
    models = model_library.build(experiment.models, corpus.vocabulary.size)
    layout = MeshLayout(experiment.runtime.microbatch_rows, mesh=devices)
    spec = Spec(models, experiment.algorithm, corpus.vocabulary, layout)
    return Job(experiment, workdir, corpus, spec, layout, console)


def _agree(job: Job, flags: dict[str, str]) -> None:
    """All processes must be about to do the same; compared before any of them waits for another's device."""
    hosts.agree(
        flags
        | {
            "settings": run_folder.run_hash(job.experiment),
            "runtime settings": config_hash(job.experiment.runtime),
            "source code": source_hash(),
            "jax": jax.__version__,
            "songs": job.corpus.fingerprint,
            "vocabulary": job.spec.vocabulary.hash,
            "devices": f"{jax.device_count()} in all, {jax.local_device_count()} here",
        }
    )


def _stages(job: Job) -> list[Stage]:
    """The supervised stages in order; kinds of reward that carry no weight are left out, but contrastive encoders
    are always needed by the evaluation."""
    config, models, tables = job.experiment, job.spec.models, job.spec.vocabulary.tables
    fits, weights = config.pretrain, config.algorithm.rewards
    data = {k: v for k, v in to_dict(config)["data"].items() if k not in ("songs", "out_of_domain")}
    common = {
        "songs": job.corpus.fingerprint,
        "data": data,
        "vocabulary": job.spec.vocabulary.hash,
        "compute_dtype": config.models.compute_dtype,
    }

    def stage(number: int, name: str, loss: Any, fit_config: Any, model_config: Any, members: int | None) -> Stage:
        fit = pretrain.Fit(loss, fit_config, members, job.layout)
        identity = common | {"model": dataclasses.asdict(model_config)}
        return Stage(name, fit, getattr(models, name).init, fits.seed * len(STAGES) + number, identity)

    stages = [
        stage(0, "policy", pretrain.policy_loss(models), fits.policy, config.models.policy, None),
        stage(1, "anchor", pretrain.anchor_loss(models), fits.anchor, config.models.anchor, None),
    ]
    for number, kind in enumerate(REWARD_KINDS, start=2):
        if kind == "contrastive" or getattr(weights, kind) > 0:
            make = pretrain.contrastive_loss if kind.endswith("contrastive") else pretrain.discriminative_loss
            members = fits.members + (fits.held_out if kind == "contrastive" else 0)
            loss = make(models, kind, tables)
            stages.append(stage(number, kind, loss, getattr(fits, kind), config.models.reward, members))
    return stages


def _pretrain(job: Job, last: str, timed: Callable[[str], AbstractContextManager[None]]) -> Upstream | None:
    """Runs or reuses the supervised stages; None when `last` is one of them."""
    made: dict[str, Params] = {}
    root = job.root / "stages"
    songs = job.valid_songs(512)
    validation = Batch(songs.melody, songs.chords, songs.index)
    for stage in _stages(job):
        # Rhythm does not depend on the key, and variety lies elsewhere: no transposition (papers.md a4).
        batches = job.batches(stage.seed, transpose=not stage.name.startswith("rhythm"))
        with timed(stage.name):
            made[stage.name] = run_stage(stage, root, batches, validation, job.experiment.runtime, job.console)
        if stage.name == last:
            return None
    return Upstream(made.pop("policy"), made.pop("anchor"), made)


def _frozen(job: Job, upstream: Upstream) -> Frozen:
    """Anchor and reward models in use; the held-out members are not among them."""
    members, weights = job.experiment.pretrain.members, job.experiment.algorithm.rewards
    used = {kind: p for kind, p in upstream.rewards.items() if getattr(weights, kind) > 0}
    return Frozen(upstream.anchor, {k: jax.tree.map(lambda x: x[:members], p) for k, p in used.items()})


def _check_source(job: Job, source: Path) -> None:
    """`source` must be a run of the same network and vocabulary that has a policy."""
    other = from_dict(Experiment, read_json(source / "config.json", "gapt run"))
    same = other.models.policy == job.experiment.models.policy
    if not same or read_vocabulary(source / "vocabulary.json").to_json() != job.spec.vocabulary.to_json():
        raise UserError(f"{source} has another policy network or vocabulary: its weights do not fit this experiment")
    if not has_checkpoint(source):
        raise UserError(f"{source} has no checkpoint of the policy yet: go on with 'gapt run {other.name}'")


def _first_policy(job: Job, upstream: Upstream, source: Path | None) -> Params:
    """What post-training starts from: the supervised policy, or the newest of the run `source`, its weights alone."""
    if source is None or has_checkpoint(job.workdir):
        return upstream.policy
    found = restore_policy(job.spec, upstream.policy, job.experiment.runtime, source, job.console)
    assert found is not None  # `_check_source` saw it
    return found[1]


def _evaluator(job: Job, upstream: Upstream) -> Evaluator:
    def member(number: int) -> Params:
        return jax.tree.map(lambda x: x[number], upstream.rewards["contrastive"])

    encoders = {"published": member(0)}
    if job.experiment.pretrain.held_out:
        encoders["independent"] = member(job.experiment.pretrain.members)
    return Evaluator(job.spec, encoders, job.experiment.evaluation)


def _evaluation_sets(experiment: Experiment) -> list[tuple[str, str]]:
    """Test splits of the training sets; all of the out-of-domain sets, of which nothing was trained on."""
    return [(name, "test") for name, _ in experiment.data.mixture] + [
        (name, "all") for name in experiment.data.out_of_domain
    ]


def _evaluate(
    job: Job,
    upstream: Upstream,
    checkpoint: tuple[int, Params],
    sets: list[tuple[str, str]],
    sampling: str | None = None,
    *,
    is_newest: bool = True,
) -> tuple[dict[str, Any], Path]:
    """Measures (step, policy) beside the data and the pre-trained policy: (results, the file they were added to).

    The run's own sampling rule and newest checkpoint go into ``evaluation.json``, others into files of their own.
    """
    evaluator = dataclasses.replace(_evaluator(job, upstream), before_batch=hosts.stop_if_told)
    experiment = job.experiment
    own = experiment.evaluation.sampling
    sampling, (step, policy) = sampling or own, checkpoint
    name = f"gapt_lambda={experiment.algorithm.adversarial_weight:g}"
    systems: dict[str, dict[str, Any]] = {"data": {}, "mle": {}, name: {}}
    samples: dict[str, Any] = {}
    for dataset, split in sets:
        songs = job.corpus.evaluation_songs(dataset, split, experiment.evaluation.songs)
        played = {
            "data": songs.chords,
            "mle": evaluator.play(upstream.policy, songs.melody, songs.index, sampling=sampling),
            name: evaluator.play(policy, songs.melody, songs.index, sampling=sampling),
        }
        for system, chords in played.items():
            values = evaluator.measure(songs.melody, chords, songs.chords)
            systems[system][f"{dataset}/{split}"] = {
                metric: {"mean": v, "ci95": None, "n_seeds": 1, "per_seed": [v], "n_songs": len(songs.ids)}
                for metric, v in values.items()
            }
        samples = samples or {
            "dataset": f"{dataset}/{split}",
            "ids": list(songs.ids[:NUM_SAMPLES]),
            "melody": songs.melody[:NUM_SAMPLES],
            "systems": {system: chords[:NUM_SAMPLES] for system, chords in played.items()},
        }
    suffix = ("" if sampling == own else f"-{sampling}") + ("" if is_newest else f"-step{step}")
    facts = read_json(job.workdir / "run.json", "gapt run")
    result = {
        "schema": 1,
        "experiment": experiment.name,
        "seed": experiment.seed,
        "step": step,
        "adversarial_weight": experiment.algorithm.adversarial_weight,
        "sampling": sampling,
        **{key: facts[key] for key in ("config_hash", "data_fingerprint", "git_revision")},
        "systems": systems,
    }
    path = job.workdir / f"evaluation{suffix}.json"
    if hosts.is_first():
        run_folder.add_results(path, result)
        if not suffix and sets == _evaluation_sets(experiment):
            write_atomic(job.workdir / "samples.json", strict_json(samples))
    return result, path


def _load_run(workdir: Path, console: Console, step: int | None) -> tuple[Job, Upstream, tuple[int, Params]]:
    """A run as its folder describes it: data, finished upstream stages, (step, policy) of the newest checkpoint or of
    the one asked for."""
    workdir = workdir.resolve()
    set_up()
    experiment = from_dict(Experiment, read_json(workdir / "config.json", "gapt run"))
    job = _open(experiment, workdir, mesh.build_any(experiment.runtime.mesh), console)
    unfinished = [s.name for s in _stages(job) if not (s.folder(job.root / "stages") / "done.json").exists()]
    if unfinished:
        raise UserError(f"{workdir} has not finished {unfinished[0]} yet: go on with 'gapt run {experiment.name}'")
    upstream = _pretrain(job, STAGES[-1], lambda _: contextlib.nullcontext())
    assert upstream is not None
    found = restore_policy(job.spec, upstream.policy, experiment.runtime, workdir, console, step)
    if found is None:
        raise UserError(f"{workdir} has no checkpoint of the policy yet: go on with 'gapt run {experiment.name}'")
    return job, upstream, found
