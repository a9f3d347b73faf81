"""The three sentences on top of a report, in every case that a study can end with."""

import math

import pytest

from gapt_jax.evaluation import results
from gapt_jax.evaluation.results import PRIMARY, Ablation, Run, Score, Study
from gapt_jax.report import summary
from gapt_jax.report.tables import Results
from gapt_jax.tasks.accompaniment.domain import DOMAIN as SONGS
from gapt_jax.tasks.turn_taking.domain import DOMAIN as CONVERSATIONS

ZERO, ONE = "gapt_lambda=0", "gapt_lambda=1"
WITH, WITHOUT = "with the adversary (λ = 1)", "without the adversary (λ = 0)"


def told(values, seeds=6, domain=SONGS, baseline=None, chance=0.28):
    """The sentences of a study: system -> (independent Vendi, quality) on one dataset; arms have so many seeds."""
    arms = [system for system in values if system not in ("data", "mle")]
    runs = [
        Run(f"{arm}-{seed}", seed, 1.0, 0, {}, {}, {"arm": arm}, [], {}, domain, None, [], {})
        for arm in arms
        for seed in range(seeds)
    ]
    ablations = [Ablation("", "", "", baseline, {arm: arm for arm in arms}, {}, [], {})] if baseline else []
    systems = {}
    for system, (vendi, quality) in values.items():
        metrics = {PRIMARY: vendi, domain.quality: quality, f"{domain.quality}_chance": chance}
        scores = {
            name: Score(
                {s: v + 0.001 * (s - (seeds - 1) / 2) * (system == ONE) for s in range(seeds if system in arms else 1)},
                100,
            )
            for name, v in metrics.items()
            if v is not None
        }
        systems[system] = {"in/test": scores}
    study = Study(runs, ablations)
    found = Results(study, systems, results.compare(study, systems))
    return [sentence.replace("\u00a0", " ") for sentence in summary.sentences(found)], found.verdict.verdict


def test_a_verdict_that_passed():
    found, verdict = told({"data": (6.9, 0.7), "mle": (6.8, 0.4), ZERO: (3.5, 0.55), ONE: (6.3, 0.42)})
    assert verdict == "passed"
    assert found == [
        f"The policy collapsed {WITHOUT}, not {WITH}: what it plays is as varied "
        "as 3.50 entirely different songs at λ = 0, as 6.30 at λ = 1, as 6.80 before post-training and as 6.90 in the "
        "data.",
        "The adversary gave back 2.80 of the 3.30 that were lost without it (85 %): such a difference is rarely an "
        "accident (p = 0.031 over 6 pairs of runs).",
        "The adversary cost quality (melody that is in the chord), 13.0 points lower with it: 55.0 % at λ = 0 (28.0 % "
        "by chance), 42.0 % at λ = 1 (28.0 % by chance) and 40.0 % before post-training (28.0 % by chance).",
    ]


def test_quality_that_rose_is_no_cost_and_chance_is_named():
    found, _ = told({"mle": (6.8, 0.27), ZERO: (3.5, 0.2), ONE: (7.3, 0.4)})
    assert found[2].startswith(
        "The adversary cost no quality (melody that is in the chord), 20.0 points higher with it:"
    )
    assert found[2].endswith("; no better than chance at λ = 0 and before post-training.")
    assert "3.80 of the 3.30 that were lost without it (115 %)" in found[1]


@pytest.mark.parametrize(
    ("one", "seeds", "expected", "words"),
    [
        (3.4, 6, "failed", f"The adversary gave nothing back: the variety is 0.10 less {WITH} than {WITHOUT} (p = "
         "0.031 over 6 pairs of runs)."),
        (6.3, 3, "undecided", "The adversary gave back 2.80 of the 3.30 that were lost without it (85 %), but 3 pairs "
         "of runs are too few to rule out an accident (6 are the fewest)."),
        (6.3, 1, "undecided", "but 1 pair of runs is too few to rule out an accident (6 are the fewest)."),
        (3.0, 1, "undecided", f"The adversary gave nothing back: the variety is 0.50 less {WITH} than {WITHOUT}, but"),
        (math.nan, 6, "undecided", "What the adversary gave back cannot be said: the variety of a policy is not "
         "defined."),
    ],
)  # fmt: skip
def test_what_came_back(one, seeds, expected, words):
    found, verdict = told({"mle": (6.8, 0.3), ZERO: (3.5, 0.5), ONE: (one, 0.4)}, seeds)
    assert verdict == expected and words in found[1]
    assert ("collapsed without the adversary (λ = 0) and with" in found[0]) == (one < 4)


