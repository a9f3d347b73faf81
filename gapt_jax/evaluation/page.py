"""The report as one HTML page: no script, no network, light and dark. Pure text; every value is escaped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from gapt_jax.evaluation import results
from gapt_jax.evaluation.metrics import HEADLINE, METRICS, describe
from gapt_jax.evaluation.results import BASELINE, COLLAPSE, PRIMARY, Comparison, Run, Systems, name_of
from gapt_jax.evaluation.statistics import Estimate, estimate, sign_flip_floor

if TYPE_CHECKING:
    from gapt_jax.evaluation.figures import Drawn

STYLE = """
:root { --ink: #1c1c1e; --soft: #6b6b70; --line: #dcdce0; --page: #fdfdfc; --note: #f3f3f0;
  color-scheme: light dark }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ea; --soft: #9c9ca3; --line: #3a3a3f; --page: #17171a; --note: #222226 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 64rem;
  background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; font-weight: 650 }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; font-weight: 650 }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; font-weight: 600; overflow-wrap: anywhere }
p { max-width: 46rem; margin: .5rem 0 }
small, .soft, figcaption { color: var(--soft); font-size: .84rem; font-weight: 400 }
.outcome, .warning { background: var(--note); border-left: 3px solid var(--soft); padding: .8rem 1rem;
  margin: 1rem 0 }
