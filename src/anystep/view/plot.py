"""Accuracy against true cost as an SVG drawn here: no script, nothing fetched, readable in black and white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from anystep.bench.report import Point, Report
from anystep.view.tables import name, percent, span
from anystep.view.text import figure, printable

WIDTH, HEIGHT = 880, 430
LEFT, RIGHT, TOP, BOTTOM = 66, 20, 16, 58
APART = 9.0  # pixels between points whose bars would lie on each other
SHAPES = ("circle", "square", "diamond", "triangle", "wedge", "cross")
COLOURS = 6
AXES = {
    "tokens": "true tokens a problem: prompt and generated, rewards included (mean, log scale)",
    "money": "money a problem, at the server's prices (mean, log scale)",
    "calls": "calls a problem: batched passes, or a server's requests (mean, log scale)",
    "seconds": "seconds a problem, side by side with others (mean, log scale)",
}


@dataclass(frozen=True)
class Scale:
    """From figures to pixels: cost, by one of its figures, on a logarithmic axis, accuracy on a straight one."""

    x: tuple[float, float]
    y: tuple[float, float]
    by: str = "tokens"

    def across(self, cost: float) -> float:
        low, high = math.log10(self.x[0]), math.log10(self.x[1])
        return LEFT + (math.log10(cost) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def place(self, p: Point) -> float:
        return self.across(getattr(p, self.by))

    def down(self, accuracy: float) -> float:
        return TOP + (self.y[1] - accuracy) / (self.y[1] - self.y[0]) * (HEIGHT - TOP - BOTTOM)


def esc(text: str) -> str:
    """Text that is safe inside HTML and SVG, attributes too; control characters are made visible."""
    return escape(printable(text), quote=True)


def axes(report: Report) -> list[str]:
    """The figures of cost that were measured and differ between points, tokens first."""
    drawn = _drawn(report.points, "tokens")
    return [by for by in AXES if len({getattr(p, by) for p in drawn}) > 1 and all(getattr(p, by) > 0 for p in drawn)]


def curve(report: Report, by: str = "tokens") -> str:
    """The report's points as one SVG element: a line a method, 95% bars, greedy as a level, and the frontier; "" where
    none is scored. by: the figure on the axis of cost, see `AXES`."""
    points = _drawn(report.points, by)
    if not points:
        return ""
    scale = _scale(points, by)
    labels = list(dict.fromkeys(p.label for p in report.points))
    at = _dodged(points, scale)
    parts = [_axes(scale), *(_level(p, scale) for p in points if p.greedy), _frontier(points, scale)]
    for series, label in enumerate(labels):
        mine = [(p, x) for p, x in zip(points, at, strict=True) if p.label == label]
        parts.append(_series(mine, series, scale))
    spoken = esc(f"Accuracy against mean {by} a problem: {', '.join(labels)}. The table below has the figures.")
    return (
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _drawn(points: Sequence[Point], by: str) -> list[Point]:
    return [p for p in points if getattr(p, by) > 0 and not math.isnan(p.accuracy.value)]


def frontier(points: Sequence[Point], by: str = "tokens") -> list[Point]:
    """The points that nothing cheaper or as cheap beats, cheapest first; oracles are no contestants."""
    found: list[Point] = []
    for p in sorted((p for p in points if not p.oracle), key=lambda p: (getattr(p, by), -p.accuracy.value)):
        if not found or p.accuracy.value > found[-1].accuracy.value:
            found.append(p)
    return found


def _frontier(points: Sequence[Point], scale: Scale) -> str:
    best = frontier(points, scale.by)
    if not best:
        return ""
    path = [f"M{scale.place(best[0]):.1f} {scale.down(best[0].accuracy.value):.1f}"]
    path += [f"H{scale.place(p):.1f}V{scale.down(p.accuracy.value):.1f}" for p in best[1:]]
    return f'<path class="frontier" d="{"".join(path)}H{WIDTH - RIGHT}"/>'


def legend(report: Report) -> str:
    """The legend as HTML: a swatch and a name a method."""
    items = []
    first = {p.label: p for p in reversed(report.points)}
    for series, label in enumerate(dict.fromkeys(p.label for p in report.points)):
        p = first[label]
        dash = ' stroke-dasharray="5 4"' if p.oracle or p.greedy else ""
        line = f'<line x1="1" y1="8" x2="33" y2="8" stroke="currentColor" stroke-width="2"{dash}/>'
        swatch = f'<svg width="34" height="16" aria-hidden="true">{line}{mark(series, 17, 8, p.oracle)}</svg>'
        items.append(f'<li><span class="c{series % COLOURS}">{swatch}</span>{esc(name(p))}</li>')
    edge = '<line x1="1" y1="8" x2="33" y2="8" class="frontier"/>'
    items.append(f'<li><span><svg width="34" height="16" aria-hidden="true">{edge}</svg></span>frontier</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _scale(points: Sequence[Point], by: str = "tokens") -> Scale:
    low, high = min(getattr(p, by) for p in points), max(getattr(p, by) for p in points)
    pad = max((high / low) ** 0.05, 1.12)
    bottom = math.floor(max(0.0, min(p.accuracy.low for p in points) - 0.02) * 10) / 10
    top = math.ceil(min(1.0, max(p.accuracy.high for p in points) + 0.02) * 10) / 10
    return Scale((low / pad, high * pad), (bottom, top), by)


def _dodged(points: Sequence[Point], scale: Scale) -> list[float]:
    """Each point's x in pixels, those that nearly share one set side by side around their middle."""
    order = sorted(range(len(points)), key=lambda i: scale.place(points[i]))
    groups: list[list[int]] = []
    for i in order:
        near = groups and scale.place(points[i]) - scale.place(points[groups[-1][-1]]) < APART
        groups[-1].append(i) if near else groups.append([i])
    at = [0.0] * len(points)
    for group in groups:
        middle = sum(scale.place(points[i]) for i in group) / len(group)
        for place, i in enumerate(group):
            at[i] = middle + APART * (place - (len(group) - 1) / 2)  # a point alone stays where it is
    return at


