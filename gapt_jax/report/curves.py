"""Learning curves out of the log of runs: one line per run, their mean per λ. Pure; no files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gapt_jax.evaluation.metrics import describe, titled
from gapt_jax.evaluation.results import PRIMARY, Run, Study
from gapt_jax.task import Domain

STAGE = "gapt"
GATE = "discriminator/is_open"
_BESIDE = ("sqrt_kl", "held_out_coherence")
MAX_POINTS = 100  # of a drawn line; longer ones are averaged in bins


TITLES = {  # (title, unit) of what every task logs and whose name alone says too little
    "kl": ("KL to the anchor", "nats"),
    "entropy": ("Entropy of the actions", "nats"),
    "return": ("Return", "reward"),
    "value": ("Return that the critic expects", "reward"),
    "value_loss": ("Loss of the critic", ""),
    "policy_loss": ("Loss of the policy", ""),
    "policy_gradient_norm": ("Gradient norm of the policy", ""),
    "critic_gradient_norm": ("Gradient norm of the critic", ""),
    "policy_skipped": ("Skipped updates of the policy", "share"),
    "critic_skipped": ("Skipped updates of the critic", "share"),
    "ratio_deviation/mean": ("|ratio − 1| before an update, mean", ""),
    "ratio_deviation/high": ("|ratio − 1| of one action in 1,000", ""),
    "ratio_deviation/largest": ("|ratio − 1|, largest", ""),
    "reward/total": ("Total reward", "reward"),
    "reward/adversarial": ("Realism", "reward"),
    "adversarial_weight": ("λ, the weight of realism", ""),
    "discriminator/accepted": ("Songs that pass its screening", "share"),
    "discriminator/accuracy": ("Accuracy", "share"),
    "discriminator/fooled": ("Fooled: mean of −log(1 − D)", ""),
    "discriminator/gate_openings": ("Openings of the gate so far", ""),
    "discriminator/loss": ("Loss", ""),
    "discriminator/reward_mean": ("Reward that it pays, mean", "reward"),
    "discriminator/reward_std": ("Reward that it pays, spread", "reward"),
    "discriminator/skipped": ("Skipped updates", "share"),
    "discriminator/steps_since_open": ("Steps since the gate was open", ""),
}


class Curve(NamedTuple):
    """One logged quantity: steps [S] and values [S]."""

    steps: np.ndarray
    values: np.ndarray


def keys(runs: Sequence[Run]) -> list[str]:
    """Everything that post-training logged as a number, in order of first appearance."""
    found: dict[str, None] = {}
    for run in runs:
        for row in run.log:
            if row.get("stage") == STAGE:
                found |= dict.fromkeys(k for k, v in row.items() if k != "step" and _is_number(v))
    return list(found)


def shown(study: Study) -> list[str]:
    """The keys that a report draws: evaluations by the metrics that readers need first, all else but the gate, which
    has a plot of its own. What comes by chance is drawn beside what it is the chance of."""
    domain = study.domain
    chances = {describe(domain.metrics, metric).chance for metric in domain.headline}
    logged = keys(study.runs)
    valid = [f"valid/{metric}" for metric in domain.headline if metric not in chances]
    others = [key for key in logged if not key.startswith("valid/") and key != GATE]
    return [*(key for key in valid if key in logged), *others]


def constants(study: Study) -> dict[str, float]:
    """Those that were logged more than once, always with one value, in all runs."""
    found = {}
    for key in shown(study):
        logged = [curve(run, key).values for run in study.runs]
        values = np.unique(np.concatenate(logged))
        if len(values) == 1 and max(map(len, logged)) > 1:
            found[key] = float(values[0])
    return found


def chance_key(study: Study, metric: str) -> str:
    """The logged key of what comes of a metric by chance; empty where there is none."""
    chance = describe(study.domain.metrics, metric).chance
    key = f"valid/{chance}"
    return key if chance and key in keys(study.runs) else ""


def title(key: str, domain: Domain) -> tuple[str, str]:
    """What a logged key says, with an arrow where there is a better way, and its unit."""
    group, _, rest = key.partition("/")
    if group == "valid":
        return titled(domain.metrics, rest), describe(domain.metrics, rest).unit
    if group == "reward_member_std":
        model, _, seed = rest.replace("_", " ").partition("/")
        return f"{model[:1].upper()}{model[1:]}, seed {seed}: spread", "reward"
    words = (rest if group in ("reward", "discriminator") else key).replace("/", ", ").replace("_", " ")
    return TITLES.get(key, (words[:1].upper() + words[1:], "reward" if "reward" in key else ""))


def curve(run: Run, key: str) -> Curve:
    """The finite values of `key`, by step; of a step that was logged twice (a resumed run) the last."""
    found = {
        int(row["step"]): float(row[key])
        for row in run.log
        if row.get("stage") == STAGE and _is_number(row.get(key)) and np.isfinite(row[key])
    }
    steps = sorted(found)
    return Curve(np.array(steps, np.int64), np.array([found[step] for step in steps], np.float64))


def evaluations(study: Study) -> dict[str, dict[str, dict[str, list[float]]]]:
    """By arm, then seed: the evaluations on the valid split that `figures` draw over each other, at their steps."""
    quality, found = study.domain.quality, dict[str, dict[str, dict[str, list[float]]]]()
    chance = describe(study.domain.metrics, quality).chance
    for run in study.runs:
        wanted = {name: curve(run, f"valid/{name}") for name in (quality, chance, PRIMARY, *_BESIDE)}
        if logged := {name: c for name, c in wanted.items() if len(c.steps)}:
            steps, values = aligned(list(logged.values()))
            rows = {name: np.round(row, 4).tolist() for name, row in zip(logged, values, strict=True)}
            found.setdefault(run.arm, {})[str(run.seed)] = {"step": steps.tolist()} | rows
    return found


def aligned(curves: Sequence[Curve]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The steps that all of them have, and the values of each there."""
    steps = functools.reduce(np.intersect1d, [c.steps for c in curves])
    return steps, [c.values[np.isin(c.steps, steps)] for c in curves]


def pointwise(curves: Sequence[Curve], reduce: Callable[..., Any]) -> Curve:
    """`reduce` (np.min, say) over seeds, at the steps that all of them have."""
    steps, values = aligned(curves)
    return Curve(steps, reduce(values, axis=0))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds, at the steps that all of them have."""
    return pointwise(curves, np.mean)


def against(run: Run, first: str, second: str) -> Curve:
    """`second` at the steps that have `first` too."""
    wanted, found = curve(run, first), curve(run, second)
    common = np.isin(found.steps, wanted.steps)
    return Curve(found.steps[common], found.values[common])


def thin(full: Curve) -> Curve:
    """At most MAX_POINTS points: means of equally many neighbouring ones."""
    per_bin = -(-len(full.steps) // MAX_POINTS)
    if per_bin <= 1:
        return full
    starts = np.arange(0, len(full.steps), per_bin)
    counts = np.diff(np.append(starts, len(full.steps)))
    return Curve(np.add.reduceat(full.steps, starts) / counts, np.add.reduceat(full.values, starts) / counts)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
