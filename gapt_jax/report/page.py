"""The report as one HTML page: no network, light and dark. Pure text; every value is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from gapt_jax.evaluation import results, verdict
from gapt_jax.evaluation.metrics import describe
from gapt_jax.evaluation.results import PRIMARY
from gapt_jax.evaluation.statistics import estimate, iqm, reachable
from gapt_jax.report import pareto, provenance
from gapt_jax.report.html import STYLE, details, difference, digits_of, figure, mean, note, number, table
from gapt_jax.report.tables import Results
from gapt_jax.task import Domain

if TYPE_CHECKING:
    from gapt_jax.report.figures import Drawn


def render(found: Results, figures: Sequence[Drawn], rolls: Sequence[Drawn], command: str) -> str:
    """The whole page. `rolls` are the pictures of songs; `command` makes this report again."""
    study, domain = found.study, found.study.domain
    pages = domain.pages()
    title = " · ".join(dict.fromkeys(str(run.config["name"]) for run in study.runs))
    named = {drawn.name: drawn for drawn in figures}
    first = [figure(named.pop(name)) for name in ("arms", "quality_diversity") if name in named]
    parts = {
        "Results": "".join(_dataset(found, dataset) for dataset in results.datasets(found.systems))
        + _published(domain),
        "Arms": "".join(first) + _trade_off(found),
        pages.heading: pages.section(study, rolls),
        "Learning curves": "".join(f"<h3>{escape(d.title)}</h3>{figure(d)}" for d in named.values()),
        "In use": provenance.in_use(study),
        "Definitions": _definitions(found),
        "Provenance": provenance.section(study, command),
    }
    shown = {name: content for name, content in parts.items() if content}
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in shown)
    body = [
        f"<header><h1>{escape(title)}</h1>{note(_scope(found))}</header>",
        _verdict(found),
        *(f'<p class="warning">{escape(sentence)}</p>' for sentence in found.warnings),
        f'<nav aria-label="Sections">{links}</nav><main>',
        *(f'<section id="{_anchor(n)}"><h2>{n}</h2>{content}</section>' for n, content in shown.items()),
        "</main>",
        pages.script(study),
    ]
    allowed = f"'{pages.script_hash}'" if pages.script_hash else "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: report</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def report_command(folders: Sequence[Path], out: str) -> str:
    return shlex.join(["gapt", "report", *map(str, folders), "--out", out])


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _scope(found: Results) -> str:
    study = found.study
    seeds = [f"{study.name(arm)}: {sum(run.arm == arm for run in study.runs)}" for arm in study.arms]
    sampling = ", ".join(sorted({str(run.evaluation["sampling"]) for run in study.runs}))
    runs = f"{len(study.runs)} run{'s' * (len(study.runs) > 1)}"
    return f"{runs} (seeds at {', '.join(seeds)}). Sampling: {sampling}, T = 1."


def _verdict(found: Results) -> str:
    """One sentence with its evidence, then what the other arms and datasets say."""
    main, domain = found.verdict, found.study.domain
    examples, collapse = domain.examples, domain.collapse
    lines = [f'<p class="verdict"><strong>{main.verdict}</strong></p><p>{escape(main.sentence)}</p>']
    interval = found.song_intervals.get((main.system, main.dataset, PRIMARY))
    if interval:
        text = f"For fresh {examples} as well as fresh seeds the 95 % CI is [{interval[0]:+.2f}, {interval[1]:+.2f}]."
        lines.append(f"<p>{escape(text)}</p>".replace("-", "\u2212"))
    others = [outcome for outcome in found.outcomes if outcome is not main]
    if others:
        items = "".join(f"<li>{escape(outcome.sentence)}</li>" for outcome in others)
        lines.append(details(f"The other arms and data sets ({len(others)})", f"<ul>{items}</ul>"))
    protocol = (
        f"Protocol: paired difference in independent Vendi, exact sign-flip test at {verdict.LEVEL}; λ = 1 (else the "
        "largest λ) against λ = 0 is the preregistered comparison; void unless λ = 0 lost at least "
        f"{collapse}{f' {examples}' * (not collapse.is_share)} against the MLE. Other arms are secondary and "
        "Holm-corrected."
    )
    return f'<div class="outcome">{"".join(lines)}{note(protocol)}</div>'


def _dataset(found: Results, dataset: str) -> str:
    """The headline metrics, the primary metric with its statistics, and everything else folded away."""
    systems, described = found.systems, found.study.domain.metrics
    measured = dict.fromkeys(m for by_dataset in systems.values() for m in by_dataset.get(dataset, {}))
    ordered = [m for m in described if m in measured] + [m for m in measured if m not in described]
    counts = sorted({s.n_songs for d in systems.values() for s in d.get(dataset, {}).values()})
    songs = f"n = {'/'.join(map(str, counts))} {found.study.domain.examples}"
    all_metrics = _means(found, dataset, ordered) + "".join(
        f"<h4>{_label(found, m)}</h4>{_statistics(found, dataset, m)}" for m in ordered if m != PRIMARY
    )
    parts = [
        f"<h3>{escape(dataset)}</h3>",
        note(
            f"{songs}. Mean over seeds ± half of the 95 % confidence interval (Student t); no interval for a single "
            "seed. Data and MLE count seeds of pre-training."
        ),
        _means(found, dataset, [m for m in found.study.domain.headline if m in measured]),
        f"<h4>{_label(found, PRIMARY)}, against {escape(found.study.name(found.study.baseline))}</h4>"
        if PRIMARY in measured
        else "",
        _statistics(found, dataset, PRIMARY) if PRIMARY in measured else "",
        _caption(found, dataset),
        details("All metrics", all_metrics),
    ]
    return "".join(parts)


def _means(found: Results, dataset: str, metrics: Sequence[str]) -> str:
    """A row per metric, a column per system."""
    shown = [system for system in found.systems if found.systems[system].get(dataset)]
    head = ["Metric", *(f"{escape(found.study.name(s))}{_seeds(found, s, dataset)}" for s in shown)]
    rows = []
    for metric in metrics:
        scores = [results.get(found.systems, system, dataset, metric) for system in shown]
        estimates = [estimate(score.values) if score else None for score in scores]
        digits = digits_of([e.mean for e in estimates if e])
        rows.append([_label(found, metric), *(mean(e, digits) if e else "" for e in estimates)])
    return table(head, rows, f"Means on {dataset}")


def _seeds(found: Results, system: str, dataset: str) -> str:
    n = max(len(score.by_seed) for score in found.systems[system][dataset].values())
    return f"<br><small>{n} seed{'s' * (n > 1)}</small>"


def _statistics(found: Results, dataset: str, metric: str) -> str:
    """One metric with all its statistics: a row per system."""
    pairs = {c.system: c for c in found.comparisons if (c.dataset, c.metric) == (dataset, metric)}
    head = ["System", "Mean", "IQM", "Seeds", "Difference [95 % CI]", "Pairs", "p sign-flip", "p Holm", "p Wilcoxon",
            "p t-test", "Effect g", "Better pairs"]  # fmt: skip
    rows = []
    for system in found.systems:
        if score := results.get(found.systems, system, dataset, metric):
            value, digits = estimate(score.values), digits_of(score.values)
            row = [
                escape(found.study.name(system)),
                mean(value, digits),
                number(iqm(score.values), digits),
                str(value.n),
            ]
            if pair := pairs.get(system):
                one = pair.paired
                p = [number(v, 3) for v in (one.p, pair.p_holm, one.p_wilcoxon, one.p_t)]
                row += [difference(one.difference, digits), str(one.difference.n), *p, number(one.effect_size, 2),
                        f"{number(100 * one.improvement, 0)} %"]  # fmt: skip
            rows.append(row + [""] * (len(head) - len(row)))
    return table(head, rows, f"{describe(found.study.domain.metrics, metric).label} on {dataset}")


def _caption(found: Results, dataset: str) -> str:
    here = [c for c in found.comparisons if c.dataset == dataset]
    if not here:
        return note("No arm shares a seed with the baseline: nothing is compared.")
    n = min(c.paired.difference.n for c in here)
    floor = reachable(n).sentence
    arm = results.primary_arm(found.study)
    own = f" except the preregistered {found.study.name(arm)}, whose p stands as it is" if arm else ""
    return note(
        "Difference: arm minus baseline of the same seed. p: two-sided. Sign-flip is exact; Holm corrects it over the "
        f"arms of one metric and data set{own}. Effect: Hedges' g of the paired differences. Better pairs: share in "
        "which the arm has the greater value. IQM: interquartile mean." + (f" Mind: {floor}." if floor else "")
    )


def _trade_off(found: Results) -> str:
    """Who is on the Pareto front, hypervolumes, and Vendi at matched quality."""
    study, rows = found.study, []
    about = describe(study.domain.metrics, study.domain.quality)
    quality, label, unit = (escape(text) for text in (pareto.label_of(study), about.label, about.unit))
    examples = escape(study.domain.examples)
    for dataset in results.datasets(found.systems):
        placed, front = pareto.points(found, dataset), pareto.front(found, dataset)
        for arm, (x, y) in placed.items():
            is_on = "yes" if arm in front else "no"
            area = number(pareto.area(found, dataset, [arm]), 2)
            rows.append([f"{escape(dataset)}, {escape(study.name(arm))}", number(x, 3), number(y, 2), is_on, area])
        if len(placed) > 1:
            area = number(pareto.area(found, dataset, placed), 2)
            rows.append([f"{escape(dataset)}, all arms together", "", "", "", area])
    head = [
        "Arm",
        f"{label} <small>{unit}</small>",
        f"Independent Vendi <small>{examples}</small>",
        "On the front",
        "Hypervolume",
    ]
    text = table(head, rows, "Pareto front and hypervolume") + note(
        f"Means over seeds. Hypervolume: area dominated above {quality} 0 and a Vendi of 1, in {unit} × {examples}."
    ) if rows else ""  # fmt: skip
    matched = pareto.at_matched_quality(study)
    if matched:
        rows = [
            [escape(study.name(arm)), difference(pair.difference, 2), str(pair.difference.n), number(pair.p, 3)]
            for arm, pair in matched.items()
        ]
        head = ["Arm", f"Difference in Vendi <small>{examples}</small> [95 % CI]", "Pairs", "p sign-flip"]
        text += f"<h3>Vendi at matched {quality}</h3>" + table(head, rows, f"Vendi at matched {quality}") + note(
            f"Along the learning curves on the valid split: the mean over the levels of {quality} that both runs of "
            "a pair reach, arm minus baseline. Secondary; not corrected."
        )  # fmt: skip
    return text


def _label(found: Results, metric: str) -> str:
    about = describe(found.study.domain.metrics, metric)
    return f"{escape(about.label)} <small>{escape(about.unit)}</small>"


def _published(domain: Domain) -> str:
    if not domain.published:
        return ""
    head, *rows = [[escape(cell) for cell in row] for row in domain.published]
    content = table(head, rows, "Published results") + note(
        "Another scale: the published models are larger, the songs longer and the Vendi encoder another one. "
        "Compare the order and direction of systems, not the numbers."
    )
    return details("Published results, to stand beside", content)


def _definitions(found: Results) -> str:
    equal = f" Compare at equal numbers of {escape(found.study.domain.examples)} only."
    measured = {m for datasets in found.systems.values() for metrics in datasets.values() for m in metrics}
    rows = [
        [f"{escape(m.label)} <small>{escape(m.unit)}</small>", escape(m.better),
         escape(m.explanation) + equal * m.depends_on_n]
        for m in (about for name, about in found.study.domain.metrics.items() if name in measured)
    ]  # fmt: skip
    return details(
        "What the numbers mean", table(["Metric", "Better", "Definition"], rows, "Definitions", numbers=False)
    )
