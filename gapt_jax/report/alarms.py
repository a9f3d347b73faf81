"""The alarms that rang while the runs of a report trained. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from gapt_jax.evaluation.results import Run, Study
from gapt_jax.report.html import Table


class Kind(NamedTuple):
    """All alarms of one name."""

    name: str
    where: str  # the arms, with how many of their runs
    message: str  # of the last one


def kinds(study: Study) -> list[Kind]:
    """One entry per name of an alarm, in order of first appearance."""
    found = []
    for name in dict.fromkeys(name for run in study.runs for name in _names(run)):
        ringing = [run for run in study.runs if name in _names(run)]
        ring, all_runs = Counter(run.arm for run in ringing), Counter(run.arm for run in study.runs)
        counts = [f"{study.name(arm)} in {count} of {all_runs[arm]}" for arm, count in ring.items()]
        where = f"{', '.join(counts)} run{'s' * (len(study.runs) > 1)}"
        found.append(Kind(name, where, str(_of(ringing[-1], name)[-1].get("message", ""))))
    return found


def by_run(study: Study) -> Table:
    """A row per run and alarm."""
    rows = []
    for run in study.runs:
        for name in _names(run):
            rung = _of(run, name)
            steps = [str(alarm.get("step", "")) for alarm in (rung[0], rung[-1])]
            who = f"{study.name(run.arm)}, seed {run.seed}"
            rows.append([who, name, *steps, str(len(rung)), str(rung[-1].get("message", ""))])
    head = ["Run", "Alarm", "First step", "Last step", "Times", "Last message"]
    return Table("Alarms", head, rows, is_numeric=False)


def _names(run: Run) -> list[str]:
    return list(dict.fromkeys(str(alarm.get("alarm")) for alarm in run.alarms))


def _of(run: Run, name: str) -> list[dict[str, Any]]:
    return [alarm for alarm in run.alarms if str(alarm.get("alarm")) == name]
