"""Ablations by name: which arms, under which settings. The first arm of each is its baseline."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Sequence

from gapt_jax.config import DiscriminatorConfig, Experiment, OptimizerConfig, arm_name
from gapt_jax.errors import UserError
from gapt_jax.overrides import override

WEIGHT = "algorithm.adversarial_weight"
_WITHOUT = f"{WEIGHT}=0"
_GATE, _FORM = "algorithm.discriminator.gate", "algorithm.discriminator.reward_form"
_PAIRS = "algorithm.discriminator.conditional=true"
REWARDS = "algorithm.rewards"
_ENSEMBLE, _ANCHOR = f"{REWARDS}.ensemble", "algorithm.anchor"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train; `name` is the system's name in results."""

    name: str
    label: str
    settings: tuple[str, ...]  # path=value

    def experiment(self, base: Experiment, seed: int) -> Experiment:
        """`base` under the settings of this arm."""
        found = override(base, [*self.settings, f"seed={seed}"])
        return found if arm_name(found) == self.name else dataclasses.replace(found, arm=self.name)


def of_lambda(value: float) -> Arm:
    return Arm(f"gapt_lambda={value:g}", f"λ = {value:g}", (f"{WEIGHT}={value!r}",))


def _of(setting: str, word: str, values: Sequence[str]) -> tuple[Arm, ...]:
    return tuple(
        Arm(f"{word}={value}", f"{word.replace('_', ' ')} {value}", (f"{setting}={value}",)) for value in values
    )


def _weighted(a: float, b: float, c: float) -> Arm:
    kinds = (f"{REWARDS}.coherence_weight={a!r}", f"{REWARDS}.rules_weight={b!r}", f"{WEIGHT}={c!r}")
    return Arm(f"weights={a:g},{b:g},{c:g}", f"{a:g} · coherence + {b:g} · rules + {c:g} · realism", kinds)


# Those of every task; an experiment adds the `PRESETS` of its own.
PRESETS: dict[str, tuple[Arm, ...]] = {
    "lambda": tuple(map(of_lambda, (0.0, 0.25, 0.5, 1.0, 2.0))),
    "adversary": (of_lambda(0.0), of_lambda(1.0)),
    "reward_form": (
        of_lambda(0.0),
        *_of(_FORM, "reward_form", ("neg_log_one_minus", "log", "logit", "sigmoid_shaped", "clipped")),
    ),
    "gate": _of(_GATE, "gate", ("two_phase", "fixed_period", "every_step", "frozen")),
    "ensemble": _of(_ENSEMBLE, "ensemble", ("sum", "mean", "min", "mean_minus_std", "normalised_mean")),
    # arXiv:2511.17879, Table 7.
    "weights": tuple(_weighted(*abc) for abc in ((1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 0, 1))),
    "anchor": _of(_ANCHOR, "anchor", ("offline", "online", "none")),
    "conditional": (
        Arm("discriminator=actions", "D(a)", ("algorithm.discriminator.conditional=false",)),
        Arm("discriminator=pair", "D(a|c)", (_PAIRS,)),
    ),
    # What else has been proposed against collapse, all without the adversary but for the one named after it.
    "cures": (
        of_lambda(0.0),
        of_lambda(1.0),
        Arm("entropy_bonus", "entropy bonus 0.01", (_WITHOUT, "algorithm.entropy_coef=0.01")),
        Arm("larger_beta", "β = 0.04", (_WITHOUT, "algorithm.kl_coef=0.04")),
        Arm("split_kl", "split KL", (_WITHOUT, "algorithm.rewards.entropy=0.02")),
        Arm("groups_of_4", "λ = 0, groups of 4", (_WITHOUT, "algorithm.group_size=4")),  # what the next two differ from
        Arm("log_det", "DQO log-det", (_WITHOUT, "algorithm.group_size=4", "algorithm.rewards.diversity=0.5")),
        Arm("grpo", "GRPO", (_WITHOUT, "algorithm.group_size=4", "algorithm.advantages=grpo")),
    ),
    # Other ways to use the discriminator, and steadier rewards; λ = 1 where an arm does not say otherwise.
    "variants": (
        of_lambda(0.0),
        of_lambda(1.0),
        Arm("to_target", "λ to accuracy 0.75", ("algorithm.adversarial_target=0.75",)),
        Arm("normalised", "normalised terms", ("algorithm.rewards.normalised=rollout",)),
        Arm("pairs", "D(a|c)", (_PAIRS,)),  # what the next one differs from
        Arm(
            "repaired", "D(a|c), half of its negatives re-paired data", (_PAIRS, "algorithm.discriminator.repaired=0.5")
        ),
        Arm("screening", "λ = 0, a quarter screened out", (_WITHOUT, "algorithm.discriminator.screened=0.25")),
        Arm("frozen_encoder", "D on a frozen encoder", ("algorithm.discriminator.encoder=frozen",)),
        Arm("critic_first", "20 steps of the critic alone", ("algorithm.critic_warmup_steps=20",)),
    ),
}


