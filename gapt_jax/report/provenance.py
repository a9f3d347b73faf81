"""The page's sections on decoding time and on where its numbers come from."""

from __future__ import annotations

import numpy as np

from gapt_jax.evaluation import results
from gapt_jax.evaluation.results import Study
from gapt_jax.report.html import Cell, Table, Text, duration, number, plain, render


def in_use(study: Study) -> str:
    """Decoding time, where runs have measured it."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in study.runs:
        for system, values in run.evaluation.get("decode_step", {}).items():
            found.setdefault(system, []).append(values)
    if not found:
        return ""
    rows = [
        [study.name(system), *(number(float(np.mean([v[k] for v in values])), 2) for k in ("p50_ms", "p95_ms")),
         str(sum(int(v["frames"]) for v in values)), str(len(values))]
        for system, values in found.items()
    ]  # fmt: skip
    head: list[Text] = ["System", Cell("p50", "ms"), Cell("p95", "ms"), "Frames", "Runs"]
    return render("in_use.html", decoding=Table("Decoding step", head, rows))


def section(study: Study, command: str) -> str:
    """Commands, hashes, revisions, settings and times."""
    head = ["Run", "Arm", "Seed", "Pre-training", "Config", "Data", "Revision", "Hardware", "Time"]
    rows: list[list[Text]] = [
        [Cell(run.path, kind="path"), study.name(run.arm), str(run.seed), f"seed {run.upstream_seed}",
         *(Cell(str(run.record[k])[:14], kind="code") for k in ("config_hash", "data_fingerprint", "git_revision")),
         plain(run.record["hardware"]), duration(sum(run.record["time_s"].values()))]
        for run in study.runs
    ]  # fmt: skip
    made = [ablation.command for ablation in study.ablations] or [run.record["command"] for run in study.runs]
    first = study.runs[0]
    settings = [[k, plain(v)] for k, v in results.flatten(first.config).items()]
    took = [[r.path, plain(r.record["versions"]), plain(r.record["time_s"])] for r in study.runs]
    return render(
        "provenance.html",
        runs=Table("Runs", head, rows, is_numeric=False),
        ablations=_ablations(study),
        commands=[*map(str, made), command],
        first=first.path,
        settings=Table("Configuration", ["Setting", "Value"], settings, is_numeric=False),
        versions=Table("Versions", ["Run", "Versions", "Seconds per stage"], took, is_numeric=False),
    )


def _ablations(study: Study) -> Table | None:
    rows: list[list[Text]] = []
    for ablation in study.ablations:
        time, population = ablation.record.get("wall_s") or {}, ablation.record.get("population") or {}
        finished = len(ablation.members) - len(ablation.missing)
        facts = [", ".join(f"{k.replace('_', ' ')} {plain(v)}" for k, v in part.items()) for part in (time, population)]
        count = f"{finished} of {len(ablation.members)}"
        rows.append([Cell(ablation.folder, kind="path"), ablation.preset, count, *facts])
    head = ["Ablation", "Preset", "Members finished", "Wall time, s", "Population"]
    return Table("Ablations", head, rows, is_numeric=False) if rows else None
