"""The host loop of post-training: start or resume, iterate, log, evaluate, save."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from gapt_jax.algorithm import learner
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec, init_state
from gapt_jax.config import Experiment
from gapt_jax.runtime.checkpoint import checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.metrics import MetricLog
from gapt_jax.training.systems import Evaluator
from gapt_jax.training.watch import Watch
from gapt_jax.types import Params

STAGE = "gapt"
SHOWN = (
    "reward/total",
    "reward/contrastive",
    "reward/discriminative",
    "reward/adversarial",
    "kl",
    "entropy",
    "discriminator/accuracy",
    "valid/note_in_chord",
    "valid/vendi_independent",
)


def post_train(
    spec: Spec,
    frozen: Frozen,
    policy: Params,
    batches: Callable[[int, int], Any],
    evaluator: Evaluator,
    monitor_songs: Any,
    experiment: Experiment,
    folder: Path,
    console: Console,
) -> LearnerState:
    """The learner's state after all iterations, from the last checkpoint in `folder` on if there is one.

    `batches(rows, start)` gives training batches from batch number `start`: the data position is the step.
    """
    steps, runtime, every = spec.config.steps, experiment.runtime, experiment.evaluation.every
    state = init_state(spec, policy, experiment.seed, experiment.data.max_frames)
    with checkpoints(folder / "checkpoints", keep=runtime.keep_checkpoints) as saved:
        start = saved.latest()
        if start is not None:
            state = saved.restore(state)
        if start and start < steps:
            console.say(f"{STAGE}: goes on from step {start} of {steps}")
        log = MetricLog(folder, resume_step=start)
        with contextlib.closing(log), console.progress(STAGE, steps, start or 0) as progress:
            streak = int(state.nonfinite_steps)
            watch = Watch(STAGE, log, progress, SHOWN, runtime.max_nonfinite_steps, streak)
            if start is None:
                log.write(STAGE, 0, monitor(evaluator, state, monitor_songs, experiment))
            for step, batch in zip(
                range((start or 0) + 1, steps + 1), batches(spec.config.batch_size, start or 0), strict=False
            ):
                state, measured = learner.iteration(spec, state, frozen, jax.device_put(batch))
                metrics: dict[str, Any] = dict(measured)
                if step % every == 0 or step == steps:
                    metrics |= monitor(evaluator, state, monitor_songs, experiment)
                watch.push(step, metrics)
                if step % runtime.checkpoint_every == 0 or step == steps:
                    watch.flush()  # a step that stops the run is not saved
                    saved.save(step, state)
            watch.finish(start or 0, steps)
    return state


def monitor(evaluator: Evaluator, state: LearnerState, songs: Any, experiment: Experiment) -> dict[str, float]:
    """The metrics of the current policy on songs of the valid split, as ``valid/<metric>``."""
    chords = evaluator.play(state.policy, songs.melody, songs.index, sampling=experiment.evaluation.sampling)
    return {f"valid/{name}": value for name, value in evaluator.measure(songs.melody, chords, songs.chords).items()}


def restore_policy(spec: Spec, policy: Params, experiment: Experiment, folder: Path) -> tuple[int, Params] | None:
    """(step, policy) of the newest checkpoint of a run, None where there is none; `policy` gives the shapes."""
    with checkpoints(folder / "checkpoints", keep=experiment.runtime.keep_checkpoints) as saved:
        step = saved.latest()
        if step is None:
            return None
        return step, saved.restore(init_state(spec, policy, experiment.seed, experiment.data.max_frames)).policy
