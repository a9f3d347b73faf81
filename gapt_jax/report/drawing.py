"""From a figure of matplotlib to what a page shows: its SVG, a PNG, and the numbers behind its lines.

Needs matplotlib, an optional extra. No files.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image  # which matplotlib needs

INK, GRID, PAPER = "#1c1c1e", "#e4e4e4", "#fefefe"  # on the page these follow its theme
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 8.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "axes.titlelocation": "left",
    "axes.edgecolor": "#888888", "axes.facecolor": "none", "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True, "svg.fonttype": "none", "svg.hashsalt": "gapt",
    "text.parse_math": False, "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
}  # fmt: skip
WIDTH = 10.0  # inches


class Series(NamedTuple):
    """A line of a panel, for whoever points at it."""

    name: str
    color: str
    x: list[float]
    y: list[float]


class Panel(NamedTuple):
    """Where a plot of lines stands, in shares of the figure from its upper left corner, and what it shows."""

    box: tuple[float, float, float, float]  # left, top, width, height
    x_limits: tuple[float, float]
    x_name: str
    series: list[Series]


class Drawn(NamedTuple):
    """A finished figure."""

    name: str
    title: str
    caption: str
    svg: str  # to be placed inside HTML
    png: bytes
    panels: list[Panel]

    @property
    def panels_json(self) -> str:
        return json.dumps(self.panels, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @property
    def png_url(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def finish(name: str, title: str, caption: str, make: Callable[[], Figure]) -> Drawn:
    with matplotlib.rc_context(STYLE):
        figure = make()
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(png, format="png", dpi=150)
    return Drawn(name, title, caption, _inline(svg.getvalue(), name), _few_colors(png), _panels(figure))


def _few_colors(png: io.BytesIO) -> bytes:
    """A picture of 256 colours, which takes a third: the page holds all of them."""
    small = io.BytesIO()
    Image.open(png).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def _panels(figure: Figure) -> list[Panel]:
    """Those of a drawn figure whose lines have names."""
    found = []
    for axes in figure.axes:
        lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        place = axes.get_position()
        box = (place.x0, 1 - place.y1, place.width, place.height)
        series = [
            Series(str(line.get_label()), str(line.get_color()), *map(_short, np.asarray(line.get_data(), np.float64)))
            for line in lines
        ]
        if series:
            left, right = axes.get_xlim()
            found.append(Panel(tuple(_short(box)), (left, right), axes.get_xlabel(), series))  # type: ignore[arg-type]
    return found


def _short(values: Any) -> list[float]:
    """Numbers of four digits: nobody reads more off a curve."""
    return [float(f"{value:.4g}") for value in values]


def _inline(svg: str, name: str) -> str:
    """The bare <svg> element, with ids of its own so that several can share a page."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\1{name}-", svg)
    for fixed, themed in ((INK, "var(--ink)"), (GRID, "var(--line)"), (PAPER, "var(--page)")):
        svg = svg.replace(fixed, themed)
    return svg
