"""A comparison as rows of text: every method at every n, and what each buys at equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from anystep.bench.report import Point, Report, equal_cost
from anystep.calibrate.interval import Interval
from anystep.view.text import figure, printable

ORACLE = "[oracle] reads the answer key: an upper bound on what choosing could reach, not a result."
HEAD = ("method", "n", "accuracy", "95% interval", "against greedy", "tokens", "calls")


def point_rows(report: Report, timings: bool = False) -> tuple[list[str], list[list[str]]]:
    """Heading and rows, one a point. Columns that say nothing (no failures, all scored, no prices) are left out.

    timings: with mean seconds a run.
    """
    points = report.points
    failed, unscored = any(p.failed for p in points), any(p.unscored for p in points)
    partial, money = len({p.items for p in points}) > 1, any(p.money for p in points)
    head = [*HEAD, *(["money"] if money else []), *(["seconds"] if timings else []), *(["items"] if partial else [])]
    head += [*(["no answer"] if failed else []), *(["unscored"] if unscored else [])]
    rows = []
    for p in points:
        row = [name(p), str(p.n), percent(p.accuracy.value), span(p.accuracy), gained(p.gain)]
        row += [("~" if p.estimated else "") + figure(p.tokens), figure(p.calls)]
        row += [*([figure(p.money)] if money else []), *([figure(p.seconds)] if timings else [])]
        row += [str(p.items)] if partial else []
        rows.append(row + ([str(p.failed)] if failed else []) + ([str(p.unscored)] if unscored else []))
    return head, rows


def cost_rows(report: Report, by: str = "tokens") -> tuple[list[str], list[list[str]]]:
    """Heading and rows at equal cost: for each budget, what every method's largest affordable n answers, and how that
    differs from self-consistency (without it greedy) at the same budget, on the items both have a score of."""
    points = report.points
    order = [p for p in points if not p.oracle] + [p for p in points if p.oracle]
    named = {p.label: name(p) for p in order}
    base = next((label for label in named if label.startswith("self_consistency")), report.greedy)
    rows = []
    for row in equal_cost(points, by=by):
        for i, (label, shown) in enumerate(named.items()):
            p, reference = row.best[label], row.best.get(base)
            found = ["-"] * 5
            if p is not None:
                against = None if label == base or reference is None else report.difference(p, reference)
                found = [str(p.n), percent(p.accuracy.value), span(p.accuracy), gained(against), figure(getattr(p, by))]
            rows.append(["" if i else figure(row.budget), shown, *found])
    return [f"at most {by}", "method", "n", "accuracy", "95% interval", f"against {base}", by], rows


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by spaces; those of figures to the right. Every cell is made printable."""
    cells = [[printable(cell).replace("\n", " ").replace("\t", " ") for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    right = [bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("─" * w for w in widths), *lines[1:]])


def name(p: Point) -> str:
    """A point's label; an oracle's says what it is."""
    return f"{p.label} [oracle]" if p.oracle and "[oracle]" not in p.label else p.label


def percent(x: float) -> str:
    return "n/a" if math.isnan(x) else f"{100 * x:.1f}%"


def span(i: Interval) -> str:
    return "n/a" if math.isnan(i.low) else f"{100 * i.low:.1f} to {100 * i.high:.1f}"


def gained(i: Interval | None) -> str:
    """A paired difference in points, with its interval."""
    if i is None:
        return "-"
    return "n/a" if math.isnan(i.value) else f"{100 * i.value:+.1f} ({100 * i.low:+.1f} to {100 * i.high:+.1f})"


def _numeric(cell: str) -> bool:
    return cell in ("", "-", "n/a") or cell.lstrip("+-~")[:1].isdigit()
