"""Pieces of the page: its style, tables, figures, numbers. Pure text; cells are HTML already, text is escaped here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from gapt_jax.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from gapt_jax.report.figures import Drawn

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
tbody th { font-weight: 400 }
td.n, th.n { text-align: right; white-space: nowrap; padding: .34rem 0 .34rem 1.1rem }
figure { margin: .8rem 0 }
figure > .scroll { border: 1px solid var(--line); border-radius: 6px; padding: .5rem }
figure svg { display: block; width: 100%; min-width: 44rem; height: auto }
figure.narrow svg { min-width: 30rem; max-width: 44rem }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1rem 0; font-size: .9rem }
a { color: inherit } :focus-visible { outline: 2px solid #0a84c6; outline-offset: 2px }
.verdict { font-size: 1.1rem } .verdict strong { text-transform: uppercase; letter-spacing: .03em }
.controls { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .5rem 0 }
button { font: inherit; font-size: .9rem; min-height: 2.5rem; padding: .3rem .8rem; color: var(--ink);
  background: var(--note); border: 1px solid var(--soft); border-radius: 6px; cursor: pointer }
button[aria-pressed=true] { background: var(--ink); color: var(--page) }
input[type=range] { width: min(100%, 18rem); accent-color: #0a84c6 }
.roll { position: relative; min-width: 44rem }
.cursor { position: absolute; top: 0; bottom: 0; width: 2px; background: #0a84c6; pointer-events: none }
.scroll:focus-visible { outline: 2px solid #0a84c6 }
pre { background: var(--note); padding: .8rem 1rem; overflow-x: auto; font-size: .82rem }
code, .path { overflow-wrap: anywhere }
details { margin: .8rem 0 } summary { cursor: pointer; font-weight: 600 }
"""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str, numbers: bool = True) -> str:
    """A table in a box of its own that scrolls. With `numbers`, all columns but the first are aligned right."""
    css = ["", *([' class="n"' if numbers else ""] * (len(head) - 1))]
    top = "".join(f'<th scope="col"{c}>{cell}</th>' for c, cell in zip(css, head, strict=True))
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{c}>{cell}</td>" for c, cell in zip(css[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    kind = "" if numbers else ' class="text"'
    label = escape(caption)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table{kind}>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(drawn: Drawn) -> str:
    title = escape(drawn.title)
    return (
        f'<figure id="figure-{escape(drawn.name)}"><div class="scroll" tabindex="0" role="img" aria-label="{title}">'
        f"{drawn.svg}</div><figcaption>{escape(drawn.caption)}</figcaption></figure>"
    )


def note(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>'


def details(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def mean(value: Estimate, digits: int) -> str:
    text = number(value.mean, digits)
    return f"{text} <small>±\u2009{number(value.ci95[1] - value.mean, digits)}</small>" if value.ci95 else text


def difference(value: Estimate, digits: int) -> str:
    interval = f" [{number(value.ci95[0], digits)}, {number(value.ci95[1], digits)}]" if value.ci95 else ""
    return f"{'+' if value.mean > 0 else ''}{number(value.mean, digits)}{interval}"


def digits_of(values: Sequence[float]) -> int:
    largest = max((abs(v) for v in values if v == v), default=0.0)
    return 3 if largest < 2 else 2 if largest < 100 else 0


def number(value: float, digits: int) -> str:
    """Fixed digits, a true minus sign; a dash for what is not defined."""
    return "–" if value != value else f"{value:.{digits}f}".replace("-", "\u2212")


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: float) -> str:
    total = round(seconds)
    return f"{total // 3600} h {total % 3600 // 60} min" if total >= 3600 else f"{total // 60} min {total % 60} s"
