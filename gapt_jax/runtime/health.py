"""Named alarms over the metrics of post-training: what goes wrong, since when, what to try (docs/health.md).

A symptom is a pure function of the history; it becomes an alarm when it has lasted for some evaluations or steps in a
row, and ceases when it has been absent for as many. So an alarm is raised once each time it begins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gapt_jax.config import AlgorithmConfig, Experiment
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.files import strict_json, write_atomic
from gapt_jax.runtime.metrics import FILE_NAME as METRICS
from gapt_jax.runtime.metrics import MetricLog, read_metrics
from gapt_jax.runtime.status import NOW

FILE_NAME = "alarms.jsonl"
VALID = "valid/"  # of metrics on held-out songs
MEMBER_STD = "reward_member_std/"  # + name/seed: its spread over the songs of a rollout

Row = Mapping[str, float]  # finite values by name, and the step
Symptom = Callable[..., str | None]  # of the history and the experiment


@dataclasses.dataclass(frozen=True)
class Alarm:
    """One line of ``alarms.jsonl``, and what is to be done about it."""

    step: int
    alarm: str
    message: str
    action: str  # log, keep or stop

    def to_json(self) -> str:
        return strict_json({"step": self.step, "alarm": self.alarm, "message": self.message})


# Symptoms of evaluations. history[0] is the policy that post-training began with, history[-1] the newest; each has the
# valid/* metrics and the means of the steps' metrics since the evaluation before.


def reward_hacking(history: Sequence[Row], experiment: Experiment) -> str | None:
    """The learned reward has risen while gold has fallen from its best or diversity lies below that of the start."""
    scored = [(proxy, row) for row in history if (proxy := _proxy(row, history, experiment.algorithm)) is not None]
    if len(scored) < 2 or scored[-1][0] < scored[0][0] + experiment.health.proxy_rise * abs(scored[0][0]):
        return None
    now, (first, last) = history[-1], (scored[0][0], scored[-1][0])
    up = f"the learned reward rose from {first:.3g} to {last:.3g}"
    best = max((row[GOLD] for row in history[:-1] if GOLD in row), default=math.nan)
    if now.get(GOLD, math.nan) < best - experiment.health.gold_drop:
        return f"{up} while held-out coherence fell from {best:.3g} to {now[GOLD]:.3g}: {_HACK}"
    share = share_of_first(VENDI, history)
    if share is not None and share < experiment.health.hacking_diversity:
        return f"{up} while Vendi fell to {share:.0%} of the first policy's: {_HACK}"
    return None


def beyond_data(history: Sequence[Row], experiment: Experiment) -> str | None:
    """The learned reward scores the policy's songs above the data that it was fitted on."""
    data, now = history[0].get(DATA_PROXY, math.nan), history[-1].get(PROXY, math.nan)
    if not now > data:
        return None
    return f"the learned reward is {now:.3g} where the data itself gets {data:.3g}, so it is being exploited: {_HACK}"


def low_diversity(history: Sequence[Row], experiment: Experiment) -> str | None:
    share = share_of_first(VENDI, history)
    if share is None or share >= experiment.health.min_diversity:
        return None
    remedy = "raise λ or the KL coefficient" if experiment.algorithm.adversarial_weight > 0 else "train with λ > 0"
    return f"Vendi is {share:.0%} of the first policy's: {remedy}, or go back to an earlier checkpoint"


def saturated_discriminator(history: Sequence[Row], experiment: Experiment) -> str | None:
    """Raises nothing with λ = 0, where the discriminator pays no reward."""
    accuracy = history[-1].get("discriminator/accuracy")
    if experiment.algorithm.adversarial_weight <= 0 or accuracy is None or accuracy <= experiment.health.max_accuracy:
        return None
    return (
        f"the discriminator is right in {accuracy:.1%} of the cases, so its reward teaches nothing: raise λ or the KL "
        "coefficient, or lower its learning rate or steps_per_update"
    )


