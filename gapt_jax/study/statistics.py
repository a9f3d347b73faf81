"""A user study: participants rate systems (docs/study.md). Its sample are participants; ratings of one participant
are averaged first and never counted as independent. Pure; no files."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import stats

from gapt_jax.evaluation.statistics import (
    ENOUGH_PAIRS,
    Estimate,
    PairedDifference,
    estimate,
    holm,
    paired_difference,
    reachable,
    sign_flip_floor,
)

LEVEL = 0.05
Cell = tuple[str, str]  # participant, system
Key = TypeVar("Key", bound=Hashable)


class Rating(NamedTuple):
    """One answer."""

    participant: str
    system: str
    question: str
    score: float  # higher is better
    order: int | None  # position of the system in the participant's session, from 1
    repeat: int  # 1 for the first answer to the same question


class SystemMean(NamedTuple):
    """One system's participants."""

    question: str | None  # None: all questions
    system: str
    mean: Estimate  # over participants
    sd: float  # over participants; NaN for one
    by_participant: dict[str, float]


class Pair(NamedTuple):
    """a - b over the participants that rated both."""

    question: str | None
    a: str
    b: str
    paired: PairedDifference
    left_out: int  # participants that rated a or b, but not both, or not every question of both
    p_t_holm: float
    p_wilcoxon_holm: float


class OrderEffect(NamedTuple):
    """Does a score depend on when it was given?"""

    by_position: dict[int, Estimate]  # participants' mean scores at each position
    mean_position: dict[str, float]  # of each system; alike where the design is balanced
    slope: PairedDifference  # points per position within a participant, against 0


class Retest(NamedTuple):
    """Agreement of first and second answers of one participant to one question on one system."""

    answers: int  # that were given twice
    participants: int
    icc: float  # one-way intraclass correlation ICC(1), Shrout & Fleiss 1979
    mean_absolute_difference: float
    drift: PairedDifference  # second minus first, participants' means


class Study(NamedTuple):
    """What the ratings say."""

    participants: list[str]
    systems: list[str]
    questions: list[str]
    ratings: int
    means: list[SystemMean]
    pairs: list[Pair]
    order: OrderEffect | None
    retest: Retest | None
    warnings: list[str]


def analyse(ratings: Sequence[Rating]) -> Study:
    """Means by system, paired tests of all systems, effects of order, reliability."""
    participants = list(dict.fromkeys(rating.participant for rating in ratings))  # in order of appearance
    systems = list(dict.fromkeys(rating.system for rating in ratings))
    questions = list(dict.fromkeys(rating.question for rating in ratings))
    by_question = {name: _cells(r for r in ratings if r.question == name) for name in questions}
    tables: dict[str | None, dict[Cell, float]] = {name: by_question[name] for name in questions}
    if len(questions) > 1:
        tables[None] = _complete(list(by_question.values()))
    means = [_mean(question, system, cells) for question, cells in tables.items() for system in systems]
    rated = {question: _who(r for r in ratings if question in (None, r.question)) for question in tables}
    pairs = [
        _pair(question, a, b, cells, rated[question])
        for question, cells in tables.items()
        for a, b in itertools.combinations(systems, 2)
    ]
    pairs = _corrected([p for p in pairs if p.question is not None]) + _corrected(
        [p for p in pairs if p.question is None]
    )
    order, retest = order_effect(ratings), retest_reliability(ratings)
    found = _warnings(participants, systems, pairs)
    if order is None and any(rating.order is not None for rating in ratings):
        found.append(
            "every system was always played at the same position, or fewer than two participants have scores at two "
            "positions: an effect of order cannot be told"
        )
    return Study(participants, systems, questions, len(ratings), means, pairs, order, retest, found)


def order_effect(ratings: Sequence[Rating]) -> OrderEffect | None:
    """The slope of scores over positions, one per participant, tested against 0 by paired t and Wilcoxon.

    The mean of its system and question is taken off each score before. In a balanced design that removes nothing of
    the slope, otherwise a part of it. None without positions, where each system has a single one, and with fewer than
    two participants that have more than one."""
    placed = [rating for rating in ratings if rating.order is not None]
    positions = _grouped((r.system, float(r.order or 0)) for r in placed)
    if all(len(set(found)) == 1 for found in positions.values()):
        return None
    centre = {
        key: float(np.mean(scores))
        for key, scores in _grouped(((r.system, r.question), r.score) for r in placed).items()
    }
    scores = _grouped(((r.participant, int(r.order or 0)), r.score) for r in placed)
    adjusted = _grouped(((r.participant, int(r.order or 0)), r.score - centre[r.system, r.question]) for r in placed)
    slopes = []
    for participant in dict.fromkeys(r.participant for r in placed):
        points = [
            (position, float(np.mean(found))) for (who, position), found in adjusted.items() if who == participant
        ]
        if len(points) > 1:
            slopes.append(float(stats.linregress(*np.array(points).T).slope))
    if len(slopes) < 2:
        return None
    by_position = _grouped((position, float(np.mean(found))) for (_, position), found in scores.items())
    return OrderEffect(
        {position: estimate(by_position[position]) for position in sorted(by_position)},
        {system: float(np.mean(found)) for system, found in positions.items()},
        paired_difference(slopes, [0.0] * len(slopes)),
    )


