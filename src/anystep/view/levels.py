"""A figure against its cost for several series, as an SVG drawn here: quality of samples against evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anystep.view.plot import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, esc, mark, ticks
from anystep.view.text import figure


@dataclass(frozen=True)
class Measured:
    """A point: its cost, the figure's mean, and its standard deviation over seeds."""

    cost: float
    value: float
    deviation: float = 0.0


@dataclass(frozen=True)
class Plane:
    """From figures to pixels: both axes logarithmic, or the figure's straight where it reaches 0."""

    x: tuple[float, float]
    y: tuple[float, float]
    straight: bool

    def across(self, cost: float) -> float:
        return LEFT + _share(math.log(cost), *map(math.log, self.x)) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        ends = self.y if self.straight else tuple(map(math.log, self.y))
        at = value if self.straight else math.log(max(value, self.y[0]))
        return TOP + (1 - min(max(_share(at, *ends), 0.0), 1.0)) * (HEIGHT - TOP - BOTTOM)


def levels(
    series: Mapping[str, Sequence[Measured]],
    of: str,
    cost: str = "evaluations a sample, guidance and inner stages counted (log scale)",
    floor: Measured | None = None,
) -> str:
    """One SVG element: a line a series with bars of one standard deviation, and real data's own level as a band.

    of: what the figure is, on its axis. floor: the level; its cost is not read. "" where there is no point.
    """
    points = [p for some in series.values() for p in some]
    if not points:
        return ""
    plane = _plane(points, floor)
    parts = [_frame(plane, of, cost), _band(floor, plane)]
    parts += [_line(some, i, name, plane) for i, (name, some) in enumerate(series.items())]
    spoken = esc(f"{of} against {cost}: {', '.join(series)}")
    return f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken}">\n' + (
        "\n".join(p for p in parts if p) + "\n</svg>"
    )


def levels_legend(names: Sequence[str], floor: str = "") -> str:
    """The legend as HTML: a swatch and a name a series, and the floor's where it has one."""
    items = []
    for i, name in enumerate(names):
        line = '<line x1="1" y1="8" x2="33" y2="8" stroke="currentColor" stroke-width="2"/>'
        swatch = f'<svg width="34" height="16" aria-hidden="true">{line}{mark(i, 17, 8)}</svg>'
        items.append(f'<li><span class="c{i % COLOURS}">{swatch}</span>{esc(name)}</li>')
    if floor:
        edge = '<line x1="1" y1="8" x2="33" y2="8" class="level" stroke="currentColor"/>'
        items.append(f'<li><span><svg width="34" height="16" aria-hidden="true">{edge}</svg></span>{esc(floor)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _plane(points: Sequence[Measured], floor: Measured | None) -> Plane:
    shown = [*points, *([floor] if floor else [])]
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    pad = max((high / low) ** 0.05, 1.12)
    least, most = min(p.value - p.deviation for p in shown), max(p.value + p.deviation for p in shown)
    straight = least <= 0 or most / least < 4
    room = 0.06 * (most - least or abs(most) or 1.0)
    y = (least - room, most + room) if straight else (least / 1.15, most * 1.15)
    return Plane((low / pad, high * pad), y, straight)


def _frame(plane: Plane, of: str, cost: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"/>']
    for value in _even(*plane.y) if plane.straight else ticks(*plane.y, most=8):
        y = plane.down(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{figure(value)}</text>')
    for value in ticks(*plane.x):
        x = plane.across(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{figure(value)}</text>')
    parts.append(
        f'<text class="label" x="{(LEFT + right) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{esc(cost)}</text>'
    )
    height = (TOP + bottom) / 2
    turned = f'text-anchor="middle" transform="rotate(-90 16 {height})"'
    parts.append(f'<text class="label up" x="16" y="{height}" {turned}>{esc(of)}</text>')
    return "\n".join(parts)


def _band(floor: Measured | None, plane: Plane) -> str:
    if floor is None:
        return ""
    top, bottom = (plane.down(floor.value + sign * floor.deviation) for sign in (1, -1))
    y, right = plane.down(floor.value), WIDTH - RIGHT
    box = f'x="{LEFT}" y="{top:.1f}" width="{right - LEFT}" height="{bottom - top:.1f}"'
    line = f'<line class="level" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'<g class="c0"><rect class="band" {box}/>{line}</g>'


def _line(some: Sequence[Measured], i: int, name: str, plane: Plane) -> str:
    some = sorted(some, key=lambda p: p.cost)
    path = " ".join(f"{plane.across(p.cost):.1f},{plane.down(p.value):.1f}" for p in some)
    parts = [f'<g class="c{i % COLOURS}">', f'<polyline class="line" points="{path}"/>']
    for p in some:
        x, y = plane.across(p.cost), plane.down(p.value)
        top, bottom = plane.down(p.value + p.deviation), plane.down(p.value - p.deviation)
        bar = "".join(f"M{x - 3:.1f} {end:.1f}h6" for end in (top, bottom))
        told = f"{name}: {figure(p.value)} ± {figure(p.deviation)} at {figure(p.cost)}"
        parts.append(f"<g><title>{esc(told)}</title>")
        parts.append(f'<path class="bar" d="M{x:.1f} {top:.1f}V{bottom:.1f}{bar}"/>{mark(i, x, y)}')
        parts.append(f'<circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="9"/></g>')
    return "\n".join([*parts, "</g>"])


def _share(at: float, low: float, high: float) -> float:
    return (at - low) / (high - low)


def _even(low: float, high: float) -> list[float]:
    """Round figures from low to high, evenly apart, 4 to 9 of them."""
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(size * part for part in (0.1, 0.2, 0.5, 1.0, 2.0) if (high - low) / (size * part) <= 8)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