# Symptoms of single steps: history[-1] is the newest step.


def kl_budget(history: Sequence[Row], experiment: Experiment) -> str | None:
    kl = history[-1].get("kl", 0.0)
    if kl <= experiment.health.max_kl:
        return None
    return (
        f"KL to the anchor is {kl:.3g} nats a frame, over {experiment.health.max_kl:g}: raise kl_coef or lower the "
        "learning rate"
    )


def ratio(history: Sequence[Row], experiment: Experiment) -> str | None:
    """Rollout and training disagree by more than the rounding of this dtype: in the mean or in one of 1,000 actions."""
    limits = getattr(experiment.health.ratio_limits, experiment.models.compute_dtype)
    mean, high = (history[-1].get(f"ratio_deviation/{name}", 0.0) for name in ("mean", "high"))
    if mean <= limits.mean and high <= limits.high:
        return None
    return (
        f"rollout and training disagree on log-probabilities before any update (|ratio - 1| is {mean:.2g} in the mean, "
        f"{high:.2g} in one action of 1,000), so the gradients are wrong: compute in float32, and report it with this "
        "run's config.json"
    )


def dead_member(history: Sequence[Row], experiment: Experiment) -> str | None:
    spread = {n.removeprefix(MEMBER_STD): x for n, x in history[-1].items() if n.startswith(MEMBER_STD)}
    dead = sorted(name for name, value in spread.items() if value < experiment.health.min_member_std)
    if not dead:
        return None
    return (
        f"reward model {', '.join(dead)} gives all songs of a rollout the same score: remove its stage folder so that "
        "it is fitted anew, or set its weight to 0"
    )


# name: (symptom, setting that says for how many in a row it must last); a task adds its own (`Domain.symptoms`)
ON_EVALUATIONS: dict[str, tuple[Symptom, str]] = {
    "reward_hacking": (reward_hacking, "slow_evaluations"),
    "beyond_data": (beyond_data, "fast_evaluations"),
    "low_diversity": (low_diversity, "slow_evaluations"),
    "saturated_discriminator": (saturated_discriminator, "slow_evaluations"),
}
ON_STEPS: dict[str, tuple[Symptom, str]] = {
    "kl_budget": (kl_budget, "steps"),
    "ratio": (ratio, "steps"),
    "dead_member": (dead_member, "steps"),
}

GOLD, PROXY, VENDI = "valid/held_out_coherence", "valid/proxy_coherence", "valid/vendi_independent"
DATA_PROXY = "valid/data_proxy_coherence"  # in the row of step 0: what the songs of the data get
_HACK = "an earlier checkpoint is likely better, raise the KL coefficient or λ, or add seeds of the reward models"


def _proxy(row: Row, history: Sequence[Row], algorithm: AlgorithmConfig) -> float | None:
    """What the policy is paid for coherence: on the held-out songs where that is measured, else in its rollouts."""
    if PROXY in history[0]:
        return row.get(PROXY)
    weights = {name: getattr(algorithm.rewards, name) for name in algorithm.rewards.MODELS}
    terms = [weight * row[f"reward/{name}"] for name, weight in weights.items() if f"reward/{name}" in row]
    return sum(terms) if terms else None


def share_of_first(name: str, history: Sequence[Row]) -> float | None:
    """The newest value of a metric as a share of the first policy's."""
    first, now = history[0].get(name), history[-1].get(name)
    return None if first is None or now is None or first <= 0 else now / first


@dataclasses.dataclass
class _Course:
    """Counts how long one symptom has lasted or been absent."""

    present: int = 0  # in a row
    absent: int = 0
    since: int = 0  # the step at which it began
    is_raised: bool = False

    def follow(self, step: int, has_symptom: bool, patience: int) -> bool:
        """Whether the alarm begins at this step."""
        if not has_symptom:
            self.present, self.absent = 0, self.absent + 1
            self.is_raised = self.is_raised and self.absent < patience
            return False
        self.since = self.since if self.present else step
        self.present, self.absent = self.present + 1, 0
        begins = self.present >= patience and not self.is_raised
        self.is_raised = self.is_raised or begins
        return begins


