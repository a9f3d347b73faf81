"""Post-training of one run: its state, what is measured of it on the way, its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import models
from gapt_jax.algorithm import learner
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec, init_state
from gapt_jax.config import Experiment, RuntimeConfig, to_dict
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.runtime import cost, hosts
from gapt_jax.runtime.account import Account, show
from gapt_jax.runtime.checkpoint import Checkpoints, checkpoints, finished_steps
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.health import DATA_PROXY, AlarmedLog, Health
from gapt_jax.runtime.profile import Profile
from gapt_jax.training.loop import Loop, Schedule
from gapt_jax.training.run_folder import without_later
from gapt_jax.training.watch import Watch
from gapt_jax.types import Batch, Params

STAGE, TITLE = "gapt", "post-training"
SCORE = "valid/held_out_coherence"  # by which the best checkpoint is chosen


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

    `batches(rows, start)` gives training batches from batch number `start`: the data position is the step. Raises,
    after a save, Preempted when any host is told to stop and TrainingStopped when an alarm is configured to.
    """
    runtime, rows = experiment.runtime, spec.config.batch_size
    account = Account(folder, spec.layout.devices)
    write_account = account_writer(account, experiment, spec, frozen)
    with account.listening(), checkpoints(folder / "checkpoints", runtime, console) as saved:
        with account.of("restore"):
            start, state = _restored_or_new(spec, saved, policy, experiment)
        log = AlarmedLog(folder, STAGE, start, Health(experiment), console, is_silent=not hosts.is_first())
        streak = int(state.nonfinite_steps)
        watch = Watch(STAGE, log, saved, checkpoint_facts(spec), rows, runtime.max_nonfinite_steps, streak)
        with contextlib.closing(watch):
            if start is None:
                with account.of("evaluation"):
                    watch.write(0, first_monitor(evaluator, state, monitor_songs, experiment))
            loop = Loop[LearnerState](
                name=STAGE,
                title=TITLE,
                schedule=schedule(experiment),
                runs=[watch],
                advance=lambda state, batch, call: learner.iteration(spec, state, frozen, batch, call),
                evaluate=lambda state: monitor(evaluator, state, monitor_songs, experiment),
                account=account,
                profile=Profile(folder, runtime.profile_steps, console),
                on_saved=lambda step, state: write_account(step, state.gate_openings),
            )
            placed = (spec.layout.place(batch, rows) for batch in batches(rows, start or 0))
            state = loop.run(state, start or 0, placed, console)
    watch.raise_if_stopped()
    if hosts.is_first() and (start or 0) < spec.config.steps:
        show(write_account(spec.config.steps, state.gate_openings), console)
    return state


def schedule(experiment: Experiment) -> Schedule:
    steps, every, saves = experiment.algorithm.steps, experiment.evaluation.every, experiment.runtime.checkpoint_every
    return Schedule(
        steps,
        is_evaluated=lambda step: step % every == 0 or step == steps,
        is_saved=lambda step: step % saves == 0 or step == steps,
        shown=experiment.domain().progress,
        score=SCORE,
    )


def account_writer(
    account: Account, experiment: Experiment, spec: Spec, frozen: Frozen, members: int = 1
) -> Callable[[int, Any], dict[str, Any]]:
    """What writes the account after a step, in the first process, given how often the gates of all members have opened.
    Begins the account."""
    frames = members * spec.config.batch_size * experiment.data.max_frames

    @functools.cache  # takes seconds: not before the first iteration
    def flops() -> tuple[float, float]:
        return iteration_flops(experiment, spec, frozen)

    def write(step: int, openings: Any) -> dict[str, Any]:
        if not hosts.is_first():
            return {}
        every_step, update = flops()
        return account.write(frames, members * every_step + update * int(np.ravel(openings)[:members].sum()) / step)

    if hosts.is_first():
        account.write(frames, 0.0)
    return write