.warning { border-color: #d55e00 }
.outcome p { margin: .35rem 0 }
.scroll { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .34rem .9rem .34rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: baseline }
th { font-weight: 600 }
:is(th, td):first-child { min-width: 9.5rem }
.text td:last-child { overflow-wrap: anywhere }
.text td:nth-child(3):last-child { min-width: 15rem }
td.n, th.n { text-align: right; white-space: nowrap; padding: .34rem 0 .34rem 1.1rem }
figure { margin: .8rem 0 }
figure .scroll { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .5rem }
figure svg { display: block; width: 100%; min-width: 40rem; height: auto }
pre { background: var(--note); padding: .8rem 1rem; overflow-x: auto; font-size: .82rem }
code, .path { overflow-wrap: anywhere }
details { margin: .8rem 0 } summary { cursor: pointer; font-weight: 600 }
"""


def render(
    runs: Sequence[Run], systems: Systems, comparisons: Sequence[Comparison], figures: Sequence[Drawn],
    rolls: Sequence[Drawn], command: str,
) -> str:  # fmt: skip
    """The whole page. `rolls` are the piano rolls, `command` is what makes this report again."""
    title = " · ".join(dict.fromkeys(str(run.config["name"]) for run in runs))
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(_scope(runs, systems))}</p>',
        *(f'<p class="warning">{escape(sentence)}</p>' for sentence in results.warnings(runs)),
        _outcome(systems, comparisons),
        *(_dataset(systems, comparisons, dataset) for dataset in results.datasets(systems)),
        *(f"<h2>{escape(drawn.title)}</h2>{_figure(drawn)}" for drawn in figures),
        "<h2>The same melody, played by each system</h2>" if rolls else "",
        *(f"<h3>{escape(drawn.title)}</h3>{_figure(drawn)}" for drawn in rolls),
        "<h2>What the numbers mean</h2>",
        _definitions(systems),
        "<h2>Where the numbers come from</h2>",
        _provenance(runs, command),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: report</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def outcome_sentences(systems: Systems, comparisons: Sequence[Comparison], dataset: str) -> list[str]:
    """What the primary metric says on one dataset, in plain words with the numbers (method.md §8)."""
    shown = [s for s in systems if s != "data" and results.get(systems, s, dataset, PRIMARY)]
    if not shown:
        return ["No independent Vendi was measured, so nothing can be said about diversity."]
    sentences = [
        f"Independent Vendi: {_path(systems, dataset, shown, PRIMARY)}.",
        f"Note-in-chord: {_path(systems, dataset, shown, 'note_in_chord')}.",
    ]
    if BASELINE not in shown or "mle" not in shown:
        return [*sentences, "Without MLE and λ = 0 runs there is nothing to compare with."]
    found = [o for o in results.outcomes(systems, comparisons) if o.dataset == dataset]
    if not found:
        return [*sentences, "No λ above 0 shares a seed with λ = 0, so nothing is compared."]
    paired = {c.system: c.paired for c in comparisons if (c.dataset, c.metric) == (dataset, PRIMARY)}
    lost = found[0].lost
    change = f"{'lost' if lost >= 0 else 'gained'} {abs(lost):.2f} Vendi against the MLE"
    judged = "a collapse" if lost >= COLLAPSE else "no collapse"
    sentences.append(f"λ = 0 {change}: {judged}, which asks for a loss of {COLLAPSE}.")
    for outcome in found:
        pair = paired[outcome.system]
        sentences.append(
            f"{name_of(outcome.system)} minus λ = 0: {_difference(pair.difference, 2)}; "
            f"exact sign-flip p = {pair.p:.3g} (pairs: {pair.difference.n}, which can reach "
            f"{pair.p_floor:.3g} at best). Verdict: {outcome.verdict}."
        )
    return sentences


def _path(systems: Systems, dataset: str, shown: Iterable[str], metric: str) -> str:
    scores = [(system, results.get(systems, system, dataset, metric)) for system in shown]
    return " → ".join(
        f"{_number(estimate(score.values).mean, 3 if metric == 'note_in_chord' else 2)} ({name_of(system)})"
        for system, score in scores
        if score
    )


def _scope(runs: Sequence[Run], systems: Systems) -> str:
    seeds = [f"{name_of(arm)}: {sum(run.arm == arm for run in runs)}" for arm in results.arms(systems)]
    sampling = ", ".join(sorted({str(run.evaluation["sampling"]) for run in runs}))
    return f"{len(runs)} run{'s' * (len(runs) > 1)} (seeds at {', '.join(seeds)}). Sampling: {sampling}, T = 1."


def _outcome(systems: Systems, comparisons: Sequence[Comparison]) -> str:
    blocks = [
        f"<p><strong>{escape(dataset)}.</strong> "
        f"{escape(' '.join(outcome_sentences(systems, comparisons, dataset)))}</p>"
        for dataset in results.datasets(systems)
    ]
    return f'<div class="outcome">{"".join(blocks)}</div>'


def _dataset(systems: Systems, comparisons: Sequence[Comparison], dataset: str) -> str:
    measured = dict.fromkeys(m for by_dataset in systems.values() for m in by_dataset.get(dataset, {}))
    ordered = [m for m in METRICS if m in measured] + [m for m in measured if m not in METRICS]
    headline = [m for m in HEADLINE if m in measured]
    counts = sorted({s.n_songs for d in systems.values() for s in d.get(dataset, {}).values()})
    here = [c for c in comparisons if c.dataset == dataset]
    parts = [
        f"<h2>{escape(dataset)}</h2>",
        f'<p class="soft">{"/".join(map(str, counts))} songs. Mean over seeds ± half of the 95 % confidence '
        "interval (Student t); no interval for a single seed.</p>",
        _systems_table(systems, dataset, headline),
        f"<h3>Against λ = 0, by seed</h3>{_comparisons_table(here, headline)}" if here else "",
        f"<details><summary>All metrics</summary>{_systems_table(systems, dataset, ordered)}"
        f"{_comparisons_table(here, ordered) if here else ''}</details>",
    ]
    return "\n".join(parts)


def _systems_table(systems: Systems, dataset: str, metrics: Sequence[str]) -> str:
    shown = [system for system in systems if systems[system].get(dataset)]
    head = ["Metric", *(f"{name_of(s)}{_seeds(systems[s][dataset])}" for s in shown)]
    rows = []
    for metric in metrics:
        scores = [results.get(systems, system, dataset, metric) for system in shown]
        estimates = [estimate(score.values) if score else None for score in scores]
        digits = _digits([e.mean for e in estimates if e])
        rows.append([_label(metric), *(_estimate(e, digits) if e else "" for e in estimates)])
    return _table(head, rows)


def _comparisons_table(comparisons: Sequence[Comparison], metrics: Sequence[str]) -> str:
    shown = list(dict.fromkeys(c.system for c in comparisons))
    by_key = {(c.system, c.metric): c.paired for c in comparisons}
    head = ["Metric", *(cell for s in shown for cell in (f"{escape(name_of(s))} − λ = 0", "p"))]
    rows = []
    for metric in (m for m in metrics if any((s, m) in by_key for s in shown)):
        row = [_label(metric)]
        for system in shown:
            pair = by_key.get((system, metric))
            digits = _digits([pair.difference.mean]) if pair else 0
            row += [_difference(pair.difference, digits), _number(pair.p, 3)] if pair else ["", ""]
        rows.append(row)
    pairs = max(c.paired.difference.n for c in comparisons)
    return _table(head, rows) + (
        f'<p class="soft">Difference [95 % interval]; p of the exact two-sided sign-flip test. With {pairs} '
        f"pair{'s' * (pairs > 1)} no p below {sign_flip_floor(pairs):.3g} can be reached. p is not corrected "
        "for the number of comparisons.</p>"
    )


def _definitions(systems: Systems) -> str:
    measured = {m for datasets in systems.values() for metrics in datasets.values() for m in metrics}
    rows = [
        [f"{escape(m.label)} <small>{escape(m.unit)}</small>", escape(m.better),
         escape(m.explanation) + (" Compare at equal numbers of songs only." if m.depends_on_n else "")]
        for m in (describe(name) for name in METRICS if name in measured)
    ]  # fmt: skip
    return _table(["Metric", "Better", "Definition"], rows, numbers=False)


def _provenance(runs: Sequence[Run], command: str) -> str:
    head = ["Run", "λ", "Seed", "Pre-training", "Config", "Data", "Revision", "Hardware", "Time"]
    rows = [
        [f'<span class="path">{escape(run.path)}</span>', f"{run.adversarial_weight:g}", str(run.seed),
         f"seed {run.upstream_seed}", *(f"<code>{escape(str(run.record[k])[:14])}</code>"
         for k in ("config_hash", "data_fingerprint", "git_revision")),
         escape(_plain(run.record["hardware"])), _duration(run.record["time_s"])]
        for run in runs
    ]  # fmt: skip
    commands = "\n".join(escape(str(text)) for text in [*(run.record["command"] for run in runs), command])
    settings = results.flatten(runs[0].config)
    return "\n".join([
        _table(head, rows, numbers=False),
        f"<h3>Commands</h3><pre>{commands}</pre>",
        f"<details><summary>Configuration of {escape(runs[0].path)}</summary>",
        _table(
            ["Setting", "Value"], [[escape(k), escape(_plain(v))] for k, v in settings.items()], numbers=False
        ),
        "</details><details><summary>Versions and times</summary>",
        _table(["Run", "Versions", "Seconds per stage"], [
            [escape(run.path), escape(_plain(run.record["versions"])), escape(_plain(run.record["time_s"]))]
            for run in runs
        ], numbers=False),
        "</details>",
    ])  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """Cells are HTML already. With `numbers`, all columns but the first are aligned right."""
    css = ["", *([' class="n"' if numbers else ""] * (len(head) - 1))]
    top = "".join(f"<th{c}>{cell}</th>" for c, cell in zip(css, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{cell}</td>" for c, cell in zip(css, row, strict=True)) + "</tr>" for row in rows
    )
    kind = "" if numbers else ' class="text"'
    return f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _figure(drawn: Drawn) -> str:
    return (
        f'<figure><div class="scroll" role="img" aria-label="{escape(drawn.title)}">{drawn.svg}</div>'
        f"<figcaption>{escape(drawn.caption)}</figcaption></figure>"
    )


def _label(metric: str) -> str:
    return f"{escape(describe(metric).label)} <small>{escape(describe(metric).unit)}</small>"


def _seeds(metrics: dict[str, results.Score]) -> str:
    n = max(len(score.by_seed) for score in metrics.values())
    return f"<br><small>{n} seed{'s' * (n > 1)}</small>"


def _estimate(value: Estimate, digits: int) -> str:
    text = _number(value.mean, digits)
    return f"{text} <small>±\u2009{_number(value.ci95[1] - value.mean, digits)}</small>" if value.ci95 else text


def _difference(value: Estimate, digits: int) -> str:
    interval = f" [{_number(value.ci95[0], digits)}, {_number(value.ci95[1], digits)}]" if value.ci95 else ""
    return f"{'+' if value.mean > 0 else ''}{_number(value.mean, digits)}{interval}"


def _digits(values: Sequence[float]) -> int:
    largest = max((abs(v) for v in values if v == v), default=0.0)
    return 3 if largest < 2 else 2 if largest < 100 else 0


def _number(value: float, digits: int) -> str:
    """Fixed digits, a true minus sign; a dash for what is not defined."""
    return "–" if value != value else f"{value:.{digits}f}".replace("-", "\u2212")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds: dict[str, float]) -> str:
    total = round(sum(seconds.values()))
    return f"{total // 3600} h {total % 3600 // 60} min" if total >= 3600 else f"{total // 60} min {total % 60} s"


def report_command(runs: Sequence[Run], out: str) -> str:
    return shlex.join(["gapt", "report", *(run.path for run in runs), "--out", out])
