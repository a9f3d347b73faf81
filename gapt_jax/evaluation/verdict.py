"""The answer of an ablation, by the protocol of docs/verdict.md. Pure; no files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from gapt_jax.evaluation import results
from gapt_jax.evaluation.results import BASELINE, PRIMARY, Comparison, Study, Systems
from gapt_jax.evaluation.statistics import estimate
from gapt_jax.task import Domain

LEVEL = 0.05

Answer = Literal["passed", "failed", "void", "undecided", "not tested"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Is the arm more diverse than λ = 0 on this dataset, where λ = 0 had collapsed?"""

    dataset: str
    system: str
    is_preregistered: bool
    lost: float  # independent Vendi of the MLE minus that of λ = 0
    verdict: Answer
    sentence: str


def outcomes(study: Study, systems: Systems, comparisons: Sequence[Comparison]) -> list[Outcome]:
    """The protocol for every dataset and arm; none where λ = 0 is not what the arms are compared with."""
    found = []
    for comparison in comparisons:
        dataset = comparison.dataset
        mle, base = (results.get(systems, s, dataset, PRIMARY) for s in ("mle", BASELINE))
        if comparison.metric == PRIMARY and mle and base and study.baseline == BASELINE:
            start = estimate(mle.values).mean
            lost = start - estimate(base.values).mean
            answer, reason = _judge(lost, study.domain, start, comparison)
            sentence = f"{study.name(comparison.system)} against λ\u00a0=\u00a00 on {dataset}: {answer}. {reason}"
            is_primary = comparison.system == results.primary_arm(study)
            found.append(Outcome(dataset, comparison.system, is_primary, lost, answer, sentence))
    return found


def primary(study: Study, systems: Systems, found: Sequence[Outcome]) -> Outcome:
    """The one outcome that the ablation was made for: the preregistered arm on the primary dataset."""
    dataset, arm = results.primary_dataset(study, systems), results.primary_arm(study)
    for outcome in found:
        if outcome.is_preregistered and outcome.dataset == dataset:
            return outcome
    return Outcome(dataset, arm or "", True, float("nan"), "not tested", f"Not tested: {untested(study, systems)}.")


def untested(study: Study, systems: Systems) -> str:
    """Why there is no outcome of the preregistered arm on the primary dataset."""
    dataset, arm = results.primary_dataset(study, systems), results.primary_arm(study)
    needed = [
        (study.baseline == BASELINE, f"the arms are compared with {study.name(study.baseline)}, not with λ = 0"),
        (arm is not None, "no run has a λ above 0"),
        (BASELINE in study.arms, "no run has λ = 0"),
        (results.get(systems, "mle", dataset, PRIMARY) is not None, f"the MLE has no independent Vendi on {dataset}"),
        (results.get(systems, BASELINE, dataset, PRIMARY) is not None, f"λ = 0 has no independent Vendi on {dataset}"),
    ]
    return next((text for is_met, text in needed if not is_met), "no seed is shared by λ = 0 and the arm above it")


def _judge(lost: float, domain: Domain, start: float, comparison: Comparison) -> tuple[Answer, str]:
    """Returns the answer and its evidence. Void comes first: without a collapse there was nothing to prevent."""
    pair, mean = comparison.paired, comparison.paired.difference
    if math.isnan(lost) or math.isnan(mean.mean):
        return (
            "undecided",
            "The independent Vendi of a system is undefined (nothing was played, or numbers that broke).",
        )
    change = f"λ\u00a0=\u00a00 {'lost' if lost >= 0 else 'gained'} {abs(lost):.2f} {domain.examples} against the MLE"
    collapse = domain.collapse.of(start)
    if lost < collapse:
        return (
            "void",
            f"{change}, which is no collapse (that asks for a loss of {collapse:.3g}): there was nothing to cure.",
        )
    interval = f" [95 % CI {mean.ci95[0]:+.2f}, {mean.ci95[1]:+.2f}]" if mean.ci95 else ""
    difference = f"Difference in independent Vendi {mean.mean:+.2f} {domain.examples}{interval}".replace("-", "\u2212")
    corrected = f", Holm-corrected over {comparison.family} arms {comparison.p_holm:.3g}" * (comparison.family > 1)
    pairs = f"{mean.n} pair{'s' * (mean.n > 1)}"
    evidence = f"{difference}; exact sign-flip p = {pair.p:.3g} over {pairs}{corrected}. {change}: a collapse."
    floor = min(1.0, pair.p_floor * comparison.family)
    if floor >= LEVEL:
        return (
            "undecided",
            f"{evidence} Too few pairs: no result of {pairs} could reach p < {LEVEL} (best: {floor:.3g}).",
        )
    if comparison.p_holm >= LEVEL:
        return "failed", f"{evidence} No difference was shown."
    return ("passed", evidence) if mean.mean > 0 else ("failed", f"{evidence} It is less diverse.")
