"""Write docs/curves.md's tables, and each method page's part of them, from docs/curves.json: `make docs`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, DATA, METHODS = DOCS / "curves.md", DOCS / "curves.json", DOCS / "methods"
BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
OWN = re.compile(r"(<!-- made: curve -->\n).*?(<!-- end -->)", re.DOTALL)
BASE = ("greedy", "self_consistency")

Record = dict[str, Any]
Point = dict[str, Any]


def render(page: str, data: Record) -> str:
    """docs/curves.md with the block of every task written anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{whole(data[m[2]])}{m[3]}", page)


def whole(task: dict[str, list[Point]]) -> str:
    """All methods on one task, a line a point: the baselines, then the others by name."""
    rows = [[name, *_figures(p), ""] for name in BASE for p in task[name]]
    for name in sorted(task.keys() - set(BASE)):
        shown = f"[{name}](methods/{name}.md)" if (METHODS / f"{name}.md").exists() else name
        rows += [[shown if i == 0 else "", *_figures(p), _over(p)] for i, p in enumerate(task[name])]
    return _table(["method", "n", "tokens", "right", "minus the vote at no fewer tokens"], rows)


def own(page: str, name: str, data: Record) -> str:
    """A method's page with its block written anew; the block is put at its end where there is none."""
    if not OWN.search(page):
        page = page.rstrip("\n") + "\n\n## On the same two tasks\n\n<!-- made: curve -->\n<!-- end -->\n"
    return OWN.sub(lambda m: f"{m[1]}{part(name, data)}{m[2]}", page)


def part(name: str, data: Record) -> str:
    """One method's points on every task, and in words whether it beats the vote at equal tokens."""
    rows = [[title, *_figures(p), _over(p)] for title, task in data.items() for p in task[name]]
    table = _table(["task", "n", "tokens", "right", "minus the vote at no fewer tokens"], rows)
    said = " ".join(verdict(title, task[name]) for title, task in data.items())
    told = "[All methods on these tasks](../curves.md), with greedy and the votes."
    return f"{table}\n{said} {told}\n"


def verdict(title: str, points: list[Point]) -> str:
    """Whether some point's interval lies above, or all below or across, the vote's."""
    best = max(points, key=lambda p: p["over"][1])
    if best["over"][1] > 0:
        return f"On {title} it beats the vote at equal tokens (n={best['n']})."
    worst = min(points, key=lambda p: p["over"][2])
    if worst["over"][2] < 0:
        return f"On {title} it does **not** beat the vote at equal tokens; at n={worst['n']} it does worse."
    return f"On {title} it does **not** beat the vote at equal tokens: no interval is above 0."


def _figures(p: Point) -> list[str]:
    right = f"{100 * p['accuracy']:.1f} [{100 * p['low']:.1f}, {100 * p['high']:.1f}]"
    return [str(p["n"]), f"{p['tokens']:.0f}", right]


def _over(p: Point) -> str:
    value, low, high = (100 * x for x in p["over"])
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}] (vote of {p['vote']})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    data = json.loads(DATA.read_text(encoding="utf-8"))
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), data), encoding="utf-8")
    for name in next(iter(data.values())):
        path = METHODS / f"{name}.md"
        if name not in BASE and path.exists():
            path.write_text(own(path.read_text(encoding="utf-8"), name, data), encoding="utf-8")
    print(f"wrote the tables of {PAGE.name} and of the methods' pages", file=sys.stderr)


if __name__ == "__main__":
    main()
