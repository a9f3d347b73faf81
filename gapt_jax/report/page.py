"""The report as one HTML page: no network, light and dark. Pure; the templates escape every value."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gapt_jax.evaluation import results, verdict
from gapt_jax.evaluation.metrics import describe, titled
from gapt_jax.evaluation.results import PRIMARY
from gapt_jax.evaluation.statistics import estimate, iqm, reachable
from gapt_jax.report import alarms, curves, pareto, provenance, rewards
from gapt_jax.report.html import TEMPLATES, Cell, Table, Text, difference, digits_of, mean, number, render, table
from gapt_jax.report.summary import sentences
from gapt_jax.report.tables import Results
from gapt_jax.task import Domain

if TYPE_CHECKING:
    from gapt_jax.report.drawing import Drawn

FIGURES_OF_ARMS = ("arms", "quality_diversity")  # not with the learning curves
ARROWS = "↑ more is better, ↓ less is better, without an arrow: as in the data."


def render_report(found: Results, figures: Sequence[Drawn], pictures: Sequence[Drawn], command: str) -> str:
    """The whole page. `pictures` are those of a task's examples; `command` makes this report again."""
    study = found.study
    pages = study.domain.pages()
    scripts = [text for text in (_text("hover.js"), pages.script) if text]
    allowed = " ".join(f"'{_hash(script)}'" for script in scripts)
    sections = {
        "Results": render("results.html", **_results(found)),
        "Arms": _arms(found, [drawn for drawn in figures if drawn.name in FIGURES_OF_ARMS]),
        pages.heading: pages.section(study, pictures),
        "Learning curves": _curves(found, [drawn for drawn in figures if drawn.name not in FIGURES_OF_ARMS]),
        "Reward models": rewards.section(study),
        "In use": provenance.in_use(study),
        "Definitions": render("definitions.html", definitions=_definitions(found)),
        "Provenance": provenance.section(study, command),
    }
    return render(
        "page.html",
        title=" · ".join(dict.fromkeys(str(run.config["name"]) for run in study.runs)),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}",
        style=_text("style.css"),
        scope=_scope(found),
        sentences=sentences(found),
        **_verdict(found),
        alarms=alarms.kinds(study),
        alarm_table=alarms.by_run(study),
        warnings=found.warnings,
        sections={name: content for name, content in sections.items() if content},
        scripts=scripts,
    )


def report_command(folders: Sequence[Path], out: str) -> str:
    return shlex.join(["gapt", "report", *map(str, folders), "--out", out])