def test_a_gain_that_may_be_an_accident():
    """Of six pairs half are better: no test can tell."""
    study = {"mle": (6.8, 0.3), ZERO: (3.5, 0.5), ONE: (3.501, 0.4995)}
    found, verdict = told(study)
    assert verdict == "failed" and found[1].startswith("It was not shown that the adversary gives anything back: ")
    assert "0.00 more with the adversary (λ = 1)" in found[1] and "which may be an accident (p = " in found[1]
    assert found[2].startswith("It was not shown that the adversary costs quality (melody that is in the chord), ")


def test_without_a_collapse_there_is_nothing_to_give_back():
    found, verdict = told({"mle": (6.8, 0.3), ZERO: (6.5, 0.5), ONE: (6.6, 0.4)})
    assert verdict == "void"
    assert found[0].startswith(
        "The policy collapsed neither without the adversary (λ = 0) nor with the adversary (λ = 1)"
    )
    assert found[0].endswith(" A collapse is a loss of 0.8 or more.")
    assert found[1].startswith("There was nothing to give back: the variety is 0.10 more with the adversary (λ = 1)")


def test_one_pair_of_runs_has_no_interval():
    found, _ = told({"mle": (6.8, 0.3), ZERO: (3.5, 0.55), ONE: (6.3, 0.42)}, seeds=1)
    assert found[2].startswith(
        "In the one pair of runs quality (melody that is in the chord) is 13.0 points lower with"
    )


@pytest.mark.parametrize(
    ("arm", "vendi", "first", "second"),
    [
        (ONE, 6.3, f"The policy did not collapse {WITH}: what it plays is as varied as 6.30 entirely different songs "
         "at λ = 1 and as 6.80 before post-training.", "no run has λ = 0."),
        (ONE, 3.0, "The policy collapsed with the adversary (λ = 1): ", "no run has λ = 0."),
        (ZERO, 3.0, "The policy collapsed without the adversary (λ = 0): ", "no run has a λ above 0."),
    ],
)  # fmt: skip
def test_one_run_alone(arm, vendi, first, second):
    found, verdict = told({"mle": (6.8, 0.3), arm: (vendi, 0.42)}, seeds=1)
    assert verdict == "not tested" and found[0].startswith(first)
    assert found[1] == f"What the adversary gives back was not tested: {second}"
    assert found[2].startswith("Quality (melody that is in the chord): 42.0 % at λ = ")


def test_arms_that_are_no_weights_are_all_named():
    arms = {"form=log": (3.0, 0.5), "form=gan": (6.5, 0.4)}
    found, _ = told({"mle": (6.8, 0.3), **arms}, baseline="form=log")
    assert found[0].startswith("The policy collapsed with form=log, not with form=gan: what it plays")
    assert found[1].endswith("the arms are compared with form=log, not with λ = 0.")
    assert "50.0 % at form=log" in found[2] and "40.0 % at form=gan" in found[2]


def test_what_was_not_measured_is_said():
    found, _ = told({ZERO: (3.0, None), ONE: (6.0, None)})
    assert found == [
        "Who collapsed is not known: on in/test the variety of the policy before post-training is not measured or not "
        "defined.",
        "What the adversary gives back was not tested: the MLE has no independent Vendi on in/test.",
        "What it cost is not known: quality (melody that is in the chord) was not measured on in/test.",
    ]
    found, _ = told({"mle": (6.0, 0.3), ZERO: (math.nan, 0.5), ONE: (math.nan, 0.4)})
    assert found[0].startswith("Who collapsed is not known: on in/test the variety of the policies")


def test_a_value_without_chance():
    found, _ = told({"mle": (6.8, 0.3), ONE: (6.3, 0.42)}, seeds=1, chance=None)
    assert found[2] == "Quality (melody that is in the chord): 42.0 % at λ = 1 and 30.0 % before post-training."


def test_the_words_are_those_of_the_task():
    values = {"mle": (6.8, 0.3), ZERO: (3.5, 0.55), ONE: (6.3, 0.42)}
    text = " ".join(told(values, domain=CONVERSATIONS)[0])
    assert "entirely different conversations" in text and "quality (speech while others are silent)" in text
    assert not any(word in text for word in ("song", "melody", "chord"))