def iteration_flops(experiment: Experiment, spec: Spec, frozen: Frozen) -> tuple[float, float]:
    """Matmul FLOPs of an iteration's songs: (what every one needs, an update of the discriminator more).

    What devices do beside is left out: rows that fill up, activations computed twice, updates done on all of them.
    """
    networks = models.build(
        dataclasses.replace(experiment.models, remat=False),
        spec.task.vocab_size,
        spec.task.reward_models,
        has_kernel=spec.models.policy.has_kernel,
    )
    spec = Spec(networks, spec.config, spec.task)
    rows, frames = spec.config.batch_size, experiment.data.max_frames
    batch = Batch(*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, frames), (rows, frames), (rows,))))
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), frozen)
    state = jax.eval_shape(lambda: _first_state(spec, experiment, networks.policy.init(jax.random.key(0))))
    phases = cost.traced(learner.iteration, spec, state, frozen, batch)
    flops = {name: cost.of(phase.jaxpr).flops for name, phase in phases.items()}
    adversary = flops.pop("improve_discriminator")
    return sum(flops.values()), adversary


def _restored_or_new(
    spec: Spec, saved: Checkpoints, policy: Params, experiment: Experiment
) -> tuple[int | None, LearnerState]:
    """(step, state) of the newest checkpoint, (None, the first state) where there is none."""
    found = saved.restore(abstract_state(spec, policy, experiment), checkpoint_facts(spec))
    hosts.agree({"the step to go on from": found and found[0]})
    return found or (None, spec.layout.start(functools.partial(_first_state, spec, experiment), policy))


def _first_state(spec: Spec, experiment: Experiment, policy: Params) -> LearnerState:
    return init_state(spec, policy, experiment.seed, experiment.data.max_frames)


def abstract_state(spec: Spec, policy: Params, experiment: Experiment) -> LearnerState:
    """Shapes, dtypes and shardings of the learner's state; nothing is computed. `policy` may be abstract too."""
    return spec.layout.abstract(jax.eval_shape(functools.partial(_first_state, spec, experiment), policy))


def checkpoint_facts(spec: Spec) -> dict[str, Any]:
    """Returns the facts that must match to continue from a checkpoint, which stores them."""
    return {"config": without_later("algorithm", to_dict(spec.config)), **spec.task.facts()}


def first_monitor(evaluator: Evaluator, state: LearnerState, songs: Any, experiment: Experiment) -> dict[str, float]:
    """`monitor` of the policy that post-training begins with, and what its reward models think of the data."""
    data = {DATA_PROXY: evaluator.proxy(songs.context, songs.actions)} if evaluator.rewards else {}
    return monitor(evaluator, state, songs, experiment) | data


def monitor(evaluator: Evaluator, state: LearnerState, songs: Any, experiment: Experiment) -> dict[str, float]:
    """The metrics of the current policy on songs of the valid split, as ``valid/<metric>``."""
    actions = evaluator.play(state.policy, songs.context, songs.index, sampling=experiment.evaluation.sampling)
    found = evaluator.measure(songs.context, actions, songs.actions, state.policy)
    return {f"valid/{name}": value for name, value in found.items()}


def restore_policy(
    spec: Spec, policy: Params, runtime: RuntimeConfig, folder: Path, console: Console, step: int | None = None
) -> tuple[int, Params] | None:
    """(step, policy) of a run's newest checkpoint, or of that of `step`; None where there is none at all. `policy`
    gives the shapes."""
    with checkpoints(folder / "checkpoints", runtime, console, only_reads=True) as saved:
        like = {"policy": spec.layout.abstract(policy)}
        found = saved.restore_part(like, spec.task.facts(), step)
    return found and (found[0], found[1]["policy"])


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved a step of post-training."""
    return bool(saved_steps(folder))


def saved_steps(folder: Path) -> list[int]:
    """The steps of post-training whose checkpoints lie in the folder of a run, without opening them."""
    return finished_steps(folder / "checkpoints")