def _text(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _scope(found: Results) -> str:
    study = found.study
    seeds = [f"{study.name(arm)}: {sum(run.arm == arm for run in study.runs)}" for arm in study.arms]
    sampling = "; ".join(sorted({run.rule for run in study.runs}))
    runs = f"{len(study.runs)} run{'s' * (len(study.runs) > 1)}"
    return f"{runs} (seeds at {', '.join(seeds)}). Sampling: {sampling}, T = 1."


def _verdict(found: Results) -> dict[str, Any]:
    """The verdict with its evidence, what the other arms and datasets say, and the protocol."""
    main, domain = found.verdict, found.study.domain
    examples, collapse = domain.examples, domain.collapse
    interval, fresh = found.song_intervals.get((main.system, main.dataset, PRIMARY)), ""
    if interval:
        fresh = f"For fresh {examples} as well as fresh seeds the 95 % CI is [{interval[0]:+.2f}, {interval[1]:+.2f}]."
    protocol = (
        f"Paired difference in independent Vendi, exact sign-flip test at {verdict.LEVEL}; λ = 1 (else the "
        "largest λ) against λ = 0 is the preregistered comparison; void unless λ = 0 lost at least "
        f"{collapse}{f' {examples}' * (not collapse.is_share)} against the MLE. Other arms are secondary and "
        "Holm-corrected."
    )
    others = [outcome for outcome in found.outcomes if outcome is not main]
    return {"verdict": main, "fresh": fresh.replace("-", "\u2212"), "others": others, "protocol": protocol}


def _results(found: Results) -> dict[str, Any]:
    return {
        "datasets": [_dataset(found, dataset) for dataset in results.datasets(found.systems)],
        "baseline": found.study.name(found.study.baseline),
        "published": _published(found.study.domain),
    }


def _dataset(found: Results, dataset: str) -> dict[str, Any]:
    """The headline metrics, the primary metric with its statistics, and everything else, to be folded away."""
    systems, domain = found.systems, found.study.domain
    measured = dict.fromkeys(m for by_dataset in systems.values() for m in by_dataset.get(dataset, {}))
    ordered = [m for m in domain.metrics if m in measured] + [m for m in measured if m not in domain.metrics]
    counts = sorted({s.n_songs for d in systems.values() for s in d.get(dataset, {}).values()})
    compared = {c.metric for c in found.comparisons if c.dataset == dataset}
    return {
        "name": dataset,
        "note": (
            f"n = {'/'.join(map(str, counts))} {domain.examples}. Mean over seeds ± half of the 95 % confidence "
            f"interval (Student t); of a single seed ± half of that for fresh {domain.examples}, where each of them "
            f"was measured. Data and MLE count seeds of pre-training. {ARROWS}"
        ),
        "means": _means(found, dataset, [m for m in domain.headline if m in measured], f"Means on {dataset}"),
        **_unseen(found, dataset, max(counts)),
        "label": _label(found, PRIMARY),
        "primary": _statistics(found, dataset, PRIMARY) if PRIMARY in compared else None,
        "caption": _caption(found, dataset),
        "every_mean": _means(found, dataset, ordered, f"All means on {dataset}"),
        "others": [
            (_label(found, m), _statistics(found, dataset, m)) for m in ordered if m in compared and m != PRIMARY
        ],
    }


def _unseen(found: Results, dataset: str, songs: int) -> dict[str, Any]:
    """How many of the songs training hears too, and the means without them where there are some."""
    domain, blocks = found.study.domain, [run.evaluation.get("unseen", {}).values() for run in found.study.runs]
    measured = [sets[dataset] for systems in blocks for sets in systems if dataset in sets]
    if not measured:
        return {"seen": "", "without_seen": None}
    left = min((entry["n_songs"] for metrics in measured for entry in metrics.values()), default=0)
    share = number(100 * (songs - left) / songs, 1)
    return {
        "seen": f"{songs - left} of the {songs} {domain.examples} ({share} %) {domain.seen_in_words}.",
        "without_seen": _means(
            dataclasses.replace(found, systems=found.unseen),
            dataset,
            [m for m in domain.headline if any(m in metrics for metrics in measured)],
            f"Means on {dataset} without what training hears too, n = {left}",
            has_intervals=False,
        )
        if 0 < left < songs
        else None,
    }


def _means(found: Results, dataset: str, metrics: Sequence[str], caption: str, has_intervals: bool = True) -> Table:
    """A row per metric, a column per system; of a single seed with its interval for fresh songs, where it has one."""
    shown = [system for system in found.systems if found.systems[system].get(dataset)]
    head: list[Text] = ["Metric", *(Cell(found.study.name(s), _seeds(found, s, dataset), "below") for s in shown)]
    rows = []
    for metric in metrics:
        scores = [results.get(found.systems, system, dataset, metric) for system in shown]
        estimates = [estimate(score.values) if score else None for score in scores]
        digits = digits_of([e.mean for e in estimates if e])
        of_songs = [found.one_seed_intervals.get((s, dataset, metric)) if has_intervals else None for s in shown]
        cells = [mean(e, digits, own) if e else "" for e, own in zip(estimates, of_songs, strict=True)]
        rows.append([_label(found, metric), *cells])
    return Table(caption, head, rows)


def _seeds(found: Results, system: str, dataset: str) -> str:
    n = max(len(score.by_seed) for score in found.systems[system][dataset].values())
    return f"{n} seed{'s' * (n > 1)}"


def _statistics(found: Results, dataset: str, metric: str) -> Table:
    """One metric with all its statistics: a row per system."""
    pairs = {c.system: c for c in found.comparisons if (c.dataset, c.metric) == (dataset, metric)}
    head = ["System", "Mean", "IQM", "Seeds", "Difference [95 % CI]", "Pairs", "p sign-flip", "p Holm", "p Wilcoxon",
            "p t-test", "Effect g", "Better pairs"]  # fmt: skip
    rows = []
    for system in found.systems:
        if score := results.get(found.systems, system, dataset, metric):
            value, digits, key = estimate(score.values), digits_of(score.values), (system, dataset, metric)
            row: list[Text] = [
                found.study.name(system),
                mean(value, digits, found.one_seed_intervals.get(key)),
                number(iqm(score.values), digits),
                str(value.n),
            ]
            if pair := pairs.get(system):
                one, own = pair.paired, found.one_pair_intervals.get(key)
                row += [difference(one.difference, digits, own), str(one.difference.n)]
                if one.difference.n > 1:
                    row += [number(v, 3) for v in (one.p, pair.p_holm, one.p_wilcoxon, one.p_t)]
                    row += [number(one.effect_size, 2), f"{number(100 * one.improvement, 0)} %"]
            rows.append(row + [""] * (len(head) - len(row)))
    return table(f"{describe(found.study.domain.metrics, metric).label} on {dataset}", head, rows)


def _caption(found: Results, dataset: str) -> str:
    here = [c for c in found.comparisons if c.dataset == dataset]
    if not here:
        return "No arm shares a seed with the baseline: nothing is compared." if found.study.arms[1:] else ""
    n = min(c.paired.difference.n for c in here)
    floor = reachable(n).sentence
    if n == 1:
        fresh = f"its 95 % interval, where there is one, is for fresh {found.study.domain.examples}"
        return f"Difference: arm minus baseline of the same seed; {fresh}. Mind: {floor}."
    arm = results.primary_arm(found.study)
    own = f" except the preregistered {found.study.name(arm)}, whose p stands as it is" if arm else ""
    return (
        "Difference: arm minus baseline of the same seed. p: two-sided. Sign-flip is exact; Holm corrects it over the "
        f"arms of one metric and data set{own}. Effect: Hedges' g of the paired differences. Better pairs: share in "
        "which the arm has the greater value. IQM: interquartile mean." + (f" Mind: {floor}." if floor else "")
    )


def _arms(found: Results, figures: Sequence[Drawn]) -> str:
    """What the arms change, who is on the Pareto front, hypervolumes, and Vendi at matched quality."""
    domain, quality = found.study.domain, pareto.label_of(found.study)
    front, matched = _front(found), _matched(found)
    if not (figures or front or matched):
        return ""
    return render(
        "arms.html",
        figures=figures,
        front=front,
        front_note=(
            f"Means over seeds. Hypervolume: area dominated above {quality} 0 and a Vendi of 1, in "
            f"{describe(domain.metrics, domain.quality).unit} × {domain.examples}."
        ),
        matched=matched,
        matched_note=(
            f"Along the learning curves on the valid split: the mean over the levels of {quality} that both runs of "
            "a pair reach, arm minus baseline. Secondary; not corrected."
        ),
    )


def _front(found: Results) -> Table | None:
    study, rows = found.study, []
    for dataset in results.datasets(found.systems):
        placed, front = pareto.points(found, dataset), pareto.front(found, dataset)
        for arm, (x, y) in placed.items():
            is_on = ("yes" if arm in front else "no") if len(placed) > 1 else ""
            area = number(pareto.area(found, dataset, [arm]), 2)
            rows.append([f"{dataset}, {study.name(arm)}", number(x, 3), number(y, 2), is_on, area])
        if len(placed) > 1:
            area = number(pareto.area(found, dataset, placed), 2)
            rows.append([f"{dataset}, all arms together", "", "", "", area])
    head: list[Text] = [
        "Arm",
        _label(found, study.domain.quality),
        Cell("Independent Vendi ↑", study.domain.examples),
        "On the front",
        "Hypervolume ↑",
    ]
    return table("Pareto front and hypervolume", head, rows) if rows else None


def _matched(found: Results) -> Table | None:
    study = found.study
    rows = [
        [study.name(arm), difference(pair.difference, 2), str(pair.difference.n), number(pair.p, 3)]
        for arm, pair in pareto.at_matched_quality(study).items()
    ]
    head: list[Text] = [
        "Arm",
        Cell("Difference in Vendi", f"{study.domain.examples} [95 % CI]"),
        "Pairs",
        "p sign-flip",
    ]
    return table(f"Vendi at matched {pareto.label_of(study)}", head, rows) if rows else None


def _curves(found: Results, figures: Sequence[Drawn]) -> str:
    study = found.study
    rows: list[list[Text]] = []
    for key, value in found.constants.items():
        title, unit = curves.title(key, study.domain)
        rows.append([Cell(title, unit), number(value, digits_of([value]))])
    constant = table("What never changed", ["Quantity", "Value throughout"], rows) if rows else None
    return render("curves.html", figures=figures, constant=constant) if figures or constant else ""


def _label(found: Results, metric: str) -> Cell:
    metrics = found.study.domain.metrics
    return Cell(titled(metrics, metric), describe(metrics, metric).unit)


def _published(domain: Domain) -> Table | None:
    return Table("Published results", domain.published[0], domain.published[1:]) if domain.published else None


def _definitions(found: Results) -> Table:
    equal = f" Compare at equal numbers of {found.study.domain.examples} only."
    measured = {m for datasets in found.systems.values() for metrics in datasets.values() for m in metrics}
    rows = [
        [Cell(m.label, m.unit), m.better, m.explanation + equal * m.depends_on_n]
        for m in (about for name, about in found.study.domain.metrics.items() if name in measured)
    ]
    return Table("Definitions", ["Metric", "Better", "Definition"], rows, is_numeric=False)