def check_different(arms: Sequence[Arm], base: Experiment) -> None:
    """Refuses arms that would train the same policy."""
    by_outcome: dict[Experiment, Arm] = {}
    for arm in arms:
        twin = by_outcome.setdefault(_what_acts(arm.experiment(base, base.seed)), arm)
        if twin is not arm:
            ensembles = any(setting.startswith(f"{_ENSEMBLE}=") for setting in arm.settings)
            cause = ": there is one member to combine, so add --set pretrain.members=2" if ensembles else ""
            raise UserError(f"the arms '{twin.label}' and '{arm.label}' would train the same policy{cause}")


def together(sets: Iterable[Sequence[Arm]], base: Experiment) -> tuple[Arm, ...]:
    """The arms of all sets; of those that would train the same policy the first one."""
    by_outcome: dict[Experiment, Arm] = {}
    for arms in sets:
        check_different(arms, base)
        for arm in arms:
            by_outcome.setdefault(_what_acts(arm.experiment(base, base.seed)), arm)
    return tuple(by_outcome.values())


def _what_acts(experiment: Experiment) -> Experiment:
    """The experiment without settings that make no difference to its policy."""
    algorithm = experiment.algorithm
    if experiment.pretrain.members == 1 and algorithm.rewards.ensemble != "normalised_mean":
        algorithm = dataclasses.replace(algorithm, rewards=dataclasses.replace(algorithm.rewards, ensemble="sum"))
    if algorithm.adversarial_weight == 0 and not algorithm.discriminator.screened:
        algorithm = dataclasses.replace(
            algorithm, discriminator=DiscriminatorConfig(), discriminator_optimizer=OptimizerConfig()
        )
    return dataclasses.replace(experiment, arm="", algorithm=algorithm)


def grid(axes: Sequence[str]) -> tuple[Arm, ...]:
    """The product of axes like ``algorithm.kl_coef=0.001,0.01``; its first values are the baseline."""
    parsed = []
    for axis in axes:
        path, separator, values = axis.partition("=")
        if not separator or not values:
            raise UserError(f"'{axis}' is no grid axis: write path=value,value,...")
        parsed.append([(path, value) for value in values.split(",")])
    arms = []
    for point in itertools.product(*parsed):
        short = ",".join(f"{path.rpartition('.')[2]}={value}" for path, value in point)
        arms.append(Arm(re.sub(r"[^\w=.,+-]", "_", short), short, tuple(f"{path}={value}" for path, value in point)))
    return tuple(arms)


def lambdas(text: str) -> tuple[Arm, ...]:
    """The arms of ``0,0.5,1``, λ ascending."""
    try:
        values = sorted(float(value) for value in text.split(","))
    except ValueError:
        raise UserError(f"--lambdas takes numbers with commas between them, as in 0,0.5,1, not '{text}'") from None
    if any(not 0 <= value < float("inf") for value in values):
        raise UserError(f"--lambdas takes numbers of 0 or more, not '{text}'")
    return tuple(map(of_lambda, values))


FIRST_TEST_SEED = 10  # those below are for choosing settings (docs/verdict.md)


def seeds(text: str) -> list[int]:
    """``6`` is six seeds from `FIRST_TEST_SEED` on; ``0,1,2`` are these very seeds."""
    try:
        numbers = [int(value) for value in text.split(",") if value.strip()]
    except ValueError:
        raise UserError(f"--seeds takes a count, as in 6, or seeds with commas, as in 10,11,12, not '{text}'") from None
    if len(numbers) == 1 and "," not in text:
        numbers = list(range(FIRST_TEST_SEED, FIRST_TEST_SEED + numbers[0]))
    if not numbers:
        raise UserError(f"--seeds {text} names no seed")
    if min(numbers) < 0:
        raise UserError(f"--seeds {text} names a negative seed")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds {text} names a seed twice")
    return numbers


def settings_of(arm: Arm) -> dict[str, object]:
    """The settings as plain data."""
    found: dict[str, object] = {}
    for setting in arm.settings:
        path, _, value = setting.partition("=")
        try:
            found[path] = json.loads(value)
        except json.JSONDecodeError:
            found[path] = value
    return found
