"""Write the tables of docs/verdicts.md from docs/verdicts.json, measured by `benchmarks/verdicts.py`: `make docs`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, DATA = DOCS / "verdicts.md", DOCS / "verdicts.json"
BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Record = dict[str, Any]


def render(page: str, data: Record) -> str:
    """The page with every block between `<!-- made: NAME -->` and `<!-- end -->` written anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]](data)}{m[3]}", page)


def summary(data: Record) -> str:
    """One line a verifier: what it passes and refuses of the planted texts, how it ranks, and what a check costs."""
    head = ["verifier", "on", "passes at", "wrong ones passed", "right ones refused", "AUROC", "within a problem"]
    rows = []
    for name, record in data.items():
        p = record["planted"]
        cost = f"{p['cost']['tokens']:.0f} tokens, {1e3 * p['seconds']:.1f} ms" if p["cost"]["tokens"] else "no tokens"
        rows.append([name, record["on"], f"{p['threshold']:g}", *_rates(p), cost])
    return _table([*head, "a check costs"], rows)


def kinds(on: str) -> Callable[[Record], str]:
    """For the verifiers of one kind of text: a line a kind of error, the share of texts with that error that passes."""

    def table(data: Record) -> str:
        some = {name: r["planted"]["by_kind"] for name, r in data.items() if r["on"] == on}
        rows = []
        for kind in dict.fromkeys(kind for each in some.values() for kind in each):
            cells = [each.get(kind) for each in some.values()]
            counts = dict.fromkeys(str(c["n"]) for c in cells if c)  # a verifier may have been shown fewer
            rows.append([kind, ", ".join(counts), *("" if c is None else _percent(c) for c in cells)])
        return _table(["planted error", "texts", *some], rows)

    return table


def own(data: Record) -> str:
    """The model's own samples: verdicts, and calibration before and after a map fitted on the dev split."""
    head = [
        "verifier",
        "wrong ones passed",
        "right ones refused",
        "AUROC",
        "within a problem",
        "ECE",
        "ECE, calibrated",
    ]
    some = _sampled(data).items()
    rows = [[n, *_rates(r["own"]), _plain(r["own"]["ece"]), _plain(r["calibrated"]["ece"])] for n, r in some]
    return _table(head, rows)


def winner(data: Record) -> str:
    """The best of n by each verifier."""
    head = ["verifier", "n", "the winner is right", "wrong winners passed", "wrong among those passed"]
    rows = [
        [name if i == 0 else "", str(w["n"]), *(_percent(w[k]) for k in ("right", "false_positives", "wrong_passing"))]
        for name, record in _sampled(data).items()
        for i, w in enumerate(record["winner"])
    ]
    return _table(head, rows)


def curse(data: Record) -> str:
    """What a map of single samples says of the winner, what is true, and the error left by a map of winners."""
    head = ["verifier", "n", "it says", "it is right", "too much, hard", "too much, easy", "AUROC"]
    rows = []
    for name, record in _sampled(data).items():
        hard, easy = record["excess"]["hard"], record["excess"]["easy"]
        pairs = zip(record["winner_by_samples"], hard, easy, record["winner_by_winners"], strict=True)
        for i, (said, more, less, fits) in enumerate(pairs):
            means = [f"{100 * said['says']['value']:.1f}", f"{100 * said['right']['value']:.1f}"]
            figures = [_percent(more), _percent(less), *(_plain(fits[k]) for k in ("auroc", "samples", "winners"))]
            rows.append([name if i == 0 else "", str(said["n"]), *means, *figures])
    return _table([*head, "ECE, map of samples", "ECE, map of winners"], rows)


def threshold(data: Record) -> str:
    """Thresholds chosen on dev for 5% false positives, and what they let pass on test."""
    head = ["verifier", "threshold", "wrong samples passed", "right samples passed", "planted errors passed"]
    rows = [
        [name, f"{t['value']:.3g}", *(_percent(t[k]) for k in ("test", "right_pass", "planted"))]
        for name, t in ((name, r["threshold"]) for name, r in _sampled(data).items())
    ]
    return _table(head, rows)


def _sampled(data: Record) -> Record:
    return {name: record for name, record in data.items() if "winner" in record}


def _rates(p: Record) -> list[str]:
    return [_percent(p["false_positives"]), _percent(p["false_negatives"]), _plain(p["auroc"]), _plain(p["within"])]


def _percent(share: Record) -> str:
    if share["value"] is None:
        return ""
    low, high = 100 * share["low"], 100 * share["high"]
    return f"{100 * share['value']:.1f} [{low:.1f}, {high:.1f}]"


def _plain(figure: Record) -> str:
    return "" if figure["value"] is None else f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


TABLES: dict[str, Callable[[Record], str]] = {
    "summary": summary,
    "chains": kinds("chains"),
    "words": kinds("word problems"),
    "programs": kinds("programs"),
    "own": own,
    "winner": winner,
    "curse": curse,
    "threshold": threshold,
}


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), json.loads(DATA.read_text())), encoding="utf-8")
    print(f"wrote the tables of {PAGE.name}", file=sys.stderr)
