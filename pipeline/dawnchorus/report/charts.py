"""Pictures of numbers as HTML and inline SVG: bars, histograms, a line over time. Pure.

Text stays text (it wraps, scales and can be read aloud); only shapes stretch. Every label is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dawnchorus.report.markup import escape
from dawnchorus.report.words import length

_MAX_BARS = 48
_FEWEST = 5

Part = tuple[str, float, str]
"""Label, amount, and the colour's name in the style sheet."""


def stacked(title: str, parts: Sequence[Part], show: Callable[[float], str]) -> str:
    """One horizontal bar, cut in proportion, with a legend that holds the numbers."""
    total = sum(amount for _, amount, _ in parts)
    there = [p for p in parts if p[1] > 0]
    said = ", ".join(f"{label} {show(amount)}" for label, amount, _ in there) or "nothing"
    pieces = "".join(f'<i class="{c}" style="flex-grow:{amount / total:.5f}"></i>' for _, amount, c in there)
    legend = "".join(
        f'<li class="{"" if amount else "none"}"><i class="{c}"></i>{escape(label)} '
        f"<b>{escape(show(amount))}</b>"
        f"<small>{_percent(amount, total)}</small></li>"
        for label, amount, c in parts
    )
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<div class="stack" role="img" aria-label="{escape(title)}: {escape(said)}">{pieces}</div>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _percent(amount: float, total: float) -> str:
    if not total or not amount:
        return ""
    share = amount / total * 100
    return "&lt;0.1 %" if share < 0.05 else f"{share:.1f} %" if share < 99.95 or amount == total else "99.9 %"


def histogram(title: str, data: Mapping[str, Any], unit: str, noun: str) -> str:
    """Upright bars between `data["edges"]`; neighbouring bins are joined while there are too many.
    Nothing where there is too little to see a shape."""
    edges, counts = list(data["edges"]), list(data["counts"])
    while len(counts) > _MAX_BARS:
        counts = [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
        edges = [*edges[:-1:2], edges[-1]]
    if sum(counts) < _FEWEST:
        return ""
    most = max(counts)
    bars = []
    for n, count in enumerate(counts):
        last = data["open_ended"] and n == len(counts) - 1
        span = f"{edges[n]:g} {unit} and more" if last else f"{edges[n]:g} to {edges[n + 1]:g} {unit}"
        tall = max(count / most * 100, 1.0) if count else 0
        bars.append(f'<i style="height:{tall:.1f}%" title="{escape(span)}: {count:,} {escape(noun)}"></i>')
    middle = _median(edges, counts)
    said = f"{title}: {sum(counts):,} {noun}, half of them below {middle:.3g} {unit}"
    return (
        f"<figure><figcaption>{escape(title)} <small>half of them below {middle:.3g} {escape(unit)}</small>"
        f"</figcaption>"
        f'<div class="bars" role="img" aria-label="{escape(said)}">{"".join(bars)}</div>'
        f'<div class="axis"><span>{edges[0]:g}</span><span>{(edges[0] + edges[-1]) / 2:g}</span>'
        f"<span>{edges[-1]:g}{'+' if data['open_ended'] else ''} {escape(unit)}</span></div></figure>"
    )


def _median(edges: Sequence[float], counts: Sequence[int]) -> float:
    half, before = sum(counts) / 2, 0
    for n, count in enumerate(counts):
        if count and before + count >= half:
            return edges[n] + (edges[n + 1] - edges[n]) * (half - before) / count
        before += count
    return edges[-1]


def over_time(title: str, series: Sequence[Mapping[str, Any]]) -> str:
    """rtfx as an area over working time, with a line where one attempt ends and the next begins."""
    highest = max((value for attempt in series for value in attempt["rtfx"]), default=0.0)
    if highest <= 0:
        return ""
    top = _round_up(highest)
    outline, borders, x = ["M0 100"], "", 0.0
    for attempt in series:
        if x:
            borders += f'<line x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="100" class="border"/>'
        for value in attempt["rtfx"]:
            y = 100 - value / top * 100
            outline.append(f"L{x:.2f} {y:.2f}L{x + attempt['step_seconds']:.2f} {y:.2f}")
            x += attempt["step_seconds"]
    outline.append(f"L{x:.2f} 100Z")
    grid = "".join(f'<line x1="0" x2="{x:.2f}" y1="{y}" y2="{y}" class="grid"/>' for y in (0, 50, 100))
    attempts = f", {len(series)} attempts" if len(series) > 1 else ""
    said = f"{title}: up to {highest:.1f} over {length(x)}{attempts}"
    return (
        f'<figure class="wide"><figcaption>{escape(title)} <small>audio seconds per second of work{attempts}'
        f"</small></figcaption>"
        f'<div class="plot"><div class="y"><span>{top:g}</span><span>{top / 2:g}</span><span>0</span></div>'
        f'<svg viewBox="0 0 {x:.2f} 100" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f'{grid}<path d="{"".join(outline)}"/>{borders}</svg></div>'
        f'<div class="axis inset"><span>0</span><span>{escape(length(x / 2))}</span>'
        f"<span>{escape(length(x))}</span></div></figure>"
    )


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 8 or 10 times a power of ten."""
    power = float(10 ** math.floor(math.log10(value)))
    return next(step * power for step in (1, 2, 4, 5, 8, 10) if step * power >= value * 0.9999)
