"""Reads and writes what a run folder says of its run: identity, facts, time spent, results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from gapt_jax.config import FIRST_TASK, Experiment, config_hash, from_dict, to_dict, to_json
from gapt_jax.errors import UserError
from gapt_jax.runtime import devices, hosts, locks
from gapt_jax.runtime.files import DONE, UPSTREAM, git_revision, read_json, strict_json, write_atomic
from gapt_jax.task import Task

ABLATION = "ablation.json"  # in a folder whose runs belong together
# At what runs were made by that lack them.
LATER_SETTINGS: dict[str, Any] = {
    "models.attention": "xla",
    "data.crops_on": "beats",
    "algorithm.adversarial_target": 0.0,
    "algorithm.adversarial_target_rate": 0.05,
    "algorithm.critic_warmup_steps": 0,
    "algorithm.discriminator.encoder": "own",
    "algorithm.discriminator.repaired": 0.0,
    "algorithm.discriminator.screened": 0.0,
    "algorithm.rewards.normalised": "none",
    "algorithm.rewards.coherence_weight": 1.0,
    "algorithm.rewards.rules_weight": 1.0,
    "evaluation.top_k": 1.0,
    "evaluation.top_p": 1.0,
}


def root_of(workdir: Path) -> Path:
    """The folder that holds the prepared data and the supervised stages of a run: that of its neighbours."""
    return workdir.parent.parent if (workdir.parent / ABLATION).exists() else workdir.parent


def stage_roots(workdir: Path) -> list[Path]:
    """Where the finished supervised stages of a run may lie: beside it, in it, in the ablation that it is part of."""
    return [root_of(workdir) / "stages", workdir / UPSTREAM, workdir.parent / UPSTREAM]


def keep_stages(workdir: Path, folders: Iterable[Path]) -> None:
    """Gives a run, or an ablation, its own finished stages, so that it can be moved: links where the file system has
    them, copies elsewhere. Raises UserError where they cannot be written."""
    for folder in folders:
        kept = workdir / UPSTREAM / folder.name
        if (kept / DONE).exists():
            continue
        try:
            shutil.rmtree(kept, ignore_errors=True)  # what an interrupted attempt left
            shutil.copytree(folder / "params", kept / "params", copy_function=_link)
            write_atomic(kept / DONE, (folder / DONE).read_bytes())
        except (OSError, shutil.Error) as error:
            shutil.rmtree(kept, ignore_errors=True)
            raise UserError(
                f"{folder} cannot be copied into {kept.parent} ({getattr(error, 'strerror', None) or error}): free "
                "some space and run the same command again"
            ) from error


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _identity(experiment: Experiment) -> dict[str, Any]:
    """What makes two runs the same: not where the songs lie (their fingerprint stands for them), nor on what and how
    the run is computed, nor what raises an alarm."""
    return _without_means(to_dict(experiment))


def _without_means(config: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in config.items() if name not in ("runtime", "health")}
    if kept.get("task") == FIRST_TASK:  # as in a config.json that names none
        del kept["task"]
    parts = {part: without_later(part, config.get(part, {})) for part in ("models", "data", "algorithm", "evaluation")}
    parts["data"].pop("songs", None)
    return kept | parts


def without_later(part: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a part of the configuration without those that earlier runs lack, where they are as if they
    lacked."""
    later = {name for name, value in settings.items() if LATER_SETTINGS.get(f"{part}.{name}") == value}
    return {
        name: without_later(f"{part}.{name}", value) if isinstance(value, dict) else value
        for name, value in settings.items()
        if name not in later
    }


def check_unedited(workdir: Path, config: dict[str, Any], facts: dict[str, Any]) -> None:
    """Refuses a run whose ``config.json`` is not what its ``run.json`` says that it was started with."""
    if config_hash(_without_means(config)) != facts.get("config_hash"):
        raise UserError(
            f"{workdir / 'config.json'} was changed after the run had begun: put the original back, "
            "or train a run with these settings"
        )


def run_hash(experiment: Experiment) -> str:
    return config_hash(_identity(experiment))


def with_absolute_paths(experiment: Experiment) -> Experiment:
    """So that the run folder can be used from anywhere."""
    songs = Path(experiment.data.songs)
    if not songs.is_dir():
        return experiment
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, songs=str(songs.resolve())))


def check_same_run(experiment: Experiment, workdir: Path) -> None:
    """An existing folder must hold this very run."""
    path = workdir / "config.json"
    if not path.exists():
        return
    stored = from_dict(Experiment, read_json(path, "gapt run"))
    changed = _differences(_identity(stored), _identity(experiment))
    if changed:
        raise UserError(
            f"{workdir} holds a run of another config ({', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''}): "
            "choose another --workdir or remove the folder"
        )


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [f"{path}: {json.dumps(old)} there, {json.dumps(new)} asked"]


def write_facts(
    workdir: Path, experiment: Experiment, task: Task, facts_of_data: Mapping[str, Any], init_from: str | None
) -> None:
    """Writes the facts of a run into its new folder."""
    if not (workdir / "config.json").exists():
        write_atomic(workdir / "config.json", to_json(experiment))
    task.save(workdir)
    path = workdir / "run.json"
    if path.exists():
        known = read_json(path, "gapt run").get("init_from")
        if known != init_from:
            raise UserError(
                f"{workdir} was started from {known or 'its own supervised policy'}, not from "
                f"{init_from or 'that'}: give the same --init-from, or choose another --workdir"
            )
        return
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "gapt-jax")
    facts = {
        "command": " ".join(["gapt", *sys.argv[1:]]),
        "config_hash": run_hash(experiment),
        "init_from": init_from,
        **facts_of_data,
        "git_revision": git_revision(),
        "versions": {name: metadata.version(name) for name in packages} | {"python": platform.python_version()},
        "hardware": f"{len(jax.devices())} x {jax.devices()[0].device_kind}, {devices.cores()} host cores",
        "time_s": {},
    }
    write_atomic(path, strict_json(facts, indent=1))


def add_time(workdir: Path, stage: str, seconds: float) -> None:
    """Adds to the seconds that this run has spent on a stage, all attempts together."""
    if not hosts.is_first():
        return
    facts = read_json(workdir / "run.json", "gapt run")
    facts["time_s"][stage] = round(facts["time_s"].get(stage, 0.0) + seconds, 1)
    write_atomic(workdir / "run.json", strict_json(facts, indent=1))


@contextlib.contextmanager
def timed(workdir: Path, stage: str) -> Iterator[None]:
    """Counts the time of a stage on every way out."""
    started = time.monotonic()
    try:
        yield
    finally:
        add_time(workdir, stage, time.monotonic() - started)


def add_results(path: Path, result: dict[str, Any], by_system: Iterable[str]) -> None:
    """Keeps what the file knows of other sets in the tables `by_system`, unless that was measured at another step."""
    with locks.in_turn(path.parent, ".evaluation.lock"):  # evaluations of several sets may end at once
        known = read_json(path, "gapt evaluate") if path.exists() else {}
        known = known if known.get("step") == result["step"] else {}
        merged = {
            name: {system: known.get(name, {}).get(system, {}) | sets for system, sets in result[name].items()}
            for name in by_system
        }
        write_atomic(path, strict_json(result | merged, indent=1))