def _axes(scale: Scale) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"/>']
    step = 0.1 if scale.y[1] - scale.y[0] <= 0.6 else 0.2
    for k in range(math.ceil(scale.y[0] / step - 1e-9), math.floor(scale.y[1] / step + 1e-9) + 1):
        y = scale.down(k * step)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * k * step:.0f}%</text>')
    for tick in ticks(*scale.x):
        x = scale.across(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{figure(tick)}</text>')
    middle = (LEFT + right) / 2
    label = f'x="{middle}" y="{HEIGHT - 10}" text-anchor="middle"'
    parts.append(f'<text class="label" {label}>{AXES[scale.by]}</text>')
    height = (TOP + bottom) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 16 {height})"'
    parts.append(f'<text class="label up" x="16" y="{height}" {turned}>accuracy</text>')
    return "\n".join(parts)


def ticks(low: float, high: float, most: int = 10) -> list[float]:
    """Round figures from low to high on a logarithmic axis: as many leads of a decade as leave `most` at most."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [lead * 10.0**d for d in decades for lead in leads if low <= lead * 10.0**d <= high]
        if len(found) <= most:
            return found
    return found


def _level(p: Point, scale: Scale) -> str:
    """Greedy's accuracy across the plot, with its interval as a band."""
    top, bottom = scale.down(p.accuracy.high), scale.down(p.accuracy.low)
    y, right = scale.down(p.accuracy.value), WIDTH - RIGHT
    box = f'x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" height="{bottom - top:.1f}"'
    line = f'<line class="level" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'<g class="c0"><rect class="band" {box}/>{line}</g>'


def _series(mine: Sequence[tuple[Point, float]], series: int, scale: Scale) -> str:
    if not mine:
        return ""
    dash = ' stroke-dasharray="6 5"' if mine[0][0].oracle else ""
    path = " ".join(f"{x:.1f},{scale.down(p.accuracy.value):.1f}" for p, x in mine)
    parts = [f'<g class="c{series % COLOURS}">', f'<polyline class="line" points="{path}"{dash}/>']
    for p, x in mine:
        top, bottom, y = (scale.down(v) for v in (p.accuracy.high, p.accuracy.low, p.accuracy.value))
        bar = "".join(f"M{x - 3:.1f} {end:.1f}h6" for end in (top, bottom))
        parts.append(f"<g><title>{esc(_told(p))}</title>")
        parts.append(f'<path class="bar" d="M{x:.1f} {top:.1f}V{bottom:.1f}{bar}"/>{mark(series, x, y, p.oracle)}')
        parts.append(f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="{APART}"/></g>')
    return "\n".join([*parts, "</g>"])


def _told(p: Point) -> str:
    size = "" if p.greedy else f", n = {p.n}"
    return (
        f"{name(p)}{size}: {percent(p.accuracy.value)} (95%: {span(p.accuracy)}), {figure(p.tokens)} tokens, "
        f"{figure(p.calls)} calls, {f'{figure(p.money)} money, ' if p.money else ''}{p.runs} runs"
    )


def mark(series: int, x: float, y: float, hollow: bool = False) -> str:
    """A series' mark, so that lines are told apart without colour too."""
    r = 5.0
    outline = {
        "circle": f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0",
        "square": f"M{x - 4.5:.1f} {y - 4.5:.1f}h9v9h-9z",
        "diamond": f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z",
        "triangle": f"M{x:.1f} {y - 6:.1f}l6 10.5h-12z",
        "wedge": f"M{x:.1f} {y + 6:.1f}l6 -10.5h-12z",
        "cross": f"M{x - 6:.1f} {y - 2:.1f}h4v-4h4v4h4v4h-4v4h-4v-4h-4z",
    }[SHAPES[series % len(SHAPES)]]
    return f'<path class="{"mark hollow" if hollow else "mark"}" d="{outline}"/>'
