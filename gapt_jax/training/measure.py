"""Evaluates runs on held-out songs and writes accompaniments as MIDI."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gapt_jax.config import Experiment, arm_name, from_dict
from gapt_jax.errors import UserError
from gapt_jax.evaluation import adaptation
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.evaluation.scorecard import Scorecard, System, rows_of, score_systems
from gapt_jax.runtime import hosts, mesh
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import read_json, strict_json, write_atomic
from gapt_jax.tasks.accompaniment.task import accompaniment_of
from gapt_jax.training import run_folder
from gapt_jax.training.job import STAGES, Job, Upstream, frozen_of, open_job, pretrain_all, stages_of
from gapt_jax.training.saved import missing, newest_policy, open_without_songs
from gapt_jax.types import Params

_MOST_FRAMES = 1 << 20  # of a melody; `midi` reads no longer ones
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


def evaluate(
    workdir: Path,
    console: Console,
    dataset: str | None = None,
    split: str | None = None,
    sampling: str | None = None,
    step: int | None = None,
    perturb: str | None = None,
) -> tuple[dict[str, Any], Path]:
    """Evaluates a run's newest checkpoint, or that of `step`: (what was measured, the file it was added to).

    Without arguments exactly the numbers of the run itself come out again. A dataset's split defaults to the run's.
    `perturb` is another shift of the melody for the adaptation metrics, such as "+6@16".
    """
    job, upstream, policy = _load_run(workdir, console, step)
    sets = evaluation_sets(job.experiment)
    if dataset:
        sets = [(dataset, split or dict(sets).get(dataset, "test"))]
    elif split:
        sets = [(name, split) for name, _ in sets]
    result, path = measure(job, upstream, policy, sets, sampling, perturb=perturb, is_newest=step is None)
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
    """Writes accompaniments of held-out songs, or of the whole melody in a MIDI file from its first bar with a note
    on, as MIDI."""
    folder = out or workdir.resolve() / "samples"
    if melody is not None:
        return _accompany(workdir, console, melody, folder, songs, seed, step)
    from gapt_jax.runtime.midi import write_accompaniment

    job = _with_songs(workdir, console)
    evaluator, policy = _player_of(job, songs, step)
    name, split = evaluation_sets(job.experiment)[0]
    chosen = job.corpus.evaluation_songs(name, split, songs)
    chords = evaluator.play(policy, chosen.context, chosen.index, sampling="masked", seed=seed)
    paths = [folder / f"{song.replace('/', '-')}.mid" for song in chosen.ids]
    for path, played, accompaniment in zip(paths, chosen.context, chords, strict=True):
        write_accompaniment(path, played, accompaniment, accompaniment_of(job.spec).vocabulary)
    return paths


def _accompany(
    workdir: Path, console: Console, melody: Path, folder: Path, songs: int, seed: int, step: int | None
) -> list[Path]:
    from gapt_jax.runtime.midi import melody_tokens, read_tune, write_accompaniment

    tune = read_tune(melody)
    console.say(f"the melody is that of {tune.source}")
    if tune.skipped:
        console.say(f"it begins in bar {tune.skipped + 1}: left out what stands before")
    job, _ = open_without_songs(workdir, console)
    evaluator, policy = _player_of(job, songs, step)
    tokens = melody_tokens(tune.notes, _MOST_FRAMES)
    with console.progress("accompanying", len(tokens)) as progress:
        window = job.experiment.data.max_frames
        chords = evaluator.accompany(policy, tokens, songs, window, seed=seed, report=progress.update)
        progress.update(len(tokens))
    paths, vocabulary = (
        [folder / f"{melody.stem}-{number + 1}.mid" for number in range(songs)],
        accompaniment_of(job.spec).vocabulary,
    )
    for path, accompaniment in zip(paths, chords, strict=True):
        write_accompaniment(path, tokens, accompaniment, vocabulary, tempos=tune.tempos, meters=tune.meters)
    return paths


def _player_of(job: Job, songs: int, step: int | None) -> tuple[Evaluator, Params]:
    """What plays so many songs at a time, and the policy."""
    if job.experiment.data.part != "chords":
        raise UserError(f"{job.workdir} is a melody agent: sample the run of a chord policy")
    config = job.experiment.evaluation
    config = dataclasses.replace(config, batch_size=min(config.batch_size, songs))
    return Evaluator(job.spec, {}, config), newest_policy(job, step)[1]


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


def evaluator_of(job: Job, upstream: Upstream) -> Evaluator:
    def member(number: int) -> Params:
        return jax.tree.map(lambda x: x[number], upstream.rewards["contrastive"])

    encoders = {"published": member(0)}
    if job.experiment.pretrain.held_out:
        encoders["independent"] = member(job.experiment.pretrain.members)
    paying = frozen_of(job, upstream).rewards
    return Evaluator(job.spec, encoders, job.experiment.evaluation, paying, upstream.policy)


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
    return _score(job, upstream, policies, sets or evaluation_sets(job.experiment), sampling, perturb, {})[0]


def measure(
    job: Job,
    upstream: Upstream,
    checkpoint: tuple[int, Params],
    sets: list[tuple[str, str]],
    sampling: str | None = None,
    *,
    perturb: str | None = None,
    is_newest: bool = True,
    known: Mapping[str, System] | None = None,
) -> tuple[dict[str, Any], Path]:
    """Measures (step, policy) beside the data and the pre-trained policy: (results, the file they were added to).

    `known` is what `baselines` has measured with the same arguments; without it that is done here. The run's own
    sampling rule, shift of the melody and newest checkpoint go into ``evaluation.json``, with the songs of all its sets
    in ``songs.npz``, and others into files of their own.
    """
    experiment = job.experiment
    own = experiment.evaluation.sampling
    sampling, (step, policy) = sampling or own, checkpoint
    policies = {"data": None, "mle": upstream.policy, arm_name(experiment): policy}
    systems, songs = _score(job, upstream, policies, sets, sampling, perturb, known or {})
    usual = adaptation.default_shift(experiment.data.max_frames)
    shift = _shift(job, perturb)
    suffix = ("" if sampling == own else f"-{sampling}") + ("" if is_newest else f"-step{step}")
    suffix += "" if shift == usual else f"-perturb{shift}"
    facts = read_json(job.workdir / "run.json", "gapt run")
    result = {
        "schema": 1,
        "experiment": experiment.name,
        "arm": arm_name(experiment),
        "seed": experiment.seed,
        "step": step,
        "adversarial_weight": experiment.algorithm.adversarial_weight,
        "sampling": sampling,
        **{key: facts[key] for key in ("config_hash", "data_fingerprint", "git_revision")},
        "systems": {
            system: {name: _entries(card, len(songs[name].ids)) for name, card in scored.sets.items()}
            for system, scored in systems.items()
        },
        "adaptation": {
            system: {name: _curves(card.adaptation) for name, card in scored.sets.items() if card.adaptation}
            for system, scored in systems.items()
            if scored.decode_step
        },
        "decode_step": {system: scored.decode_step for system, scored in systems.items() if scored.decode_step},
    }
    path = job.workdir / f"evaluation{suffix}.json"
    if hosts.is_first():
        run_folder.add_results(path, result)
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
    known: Mapping[str, System],
) -> tuple[dict[str, System], dict[str, Any]]:
    """(systems, songs by set)."""
    evaluator = dataclasses.replace(evaluator_of(job, upstream), before_batch=hosts.stop_if_told)
    config = job.experiment.evaluation
    songs = {f"{name}/{split}": job.corpus.evaluation_songs(name, split, config.songs) for name, split in sets}
    shift = _shift(job, perturb)
    return score_systems(evaluator, songs, policies, sampling or config.sampling, shift, known), songs


def _shift(job: Job, perturb: str | None) -> adaptation.Shift:
    frames = job.experiment.data.max_frames
    return adaptation.parse_shift(perturb, frames) if perturb else adaptation.default_shift(frames)


def _entries(card: Scorecard, songs: int) -> dict[str, Any]:
    return {
        metric: {"mean": v, "ci95": None, "n_seeds": 1, "per_seed": [v], "n_songs": songs}
        for metric, v in card.metrics.items()
    }


def _curves(adapted: adaptation.Adaptation) -> dict[str, Any]:
    return {
        "beats": list(range(len(adapted.unperturbed))),
        "unperturbed": adapted.unperturbed,
        "perturbed": adapted.perturbed,
        "shift_beat": adapted.shift.beat,
        "semitones": adapted.shift.semitones,
    }


def _samples(systems: Mapping[str, System], songs: Mapping[str, Any]) -> dict[str, Any]:
    """The first songs of the first set, for the report."""
    name, chosen = next(iter(songs.items()))
    return {
        "dataset": name,
        "ids": list(chosen.ids[:NUM_SAMPLES]),
        "melody": chosen.context[:NUM_SAMPLES],
        "systems": {system: scored.sets[name].chords[:NUM_SAMPLES] for system, scored in systems.items()},
    }


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def _with_songs(workdir: Path, console: Console) -> Job:
    """A run as its folder describes it, with its data."""
    workdir = workdir.resolve()
    set_up()
    experiment = from_dict(Experiment, read_json(workdir / "config.json", "gapt run"))
    return open_job(experiment, workdir, mesh.build_any(experiment.runtime.mesh), console)


def _load_run(workdir: Path, console: Console, step: int | None) -> tuple[Job, Upstream, tuple[int, Params]]:
    """A run as its folder describes it: data, finished upstream stages, (step, policy) of the newest checkpoint or of
    the one asked for."""
    job = _with_songs(workdir, console)
    roots = run_folder.stage_roots(job.workdir)
    unfinished = [stage for stage in stages_of(job) if stage.found(roots) is None]
    if unfinished:
        raise UserError(missing(job, unfinished[0].name, unfinished[0].folder(roots[0]).name))
    upstream = pretrain_all(job, STAGES[-1], lambda _: contextlib.nullcontext())
    assert upstream is not None
    return job, upstream, newest_policy(job, step)
