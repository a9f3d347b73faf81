"""Writes accompaniments of a run's policy as MIDI."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gapt_jax.algorithm.rollout import WHOLE, Truncation
from gapt_jax.errors import UserError
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.midi import melody_tokens, read_tune, write_accompaniment
from gapt_jax.tasks.accompaniment.task import accompaniment_of
from gapt_jax.training.job import Job
from gapt_jax.training.measure import evaluation_sets, with_songs
from gapt_jax.training.saved import newest_policy, open_without_songs
from gapt_jax.types import Params

_MOST_FRAMES = 1 << 20  # of a melody; `midi` reads no longer ones


def sample(
    workdir: Path,
    console: Console,
    melody: Path | None = None,
    out: Path | None = None,
    songs: int = 4,
    seed: int = 0,
    step: int | None = None,
    shares: tuple[float, float] = WHOLE,
) -> list[Path]:
    """Writes accompaniments of held-out songs, or of the whole melody in a MIDI file from its first bar with a note
    on, as MIDI. `shares` are those of a `Truncation`."""
    folder, truncation = out or workdir.resolve() / "samples", Truncation(*shares)
    if melody is not None:
        return _accompany(workdir, console, melody, folder, songs, seed, step, truncation)
    job = with_songs(workdir, console)
    evaluator, policy = _player_of(job, songs, step, truncation)
    name, split = evaluation_sets(job.experiment)[0]
    chosen = job.corpus.evaluation_songs(name, split, songs)
    chords = evaluator.play(policy, chosen.context, chosen.index, sampling="masked", seed=seed)
    paths = [folder / f"{song.replace('/', '-')}.mid" for song in chosen.ids]
    for path, played, accompaniment in zip(paths, chosen.context, chords, strict=True):
        write_accompaniment(path, played, accompaniment, accompaniment_of(job.spec).vocabulary)
    return paths


def _accompany(
    workdir: Path,
    console: Console,
    melody: Path,
    folder: Path,
    songs: int,
    seed: int,
    step: int | None,
    truncation: Truncation,
) -> list[Path]:
    tune = read_tune(melody)
    console.say(f"the melody is that of {tune.source}")
    if tune.skipped:
        console.say(f"it begins in bar {tune.skipped + 1}: left out what stands before")
    job, _ = open_without_songs(workdir, console)
    evaluator, policy = _player_of(job, songs, step, truncation)
    tokens = melody_tokens(tune.notes, _MOST_FRAMES)
    with console.progress("accompanying", len(tokens)) as progress:
        window = job.experiment.data.max_frames
        chords = evaluator.play_on(policy, tokens, songs, window, seed=seed, report=progress.update)
        progress.update(len(tokens))
    paths, vocabulary = (
        [folder / f"{melody.stem}-{number + 1}.mid" for number in range(songs)],
        accompaniment_of(job.spec).vocabulary,
    )
    for path, accompaniment in zip(paths, chords, strict=True):
        write_accompaniment(path, tokens, accompaniment, vocabulary, tempos=tune.tempos, meters=tune.meters)
    return paths


def _player_of(job: Job, songs: int, step: int | None, truncation: Truncation) -> tuple[Evaluator, Params]:
    """What plays so many songs at a time, and the policy."""
    if accompaniment_of(job.spec).part != "chords":
        raise UserError(f"{job.workdir} is a melody agent: sample the run of a chord policy")
    config = job.experiment.evaluation
    config = dataclasses.replace(config, batch_size=min(config.batch_size, songs))
    return Evaluator(job.spec, {}, config, truncation=truncation), newest_policy(job, step)[1]
