"""Invariants of the method, checked on this installation: most of the time goes into compiling one iteration."""

from __future__ import annotations

import importlib.util
import shutil
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax import models
from gapt_jax.algorithm import learner, ppo, reward_models
from gapt_jax.algorithm.rollout import distribution
from gapt_jax.algorithm.state import Frozen, Spec, init_state
from gapt_jax.config import AlgorithmConfig, ModelsConfig, RewardsConfig, TransformerConfig
from gapt_jax.errors import install
from gapt_jax.models.networks import interleave
from gapt_jax.runtime import native, versions
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.devices import set_up
from gapt_jax.runtime.files import stage_warnings
from gapt_jax.task import Task
from gapt_jax.types import Batch

MIN_FREE_GB = 1.0
OPTIONAL = ("matplotlib", "jinja2")  # of `gapt report`
Check = tuple[str, bool, str]  # what, whether it holds, what was seen


def run(console: Console, task: Task, songs: Batch, rewards: RewardsConfig) -> bool:
    """Prints every check, made on a few songs of a task; True when all hold (missing optional parts do not count)."""
    set_up()
    use = f"gapt report ({install('report')})"
    optional = [(name, importlib.util.find_spec(name) is not None, use) for name in OPTIONAL]
    reason = native.load()
    optional.append(("compiled kernel", not reason, reason or "rollouts on a CPU use it"))
    checks = [*_machine(), *_method(task, songs, rewards, has_kernel=not reason)]
    rows = [["ok" if holds else "FAILED", what, seen] for what, holds, seen in checks]
    rows += [["ok" if present else "absent", f"optional: {name}", use] for name, present, use in optional]
    console.table("gapt doctor", ["", "check", "seen"], rows)
    for folder in sorted(Path("runs").glob("*")):
        for warning in stage_warnings(folder):
            console.warn(f"{folder}: {warning}")
    holds = all(ok for _, ok, _ in checks)
    console.say("all checks hold; next: gapt run smoke" if holds else "some checks failed: see above")
    console.emit(
        {
            "ok": holds,
            "checks": [{"check": what, "ok": ok, "seen": seen} for what, ok, seen in checks],
            "optional": {name: present for name, present, _ in optional},
        }
    )
    return holds


def _machine() -> list[Check]:
    devices = jax.devices()
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    side = jnp.ones((256, 256))
    error = float(jnp.max(jnp.abs(side @ side - 256)))
    installed = versions.installed()
    too_new, tested = versions.too_new(installed), "none is newer than the newest that was tested"
    return [
        ("versions", True, ", ".join(f"{name} {version}" for name, version in installed.items())),
        ("no version is too new", not too_new, "; ".join(too_new or versions.untested(installed) or [tested])),
        ("devices", bool(devices), f"{len(devices)} x {devices[0].device_kind}"),
        ("float32 matrix product", error == 0, f"largest error {error:g}"),
        ("disk space here", free > MIN_FREE_GB, f"{free:.1f} GB free"),
    ]


def _method(task: Task, batch: Batch, rewards: RewardsConfig, *, has_kernel: bool) -> list[Check]:
    """One iteration of a tiny learner, and what must hold in it."""
    started = time.monotonic()
    songs, frames = batch.context.shape
    spec = _tiny_spec(task, songs, rewards, has_kernel)
    key = jax.random.key(0)
    policy = spec.models.policy.init(key)
    members = {name: jax.vmap(model.init)(jax.random.split(key, 2)) for name, model in spec.models.rewards.items()}
    frozen = Frozen(spec.models.anchor.init(key), members)
    state = init_state(spec, policy, 0, frames)
    trajectory = learner.rollout(spec, state, batch)
    tokens = interleave(trajectory.actions, trajectory.context)[:, :-1]
    log_p = distribution(spec.models.policy.method(policy, "at_states", tokens), None)
    kl_itself = float(jnp.max(jnp.abs(ppo.kl_divergence(log_p, log_p))))
    scores = reward_models.scores(task.reward_models, spec.models, members, batch.context, batch.actions)
    replayed = bool(jnp.array_equal(trajectory.actions, learner.rollout(spec, state, batch).actions))
    state, metrics = learner.iteration(spec, state, frozen, batch)
    values = {name: float(value) for name, value in metrics.items()}
    bad = [name for name, value in values.items() if not np.isfinite(value)]
    deviation, spread = values["ratio_deviation/largest"], float(jnp.std(scores[rewards.ENCODER]))
    return [
        ("rollout and training agree (ratio 1)", deviation < 1e-3, f"largest |ratio - 1| {deviation:.1e}"),
        ("KL(policy, itself) is 0", kl_itself == 0, f"{kl_itself:g}"),
        ("KL to the anchor is not negative", values["kl"] > -1e-5, f"{values['kl']:.3f} nats"),
        ("same key, same actions", replayed, f"{songs} songs of {frames} frames"),
        ("rewards tell songs apart", spread > 0, f"standard deviation {spread:.2g}"),
        ("one iteration is finite", not bad, ", ".join(bad) or f"{len(values)} metrics"),
        ("time for all of this", True, f"{time.monotonic() - started:.0f} s, mostly compilation"),
    ]


def _tiny_spec(task: Task, songs: int, rewards: RewardsConfig, has_kernel: bool) -> Spec:
    tiny = TransformerConfig(dim=16, depth=1, heads=2, head_dim=16, dropout=0.0)  # as the kernel can do
    config = AlgorithmConfig(steps=1, batch_size=songs, minibatch_size=songs, rewards=rewards)
    sizes = ModelsConfig(tiny, tiny, tiny, tiny)
    networks = models.build(sizes, task.vocab_size, task.reward_models, has_kernel=has_kernel)
    return Spec(networks, config, task)