def retest_reliability(ratings: Sequence[Rating]) -> Retest | None:
    """Agreement of the two lowest repeats of each answer; None where nothing was asked twice."""
    cells: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for rating in ratings:
        cells[rating.participant, rating.system, rating.question][rating.repeat] = rating.score
    twice = {key: [found[i] for i in sorted(found)[:2]] for key, found in cells.items() if len(found) > 1}
    if not twice:
        return None
    scores = np.array(list(twice.values()))
    drift = _grouped((who, second - first) for (who, _, _), (first, second) in twice.items())
    means = [float(np.mean(found)) for found in drift.values()]
    return Retest(
        len(twice),
        len(drift),
        intraclass_correlation(scores),
        float(np.mean(np.abs(scores[:, 1] - scores[:, 0]))),
        paired_difference(means, [0.0] * len(means)),
    )


def intraclass_correlation(scores: np.ndarray) -> float:
    """ICC(1) of scores [n, k], k answers to each of n things: (MSB - MSW) / (MSB + (k - 1) MSW); NaN where all scores
    are equal or n < 2 (Shrout & Fleiss 1979)."""
    n, k = scores.shape
    if n < 2 or np.ptp(scores) == 0:
        return float("nan")
    between = k * scores.mean(1).var(ddof=1)
    within = scores.var(1, ddof=1).mean()
    return float((between - within) / (between + (k - 1) * within))


def _grouped(items: Iterable[tuple[Key, float]]) -> dict[Key, list[float]]:
    groups: dict[Key, list[float]] = defaultdict(list)
    for key, value in items:
        groups[key].append(value)
    return groups


def _cells(ratings: Iterable[Rating]) -> dict[Cell, float]:
    """Mean over repeats, by participant and system."""
    groups = _grouped(((r.participant, r.system), r.score) for r in ratings)
    return {cell: float(np.mean(scores)) for cell, scores in groups.items()}


def _complete(tables: Sequence[dict[Cell, float]]) -> dict[Cell, float]:
    """Mean over questions of the cells that every question has: no mean speaks of easier questions than another."""
    return {cell: float(np.mean([t[cell] for t in tables])) for cell in tables[0] if all(cell in t for t in tables)}


def _who(ratings: Iterable[Rating]) -> set[Cell]:
    return {(rating.participant, rating.system) for rating in ratings}


def _mean(question: str | None, system: str, cells: dict[Cell, float]) -> SystemMean:
    own = {participant: score for (participant, of), score in cells.items() if of == system}
    scores = list(own.values())
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else float("nan")
    return SystemMean(question, system, estimate(scores), sd, own)


def _pair(question: str | None, a: str, b: str, cells: dict[Cell, float], rated: set[Cell]) -> Pair:
    both = [who for who, system in cells if system == a and (who, b) in cells]
    anyone = {who for who, system in rated if system in (a, b)}
    paired = paired_difference([cells[who, a] for who in both], [cells[who, b] for who in both])
    return Pair(question, a, b, paired, len(anyone) - len(both), paired.p_t, paired.p_wilcoxon)


def _corrected(family: Sequence[Pair]) -> list[Pair]:
    """Holm over one family of tests. Pairs without participants are no tests."""
    tested = [pair.paired if pair.paired.difference.n > 1 else None for pair in family]
    p_t = holm([test.p_t if test else float("nan") for test in tested])
    p_wilcoxon = holm([test.p_wilcoxon if test else float("nan") for test in tested])
    return [pair._replace(p_t_holm=t, p_wilcoxon_holm=w) for pair, t, w in zip(family, p_t, p_wilcoxon, strict=True)]


def _warnings(participants: Sequence[str], systems: Sequence[str], pairs: Sequence[Pair]) -> list[str]:
    found = []
    if len(systems) < 2:
        found.append("there is one system only, so that nothing is compared")
    counts = Counter(pair.paired.difference.n for pair in pairs)
    if pairs and (sentence := reachable(fewest := min(counts)).sentence):
        found.append(f"{sentence} ({counts[fewest]} of {len(pairs)} comparisons have so few participants)")
    for name, family in (
        ("questions", [pair for pair in pairs if pair.question is not None]),
        ("means of all questions", [pair for pair in pairs if pair.question is None]),
    ):
        most = max((pair.paired.difference.n for pair in family), default=0)
        floor = min(1.0, sign_flip_floor(most) * len(family))
        if most >= ENOUGH_PAIRS and floor >= LEVEL:
            found.append(
                f"with {most} participants and {len(family)} comparisons of {name}, no Holm-corrected exact test can "
                f"go below p = {floor:.3g}"
            )
    if out := sum(pair.left_out > 0 for pair in pairs):
        found.append(
            f"in {out} of {len(pairs)} comparisons participants are left out, because they did not rate both systems"
        )
    return found
