"""Reasons not to compare runs, and what a reader must know about the ones left out. Pure; no files."""

from __future__ import annotations

import math
from typing import Any

from gapt_jax.evaluation.results import Run, Study, flatten

OWN = ("name", "seed", "pretrain.seed", "algorithm.adversarial_weight")  # settings that runs may differ in


def warnings(study: Study) -> list[str]:
    """One sentence each; the most important first."""
    runs, found = study.runs, []
    for ablation in study.ablations:
        found += [
            f"Left out: {member.folder} ({study.name(member.arm)}, seed {member.seed}) is {member.status}"
            f"{': ' + member.reason if member.reason else ''}."
            for member in ablation.missing
        ]
    found += [f"In pre-training {text}." for text in dict.fromkeys(text for run in runs for text in run.warnings)]
    meant = {*OWN, *(path for ablation in study.ablations for arm in ablation.settings.values() for path in arm)}
    first = _comparable(runs[0], meant)
    paths = sorted({path for run in runs[1:] for path in _differences(first, _comparable(run, meant))})
    if paths:
        found.append(f"The runs differ in more than what was to be compared and the seed: {', '.join(paths)}.")
    for key, name in (("data_fingerprint", "data fingerprints"), ("git_revision", "git revisions")):
        values = sorted({str(run.record[key]) for run in runs})
        if len(values) > 1:
            found.append(f"The runs have different {name}: {', '.join(values)}.")
    if len({run.rule for run in runs}) > 1:
        found.append("The runs were evaluated with different sampling rules.")
    if len({(run.seed, run.upstream_seed) for run in runs}) > len({run.seed for run in runs}):
        found.append("Runs of one seed come from different pre-trainings, so that they are no true pairs.")
    for run in runs:
        for key in ("config_hash", "data_fingerprint"):
            if run.record[key] != run.evaluation[key]:
                found.append(f"{run.path} was evaluated under another {key.replace('_', ' ')} than it was trained.")
    return found + _disagreements(study)


def _comparable(run: Run, meant: set[str]) -> dict[str, Any]:
    return {path: value for path, value in flatten(run.config).items() if not _is_within(path, meant)}


def _is_within(path: str, settings: set[str]) -> bool:
    return any(path == setting or path.startswith(setting + ".") for setting in settings)


def _differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    missing = object()
    return [key for key in a | b if a.get(key, missing) != b.get(key, missing)]


def _disagreements(study: Study) -> list[str]:
    """Shared systems whose number is not the same in two runs that share a pre-training."""
    seen: dict[tuple[str, str, str, int], float] = {}
    systems = set()
    for run in study.runs:
        for system, dataset, metric, mean, _ in run.scores():
            if system not in study.arms:
                first = seen.setdefault((system, dataset, metric, run.upstream_seed), mean)
                if first != mean and not (math.isnan(first) and math.isnan(mean)):
                    systems.add(system)
    return [
        f"The numbers of '{s}' differ between runs of one pre-training; the lowest seed's are used."
        for s in sorted(systems)
    ]
