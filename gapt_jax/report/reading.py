"""Reads what `gapt report` shows: run folders and the ablations that name them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gapt_jax.config import FIRST_TASK, Experiment, from_dict
from gapt_jax.errors import UserError
from gapt_jax.evaluation import results
from gapt_jax.evaluation.results import Ablation, Member, Run, Study
from gapt_jax.runtime.files import read_json, stage_warnings
from gapt_jax.settings import hints_of

SCHEMA = 1
FINISHED, STOPPED = "finished", "stopped"


def read_study(folders: Sequence[Path]) -> Study:
    """All runs of these folders; one with an ``ablation.json`` stands for its finished members."""
    if not folders:
        raise UserError("there is no run to report: name one or more folders that 'gapt run' has made")
    ablations, paths = [], []
    for folder in folders:
        if (folder / "ablation.json").exists():
            ablation = read_ablation(folder)
            ablations.append(ablation)
            paths += [folder / member.folder for member in ablation.members if member.status == FINISHED]
        else:
            paths.append(folder)
    if not paths and {member.status for member in ablations[0].members} == {STOPPED}:
        raise UserError(f"every member of {folders[0]} was stopped, the first: {ablations[0].members[0].reason}")
    if not paths:
        raise UserError(f"no member of {folders[0]} has finished yet: go on with '{ablations[0].command}'")
    if len({ablation.baseline for ablation in ablations}) > 1:
        raise UserError("these ablations have different baselines: report them one by one")
    runs = [read_run(path) for path in paths]
    tasks = sorted({str(run.config.get("task", FIRST_TASK)) for run in runs})
    if len(tasks) > 1:
        raise UserError(f"these runs are of different tasks ({', '.join(tasks)}): report them one by one")
    return Study(results.order(runs, ablations), ablations)


def read_ablation(folder: Path) -> Ablation:
    """``ablation.json`` of a folder. Raises UserError where it is not of the agreed form."""
    path = folder / "ablation.json"
    data = _table(path, "gapt ablate", ("schema", "command", "baseline", "arms", "members"))
    if data["schema"] != SCHEMA:
        raise UserError(f"{path} has schema {data['schema']}, not {SCHEMA}: make it anew with 'gapt ablate'")
    try:
        members = [
            Member(str(m["folder"]), str(m["arm"]), int(m["seed"]), str(m["status"]), str(m.get("reason") or ""))
            for m in data["members"]
        ]
        labels = {str(arm["name"]): str(arm.get("label") or results.name_of(arm["name"])) for arm in data["arms"]}
        settings = {str(arm["name"]): dict(arm.get("settings") or {}) for arm in data["arms"]}
        unknown = sorted({m.arm for m in members} - set(labels))
        if unknown:
            raise ValueError(f"a member has the arm '{unknown[0]}', which is not listed")
        if data["baseline"] not in labels:
            raise ValueError(f"its baseline '{data['baseline']}' is none of its arms")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{error!r}", "gapt ablate") from None
    preset = str(data.get("preset") or "")
    return Ablation(str(folder), str(data["command"]), preset, str(data["baseline"]), labels, settings, members, data)


def read_run(folder: Path) -> Run:
    """A run folder's files. Raises UserError that names the file and the command that makes it."""
    evaluation = _evaluation(folder / "evaluation.json")
    config = _table(
        folder / "config.json", "gapt run", ("name", "pretrain.seed", "algorithm.discriminator.gate_threshold")
    )
    facts = ("command", "config_hash", "data_fingerprint", "git_revision", "versions", "hardware", "time_s")
    record = _table(folder / "run.json", "gapt run", facts)
    kind = Experiment.of(config)
    domain = kind.domain()
    task = domain.load(from_dict(hints_of(kind)["data"], config.get("data", {}), "data"), folder)
    return Run(
        path=str(folder),
        seed=int(evaluation["seed"]),
        adversarial_weight=float(evaluation["adversarial_weight"]),
        upstream_seed=int(config["pretrain"]["seed"]),
        config=config,
        record=record,
        evaluation=evaluation,
        log=_log(folder / "metrics.jsonl"),
        samples=_samples(folder / "samples.json", task.vocab_size),
        domain=domain,
        task=task,
        alarms=_log(folder / "alarms.jsonl") if (folder / "alarms.jsonl").exists() else [],
        songs=_songs(folder / "songs.npz"),
        warnings=stage_warnings(folder),
    )


def _table(path: Path, made_by: str, needed: Sequence[str]) -> dict[str, Any]:
    """A JSON object that has the `needed` dotted paths."""
    data = read_json(path, made_by)
    for dotted in needed:
        node = data
        for key in dotted.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if node is None:
            raise _damaged(path, f"'{dotted}' is missing", made_by)
    return data


def _evaluation(path: Path) -> dict[str, Any]:
    needed = (
        "schema",
        "seed",
        "adversarial_weight",
        "sampling",
        "config_hash",
        "data_fingerprint",
        "systems",
    )
    data = _table(path, "gapt evaluate", needed)
    if data["schema"] != SCHEMA:
        raise UserError(f"{path} has schema {data['schema']}, not {SCHEMA}: make it anew with 'gapt evaluate'")
    try:
        int(data["seed"]), float(data["adversarial_weight"]), results.rule_of(data)
        for system, datasets in [*data["systems"].items(), *data.get("unseen", {}).items()]:
            float(system.removeprefix(results.ARM) if system.startswith(results.ARM) else 0)
            for metrics in datasets.values():
                for entry in metrics.values():
                    float(entry["mean"] or 0), int(entry["n_songs"])
        for datasets in data.get("reward_models", {}).values():
            for figures in datasets.values():
                if not (figures["kind"] and figures["seeds"]) or int(figures["n_songs"]) < 1:
                    raise ValueError("reward_models has no seeds or no songs")
                [float(x or 0) for seed in figures["seeds"] for x in results.flatten(seed).values()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(
            path, f"not of the form systems.<system>.<dataset>.<metric>: {error!r}", "gapt evaluate"
        ) from None
    return data


def _samples(path: Path, tokens_known: int) -> dict[str, Any]:
    """Songs with what each system played; files of earlier versions call the context by the name of its part."""
    data = _table(path, "gapt evaluate", ("dataset", "ids", "systems"))
    beside = [name for name in data if name not in ("dataset", "ids", "systems")]
    if "context" not in data and len(beside) == 1:
        data["context"] = data.pop(beside[0])
    try:
        shape = np.shape(data["context"])
        for rows in (data["context"], *data["systems"].values()):
            tokens = np.array(rows)
            fits = tokens.shape == shape == (len(data["ids"]), shape[1]) and tokens.dtype.kind == "i"
            if not fits or tokens.min(initial=0) < 0 or tokens.max(initial=0) >= tokens_known:
                raise ValueError("its parts are not tokens [songs, frames] of the run's task")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error), "gapt evaluate") from None
    return data


def _songs(path: Path) -> dict[str, np.ndarray]:
    """The numbers of each song, where the run has kept them."""
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise _damaged(path, str(error), "gapt evaluate") from None


def _log(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; a last line without its end is what a killed run leaves, and is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it with 'gapt run'") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and line.endswith("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                raise _damaged(path, f"line {number} is not JSON", "gapt run") from None
            if not isinstance(row, dict) or not isinstance(row.get("step", 0), int):
                raise _damaged(path, f"line {number} is not an object with a whole 'step'", "gapt run")
            rows.append(row)
    return rows


def _damaged(path: Path, fault: str, made_by: str) -> UserError:
    return UserError(f"{path} is damaged ({fault}): make it anew with '{made_by}'")
