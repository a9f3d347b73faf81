"""The page's sections on decoding time and alarms, and on where its numbers come from. Pure text."""

from __future__ import annotations

from html import escape

import numpy as np

from gapt_jax.evaluation import results
from gapt_jax.evaluation.results import Study
from gapt_jax.report.html import details, duration, note, number, plain, table


def in_use(study: Study) -> str:
    """Decoding time and alarms, where runs have measured any."""
    return _decoding(study) + _alarms(study)


def _decoding(study: Study) -> str:
    found: dict[str, list[dict[str, float]]] = {}
    for run in study.runs:
        for system, values in run.evaluation.get("decode_step", {}).items():
            found.setdefault(system, []).append(values)
    if not found:
        return ""
    rows = [
        [escape(study.name(system)), *(number(float(np.mean([v[k] for v in values])), 2) for k in ("p50_ms", "p95_ms")),
         str(sum(int(v["frames"]) for v in values)), str(len(values))]
        for system, values in found.items()
    ]  # fmt: skip
    head = ["System", "p50 <small>ms</small>", "p95 <small>ms</small>", "Frames", "Runs"]
    caption = (
        "Time of a decoding step, one frame without planning, mean over runs. Live play plans ahead too: "
        "gapt bench --suite live times that. A frame lasts 187 ms at 80 BPM, 125 ms at 120."
    )
    return f"<h3>Decoding step</h3>{table(head, rows, 'Decoding step')}{note(caption)}"


def _alarms(study: Study) -> str:
    rows = []
    for run in study.runs:
        names = list(dict.fromkeys(str(alarm.get("alarm")) for alarm in run.alarms))
        for name in names:
            rung = [alarm for alarm in run.alarms if str(alarm.get("alarm")) == name]
            steps = [str(alarm.get("step", "")) for alarm in (rung[0], rung[-1])]
            who = f"{study.name(run.arm)}, seed {run.seed}"
            rows.append(
                [
                    escape(who),
                    escape(name),
                    *map(escape, steps),
                    str(len(rung)),
                    escape(str(rung[-1].get("message", ""))),
                ]
            )
    if not rows:
        return ""
    head = ["Run", "Alarm", "First step", "Last step", "Times", "Last message"]
    return f"<h3>Alarms during training</h3>{table(head, rows, 'Alarms', numbers=False)}"


def section(study: Study, command: str) -> str:
    """Commands, hashes, revisions, settings and times."""
    head = ["Run", "Arm", "Seed", "Pre-training", "Config", "Data", "Revision", "Hardware", "Time"]
    rows = [
        [f'<span class="path">{escape(run.path)}</span>', escape(study.name(run.arm)), str(run.seed),
         f"seed {run.upstream_seed}", *(f"<code>{escape(str(run.record[k])[:14])}</code>"
         for k in ("config_hash", "data_fingerprint", "git_revision")),
         escape(plain(run.record["hardware"])), duration(sum(run.record["time_s"].values()))]
        for run in study.runs
    ]  # fmt: skip
    made = [ablation.command for ablation in study.ablations] or [run.record["command"] for run in study.runs]
    commands = "\n".join(escape(str(text)) for text in [*made, command])
    first = study.runs[0]
    settings = [[escape(k), escape(plain(v))] for k, v in results.flatten(first.config).items()]
    versions = [
        [escape(r.path), escape(plain(r.record["versions"])), escape(plain(r.record["time_s"]))] for r in study.runs
    ]
    set_to = table(["Setting", "Value"], settings, "Configuration", numbers=False)
    took = table(["Run", "Versions", "Seconds per stage"], versions, "Versions", numbers=False)
    return "".join([
        table(head, rows, "Runs", numbers=False),
        _ablations(study),
        f'<h3>Commands that make this again</h3><pre tabindex="0">{commands}</pre>',
        details(f"Configuration of {first.path}", set_to),
        details("Versions and times", took),
    ])  # fmt: skip


def _ablations(study: Study) -> str:
    rows = []
    for ablation in study.ablations:
        time, population = ablation.record.get("wall_s") or {}, ablation.record.get("population") or {}
        finished = len(ablation.members) - len(ablation.missing)
        rows.append([
            f'<span class="path">{escape(ablation.folder)}</span>', escape(ablation.preset),
            f"{finished} of {len(ablation.members)}",
            *(escape(", ".join(f"{k.replace('_', ' ')} {plain(v)}" for k, v in part.items()))
              for part in (time, population)),
        ])  # fmt: skip
    head = ["Ablation", "Preset", "Members finished", "Wall time, s", "Population"]
    return table(head, rows, "Ablations", numbers=False) if rows else ""
