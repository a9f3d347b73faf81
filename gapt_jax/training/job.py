"""An experiment with its data opened, and the supervised stages that all its runs share.

They lie beside the run folder under ``stages/``: every run that needs the same ones reuses them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from gapt_jax import models as model_library
from gapt_jax.algorithm.state import Frozen, Spec
from gapt_jax.config import DataConfig, Experiment, to_dict
from gapt_jax.errors import UserError
from gapt_jax.models import REWARD_KINDS, kernel
from gapt_jax.runtime import hosts, native
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import read_json, read_vocabulary
from gapt_jax.runtime.mesh import MeshLayout
from gapt_jax.tasks.accompaniment.task import Accompaniment, accompaniment_of
from gapt_jax.training import pretrain, run_folder
from gapt_jax.training.stages import Stage, run_stage
from gapt_jax.types import Batch, Params
from gapt_jax.vocabulary import Vocabulary

STAGES = ("data", "policy", "anchor", *REWARD_KINDS, "gapt", "evaluation")
OF_ONE_PART = ("policy", "anchor")  # the supervised stages that play a part


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
        return run_folder.root_of(self.workdir)

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


def open_songs(data: DataConfig, folder: Path, vocabulary: Vocabulary | None = None, on_progress: Any = None) -> Any:
    """The corpus of these settings, prepared in `folder` if need be."""
    from gapt_jax.data_pipeline.loader import open_corpus

    return open_corpus(
        songs=data.songs,
        mixture=data.mixture,
        out_of_domain=data.out_of_domain,
        max_frames=data.max_frames,
        chord_coverage=data.chord_coverage,
        data_dir=folder,
        part=data.part,
        vocabulary=vocabulary,
        on_progress=on_progress,
    )


def open_job(experiment: Experiment, workdir: Path, devices: Mesh, console: Console) -> Job:
    """Opens the data; the vocabulary and fingerprint of an existing run must be those of the data."""
    from gapt_jax.data_pipeline.upstream import restriction

    if not hosts.is_first():
        hosts.wait_for_all("data")  # the first process prepares what is not there yet
    path = workdir / "vocabulary.json"
    vocabulary = read_vocabulary(path) if path.exists() else None
    with console.phases() as on_progress:
        corpus = open_songs(experiment.data, run_folder.root_of(workdir) / "data", vocabulary, on_progress)
    if hosts.is_first():
        hosts.wait_for_all("data")
    for warning in filter(None, map(restriction, corpus.datasets)):
        console.warn(warning)
    facts = workdir / "run.json"
    if facts.exists():
        known = read_json(facts, "gapt run")["data_fingerprint"]
        if known != corpus.fingerprint:
            raise UserError(
                f"{workdir} was trained on other songs (fingerprint {known}, now {corpus.fingerprint}): "
                "give data.songs the folder it was made from, or choose another --workdir"
            )
    models = model_library.build(experiment.models, corpus.vocabulary.size)
    can_help = devices.devices.flat[0].platform == "cpu" and kernel.suits(
        experiment.models.policy, experiment.models.compute_dtype
    )
    if can_help and (reason := native.load()):
        console.say(f"rollouts do without the compiled kernel and take longer: {reason}")
    layout = MeshLayout(experiment.runtime.microbatch_rows, mesh=devices)
    spec = Spec(models, experiment.algorithm, Accompaniment(corpus.vocabulary, experiment.data.part), layout)
    return Job(experiment, workdir, corpus, spec, layout, console)


def stages_of(job: Job) -> list[Stage]:
    """The supervised stages in order; kinds of reward that carry no weight are left out, but contrastive encoders
    are always needed by the evaluation."""
    config, models, vocabulary = job.experiment, job.spec.models, accompaniment_of(job.spec).vocabulary
    fits, weights = config.pretrain, config.algorithm.rewards
    data = {k: v for k, v in to_dict(config)["data"].items() if k not in ("songs", "out_of_domain", "part")}
    common = {
        "songs": job.corpus.fingerprint,
        "data": data,
        "vocabulary": vocabulary.hash,
        "compute_dtype": config.models.compute_dtype,
    }

    def stage(
        number: int, name: str, loss: Any, guessing: Any, fit_config: Any, model_config: Any, members: int | None
    ) -> Stage:
        fit = pretrain.Fit(loss, fit_config, members, job.layout, guessing)
        identity = common | {"model": dataclasses.asdict(model_config)}
        if name in OF_ONE_PART and config.data.part != "chords":  # rewards judge pairs: agents of both parts share them
            identity |= {"part": config.data.part}
        return Stage(name, fit, getattr(models, name).init, fits.seed * len(STAGES) + number, identity)

    def any_token(songs: int) -> float:
        return math.log(vocabulary.size)

    def any_pair(songs: int) -> float:
        return math.log(2)

    stages = [
        stage(0, "policy", pretrain.policy_loss(models), any_token, fits.policy, config.models.policy, None),
        stage(1, "anchor", pretrain.anchor_loss(models), any_token, fits.anchor, config.models.anchor, None),
    ]
    for number, kind in enumerate(REWARD_KINDS, start=2):
        if kind == "contrastive" or getattr(weights, kind) > 0:
            make = pretrain.contrastive_loss if kind.endswith("contrastive") else pretrain.discriminative_loss
            members = fits.members + (fits.held_out if kind == "contrastive" else 0)
            loss = make(models, kind, vocabulary.tables)
            guessing = math.log if kind.endswith("contrastive") else any_pair  # one of the songs, or yes and no
            stages.append(stage(number, kind, loss, guessing, getattr(fits, kind), config.models.reward, members))
    return stages


def pretrain_all(job: Job, last: str, timed: Callable[[str], AbstractContextManager[None]]) -> Upstream | None:
    """Runs or reuses the supervised stages; None when `last` is one of them."""
    made: dict[str, Params] = {}
    roots = run_folder.stage_roots(job.workdir)
    pairs = dataclasses.replace(job, corpus=job.corpus.for_part("chords"))  # as reward models see the songs
    for stage in stages_of(job):
        source = job if stage.name in OF_ONE_PART else pairs
        songs = source.valid_songs(512)
        validation = Batch(songs.context, songs.actions, songs.index)
        # Rhythm does not depend on the key: no transposition (docs/method.md §3.1).
        batches = source.batches(stage.seed, transpose=not stage.name.startswith("rhythm"))
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
    """Anchor and reward models in use; the held-out members are not among them."""
    members, weights = job.experiment.pretrain.members, job.experiment.algorithm.rewards
    used = {kind: p for kind, p in upstream.rewards.items() if getattr(weights, kind) > 0}
    anchor = {"offline": upstream.anchor, "online": upstream.policy, "none": None}[job.spec.config.anchor]
    return Frozen(anchor, {k: jax.tree.map(lambda x: x[:members], p) for k, p in used.items()})
