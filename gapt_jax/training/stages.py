"""Supervised stages on disk: each is named by the hash of all that determines it, resumed or reused."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from gapt_jax.config import RuntimeConfig, config_hash
from gapt_jax.runtime import hosts
from gapt_jax.runtime.checkpoint import checkpoints, load_tree, save_tree, tree_hashes
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import DONE, read_json, strict_json, write_atomic
from gapt_jax.runtime.metrics import MetricLog
from gapt_jax.training import turns
from gapt_jax.training.loop import Loop, Schedule
from gapt_jax.training.pretrain import Fit, FitState, fit_step, init_fit, validate, worst_loss
from gapt_jax.training.watch import Watch
from gapt_jax.types import Batch, Params

SHOWN = ("loss", "accuracy", "valid/loss", "valid/accuracy")
AT_CHANCE = 0.98  # of the loss of guessing: from there on a stage has learnt nothing
VALIDATIONS = 10  # per stage


@dataclasses.dataclass(frozen=True)
class Stage:
    """One supervised stage; `identity` is everything its result depends on beside `fit.config`."""

    name: str
    fit: Fit
    init: Callable[[jax.Array], Params]
    seed: int
    identity: dict[str, Any]

    def folder(self, root: Path) -> Path:
        key = {"fit": dataclasses.asdict(self.fit.config), "members": self.fit.members, "seed": self.seed}
        return root / f"{self.name}-{config_hash(self.identity | key)}"

    def found(self, roots: Sequence[Path]) -> Path | None:
        """Its folder in the first of the roots where it is finished."""
        folders = (self.folder(root) for root in roots)
        return next((folder for folder in folders if (folder / DONE).exists()), None)


def run_stage(
    stage: Stage,
    root: Path,
    batches: Callable[[int, int], Any],
    validation: Batch,
    runtime: RuntimeConfig,
    console: Console,
) -> Params:
    """The stage's parameters: read where they are finished, else trained from the last checkpoint on.

    `batches(rows, start)` gives training batches of `rows` songs from batch number `start`. Raises Preempted.
    """
    folder = stage.folder(root)
    if _is_done(folder):
        return _reused(stage, folder, console)
    hosts.stop_if_told()
    with turns.in_turn(folder, console):
        if _is_done(folder):  # by the run that we waited for
            return _reused(stage, folder, console)
        params = _fit(stage, folder, batches, validation, runtime, console)
        warning = _at_chance(stage, params, validation)
        if warning:
            console.warn(warning)
        save_tree(folder / "params", params)
        if hosts.is_first():
            facts = {"stage": stage.name, "steps": stage.fit.config.steps, "sha256": tree_hashes(params)}
            write_atomic(folder / DONE, strict_json(facts | ({"warning": warning} if warning else {})))
        hosts.wait_for_all(stage.name)
        return params


def _is_done(folder: Path) -> bool:
    return hosts.first_says((folder / DONE).exists)


def _reused(stage: Stage, folder: Path, console: Console) -> Params:
    console.say(f"{stage.name}: reused from {folder}")
    if warning := _facts(folder).get("warning"):
        console.warn(warning)
    return load_params(folder, _abstract(stage).params)


def _facts(folder: Path) -> dict[str, Any]:
    facts = read_json(folder / DONE, "gapt run")
    return facts if isinstance(facts, dict) else {}


def _at_chance(stage: Stage, params: Params, validation: Batch) -> str:
    """The sentence about a stage of which a member has learnt nothing; empty = all have learnt."""
    songs = stage.fit.layout.share(_validated(stage, validation))
    loss, guess = float(worst_loss(stage.fit, params, songs)), stage.fit.guessing(len(songs.context))
    if not loss >= AT_CHANCE * guess:  # NaN, as a guess without songs, is none
        return ""
    return (
        f"the stage '{stage.name}' has learnt nothing: its loss on held-out songs is {loss:.3g}, that of guessing "
        f"{guess:.3g}; give it more steps or another rate (pretrain.{stage.name}.*), or do without it"
    )


def _validated(stage: Stage, validation: Batch) -> Batch:
    """The songs that a stage is validated on."""
    return jax.tree.map(lambda x: x[: stage.fit.config.batch_size * 4], validation)


def load_params(folder: Path, like: Params) -> Params:
    """The parameters of a finished stage, checked against the hashes in its ``done.json`` if it has any.

    Raises UserError where they are damaged.
    """
    return load_tree(folder / "params", like, _facts(folder).get("sha256", {}))


def _abstract(stage: Stage) -> FitState:
    return stage.fit.layout.abstract(jax.eval_shape(lambda: init_fit(stage.fit, stage.init, stage.seed)))


def _fit(
    stage: Stage,
    folder: Path,
    batches: Callable[[int, int], Any],
    validation: Batch,
    runtime: RuntimeConfig,
    console: Console,
) -> Params:
    steps, layout, rows = stage.fit.config.steps, stage.fit.layout, stage.fit.rows
    validation = layout.share(_validated(stage, validation))
    keep = dataclasses.replace(runtime, keep_checkpoints=2, keep_every=0, keep_best=0)
    with checkpoints(folder / "checkpoints", keep, console) as saved:
        start, state = saved.restore(_abstract(stage), {}) or (0, None)
        hosts.agree({"the step to go on from": start})
        if state is None:
            state = layout.start(lambda: init_fit(stage.fit, stage.init, stage.seed))
        log = MetricLog(folder, resume_step=start or None, is_silent=not hosts.is_first())
        with contextlib.closing(Watch(stage.name, log, saved, {}, rows, runtime.max_nonfinite_steps)) as watch:
            loop = Loop[FitState](
                name=stage.name,
                title=f"the stage '{stage.name}'",
                schedule=Schedule(
                    steps,
                    is_evaluated=lambda step: step % max(steps // VALIDATIONS, 1) == 0 or step == steps,
                    is_saved=lambda step: step % runtime.stage_checkpoint_every == 0 and step < steps,
                    shown=SHOWN,
                ),
                runs=[watch],
                advance=lambda state, batch, call: call(fit_step, stage.fit, state, batch),
                evaluate=lambda state: validate(stage.fit, state.params, validation),
            )
            placed = (layout.place(batch, rows) for batch in batches(rows, start))
            state = loop.run(state, start, placed, console)
    watch.raise_if_stopped()
    return state.params