class Health:
    """Follows one run. Plain host state, a function of the rows observed: `observe` them again to rebuild it."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment, self._limits = experiment, experiment.health
        self._evaluations: list[Row] = []
        self._window: list[Row] = []  # steps since the last evaluation
        self._on_evaluations = {**ON_EVALUATIONS, **experiment.domain().symptoms}
        self._courses = {name: _Course() for name in (*self._on_evaluations, *ON_STEPS)}

    def observe(self, step: int, metrics: Mapping[str, float | None]) -> list[Alarm]:
        """The alarms that begin with this row of metrics.jsonl; rows come in order, one a step."""
        found = {name: float(x) for name, x in metrics.items() if isinstance(x, int | float) and math.isfinite(x)}
        valid = {name: x for name, x in found.items() if name.startswith(VALID)}
        trained = {name: x for name, x in found.items() if name not in valid}
        alarms: list[Alarm] = []
        if step > 0:
            self._window.append(trained)
            alarms += self._check(step, ON_STEPS, [trained])
        if valid:
            self._evaluations.append(_means(self._window) | valid)
            self._window = []
        if valid and len(self._evaluations) > 1:
            alarms += self._check(step, self._on_evaluations, self._evaluations)
        return alarms

    def _check(self, step: int, watched: Mapping[str, tuple[Symptom, str]], history: Sequence[Row]) -> list[Alarm]:
        alarms = []
        for name, (symptom, lasting) in watched.items():
            found, course = symptom(history, self._experiment), self._courses[name]
            if course.follow(step, found is not None, getattr(self._limits, lasting)):
                message = f"since step {course.since} {found}"
                alarms.append(Alarm(step, name, message, getattr(self._limits.actions, name)))
        return alarms


def _means(rows: Sequence[Row]) -> dict[str, float]:
    by_name: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            by_name.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in by_name.items()}


class AlarmedLog(MetricLog):
    """A metric log of one stage that raises alarms about what is written to it.

    ``alarms.jsonl`` holds those of the rows that ``metrics.jsonl`` holds: a resumed run finds them again from the rows
    up to `resume_step`, and forgets those after it. All processes of a run get the same rows; the first one writes.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        resume_step: int | None,
        health: Health,
        console: Console,
        *,
        is_silent: bool = False,
    ) -> None:
        super().__init__(folder, resume_step, is_silent=is_silent)
        self._health, self._console, self._due = health, console, list[Alarm]()
        self._raised = [alarm for step, row in _rows(folder, stage, resume_step) for alarm in health.observe(step, row)]
        self._save()

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        super().write(stage, step, values)
        begun = self._health.observe(step, {name: float(value) for name, value in values.items()})
        for alarm in begun:
            NOW.alarms[alarm.alarm] = step
            self._console.warn(f"step {step}, {alarm.alarm}: {alarm.message}")
        self._due += begun
        self._raised += begun
        if begun:
            self._save()

    def take(self) -> list[Alarm]:
        """The alarms raised since this was last asked."""
        due, self._due = self._due, []
        return due

    def _save(self) -> None:
        if not self._is_silent:
            write_atomic(self._folder / FILE_NAME, "".join(alarm.to_json() + "\n" for alarm in self._raised))


def _rows(folder: Path, stage: str, last_step: int | None) -> list[tuple[int, dict[str, Any]]]:
    if last_step is None or not (folder / METRICS).exists():
        return []
    rows = (row for row in read_metrics(folder / METRICS) if row["stage"] == stage and row["step"] <= last_step)
    return [(row["step"], {name: x for name, x in row.items() if name not in ("stage", "step")}) for row in rows]
