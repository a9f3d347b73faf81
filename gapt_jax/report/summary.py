"""What a study found, in three sentences for readers who know none of its measures. Pure; no files."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gapt_jax.evaluation import results, verdict
from gapt_jax.evaluation.metrics import describe
from gapt_jax.evaluation.results import ARM, BASELINE, PRIMARY, Comparison, Study
from gapt_jax.evaluation.statistics import ENOUGH_PAIRS, estimate
from gapt_jax.report.html import number
from gapt_jax.report.tables import Results

BEFORE = "before post-training"


def sentences(found: Results) -> list[str]:
    """Who collapsed, what the adversary gave back, what it cost: each with its numbers on the primary dataset."""
    return [_collapse(found), _given_back(found), _cost(found)]


def _collapse(found: Results) -> str:
    study, domain = found.study, found.study.domain
    before, arms = _mean(found, "mle", PRIMARY), {arm: _mean(found, arm, PRIMARY) for arm in _told(study)}
    known = {arm: vendi for arm, vendi in arms.items() if math.isfinite(vendi)}
    if not known or not math.isfinite(before):
        return (
            f"Who collapsed is not known: on {_dataset(found)} the variety of "
            f"{'the policies' if math.isfinite(before) else f'the policy {BEFORE}'} is not measured or not defined."
        )
    limit = domain.collapse.of(before)
    collapsed = [_with(arm, study) for arm, vendi in known.items() if before - vendi >= limit]
    kept = [_with(arm, study) for arm, vendi in known.items() if before - vendi < limit]
    if collapsed:
        who = f"The policy collapsed {_list(collapsed)}{f', not {_list(kept)}' if kept else ''}"
    else:
        who = (
            f"The policy collapsed neither {' nor '.join(kept)}"
            if kept[1:]
            else f"The policy did not collapse {kept[0]}"
        )
    first, *others = (f"{number(vendi, 2)}{{}} {_at(arm, study)}" for arm, vendi in {**known, "mle": before}.items())
    first = first.format(f" entirely different {domain.examples}")
    data = _mean(found, "data", PRIMARY)
    others = [other.format("") for other in others] + [f"{number(data, 2)} in the data"] * math.isfinite(data)
    asks = f" A collapse is a loss of {limit:.3g} or more." * (not collapsed)
    return f"{who}: what it plays is as varied as {_list([first, *(f'as {other}' for other in others)])}.{asks}"


def _given_back(found: Results) -> str:
    study, main = found.study, found.verdict
    if main.verdict == "not tested":
        reason = verdict.untested(study, found.systems)
        return f"What the adversary gives back was not tested: {reason}."
    pair = _comparison(found, PRIMARY)
    assert pair is not None  # an outcome is of one
    gained, n = pair.paired.difference.mean, pair.paired.difference.n
    if not math.isfinite(gained) or not math.isfinite(main.lost):
        return "What the adversary gave back cannot be said: the variety of a policy is not defined."
    pairs, who = f"{n} pair{'s' * (n > 1)} of runs", _with(main.system, study)
    change = f"{number(abs(gained), 2)} {'more' if gained > 0 else 'less'} {who} than {_with(BASELINE, study)}"
    p = f"p = {pair.paired.p:.2g} over {pairs}"
    if main.verdict == "void":
        return f"There was nothing to give back: the variety is {change}."
    returned = _returned(gained, main.lost)
    if main.verdict == "undecided":
        few = f"{pairs} {'are' if n > 1 else 'is'} too few to rule out an accident ({ENOUGH_PAIRS} are the fewest)"
        if gained > 0:
            return f"The adversary gave back {returned}, but {few}."
        return f"The adversary gave nothing back: the variety is {change}, but {few}."
    if main.verdict == "passed":
        return f"The adversary gave back {returned}: such a difference is rarely an accident ({p})."
    if gained > 0:
        return (
            f"It was not shown that the adversary gives anything back: the variety is {change}, which may be an "
            f"accident ({p})."
        )
    return f"The adversary gave nothing back: the variety is {change} ({p})."


def _returned(gained: float, lost: float) -> str:
    """What came back, of what λ = 0 had lost."""
    part = f"{number(gained, 2)} of the {number(lost, 2)} that were lost without it"
    return f"{part} ({gained / lost:.0%})".replace("%", "\u00a0%")


def _cost(found: Results) -> str:
    study, domain = found.study, found.study.domain
    chance = describe(domain.metrics, domain.quality).chance
    known = {s: v for s in (*_told(study), "mle") if math.isfinite(v := _mean(found, s, domain.quality))}
    if not any(arm in known for arm in study.arms):
        return f"What it cost is not known: quality ({domain.quality_in_words}) was not measured on {_dataset(found)}."
    by_chance = {s: _mean(found, s, chance) for s in known}
    values = [
        f"{_amount(found, value)} {_at(s, study)}"
        + f" ({_amount(found, by_chance[s])} by chance)" * math.isfinite(by_chance[s])
        for s, value in known.items()
    ]
    at_chance = [_at(s, study) for s in known if known[s] <= by_chance[s]]
    tail = f"; no better than chance {_list(at_chance)}" if at_chance else ""
    return f"{_cost_in_short(found)}: {_list(values)}{tail}."


def _cost_in_short(found: Results) -> str:
    domain, pair = found.study.domain, _comparison(found, found.study.domain.quality)
    quality = f"quality ({domain.quality_in_words})"
    if found.verdict.verdict == "not tested" or pair is None or not math.isfinite(pair.paired.difference.mean):
        return f"Quality ({domain.quality_in_words})"
    change = pair.paired.difference
    size = f"{number(abs(100 * change.mean), 1)} points" if _is_share(found) else number(abs(change.mean), 3)
    size += " lower" if change.mean < 0 else " higher"
    if change.ci95 is None:
        return f"In the one pair of runs {quality} is {size} with the adversary"
    if change.ci95[0] <= 0 <= change.ci95[1]:
        return f"It was not shown that the adversary costs {quality}, {size} with it, which may be an accident"
    return f"The adversary cost {'' if change.mean < 0 else 'no '}{quality}, {size} with it"


def _told(study: Study) -> list[str]:
    """The arms of the sentences: λ = 0 and the preregistered one, else all."""
    arm = results.primary_arm(study)
    return [BASELINE, arm] if arm and BASELINE in study.arms else study.arms


def _with(system: str, study: Study) -> str:
    if system == BASELINE:
        return f"without the adversary ({study.name(system)})"
    if system.startswith(ARM):
        return f"with the adversary ({study.name(system)})"
    return f"with {study.name(system)}"


def _at(system: str, study: Study) -> str:
    return BEFORE if system == "mle" else f"at {study.name(system)}"


def _comparison(found: Results, metric: str) -> Comparison | None:
    """Of the preregistered arm on the primary dataset."""
    wanted = (found.verdict.system, found.verdict.dataset, metric)
    return next((c for c in found.comparisons if (c.system, c.dataset, c.metric) == wanted), None)


def _mean(found: Results, system: str, metric: str) -> float:
    """Over seeds, on the primary dataset; NaN where it was not measured."""
    score = results.get(found.systems, system, _dataset(found), metric)
    return estimate(score.values).mean if score else math.nan


def _dataset(found: Results) -> str:
    return results.primary_dataset(found.study, found.systems)


def _is_share(found: Results) -> bool:
    return describe(found.study.domain.metrics, found.study.domain.quality).unit.startswith("share")


def _amount(found: Results, value: float) -> str:
    """A quality: per cent where it is a share."""
    return f"{number(100 * value, 1)}\u00a0%" if _is_share(found) else number(value, 3)


def _list(items: Sequence[str]) -> str:
    *first, last = items
    return f"{', '.join(first)} and {last}" if first else last
