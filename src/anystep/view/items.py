"""Every problem with every run of it: what was answered, whether it was right, what it cost; to be searched offline."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence

from anystep.bench.report import Report
from anystep.bench.trial import Trial
from anystep.view.plot import COLOURS, esc
from anystep.view.text import clipped, counted, figure

MOST = 2_000  # problems that a page shows; its JSON holds all
MOST_TEXTS = 3_000  # runs up to which a page shows whole outputs
LONGEST = 1_500

# The one script of a page: it hides rows of what is on the page. The policy allows it by its digest, and no other.
SCRIPT = """
for (const box of document.querySelectorAll('.find')) {
  const items = [...box.parentElement.querySelectorAll('.item')];
  const [words, kind, told] = [box.querySelector('input'), box.querySelector('select'), box.querySelector('output')];
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let n = 0;
    for (const item of items) {
      const text = item.textContent.toLowerCase();
      const kinds = item.dataset.kind.split(' ');
      const fits = wanted.every(w => text.includes(w)) && (!kind.value || kinds.includes(kind.value));
      item.hidden = !fits;
      n += fits;
    }
    told.textContent = `${n} of ${items.length}`;
  };
  box.hidden = false;
  words.addEventListener('input', show);
  kind.addEventListener('change', show);
  show();
}
"""
DIGEST = "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()

KINDS = {
    "": "all problems",
    "differ": "methods differ",
    "wrong": "none is right",
    "failed": "with failed runs",
    "unscored": "unscored",
}


def problems(report: Report) -> list[str]:
    """The problems as HTML, each to be opened for its runs; nothing where the report does not know its problems."""
    if not report.items:
        return []
    by_item: dict[str, list[Trial]] = {}
    for trial in report.trials:
        by_item.setdefault(trial.item, []).append(trial)
    shown = report.items[:MOST]
    options = "".join(f'<option value="{kind}">{told}</option>' for kind, told in KINDS.items())
    labels = {label: series for series, label in enumerate(report.labels)}
    parts = [
        "<h3>Every problem</h3>",
        f'<p class="facts">{esc(_reading(report))}</p>',
        '<div class="problems"><div class="find" hidden>'
        '<input type="search" placeholder="Search questions and answers" aria-label="Search">'
        f'<select aria-label="Which problems">{options}</select><output></output></div>',
    ]
    for item in shown:
        trials = by_item.get(item.id, [])
        parts.append(_item(item.id, item.question, item.reference, trials, labels, len(report.trials) <= MOST_TEXTS))
    if len(report.items) > len(shown):
        parts.append(
            f"<p>{counted(len(report.items) - len(shown), 'more problem')} stand in the JSON beside this page.</p>"
        )
    return [*parts, "</div>"]


def _reading(report: Report) -> str:
    marks = "A mark a method, in the order of the legend, at its largest n and first seed: ✓ right, ✗ wrong, ! failed"
    texts = "" if len(report.trials) <= MOST_TEXTS else " Whole outputs stand in the JSON beside this page."
    return f"{marks}, ? unscored, · not run. Open a problem for all of its runs.{texts}"


def _item(
    name: str, question: str, reference: str, trials: Sequence[Trial], labels: dict[str, int], texts: bool
) -> str:
    marks = "".join(f'<span class="c{k % COLOURS}">{_mark(label, trials)}</span>' for label, k in labels.items())
    summary = (
        f"<summary><span>{esc(clipped(name, 40))}</span>"
        f'<span class="asked">{esc(clipped(question, 160))}</span><span class="marks">{marks}</span></summary>'
    )
    right = f"<p><b>Right:</b> <span>{esc(reference)}</span></p>" if reference else "<p>The data has no answer.</p>"
    head = ("method", "n", "seed", "answer", "score", "tokens", "calls", "why it ended")
    columns = "".join(f"<th{_left(c)}>{c}</th>" for c in head)
    rows = "\n".join(_row(t, texts) for t in trials)
    table = f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div>'
    asked = f'<p class="said">{esc(_short(question))}</p>'
    kinds = " ".join(_kinds(trials))
    return f'<details class="item" data-kind="{kinds}">{summary}<div>{asked}{right}{table}</div></details>'


def _left(column: str) -> str:
    return ' class="text"' if column in ("method", "answer", "why it ended") else ""


def _row(t: Trial, texts: bool) -> str:
    kind = {1.0: ' class="right"', 0.0: ' class="wrong"'}.get(t.score, "")
    score = "unscored" if math.isnan(t.score) else figure(t.score)
    said = esc("" if t.answer is None else _short(t.answer, 200))
    if texts and t.text is not None and t.text.strip() != (t.answer or "").strip():
        said += f'<details><summary>output</summary><span class="said">{esc(_short(t.text))}</span></details>'
    why = t.stopped_because + (f": {_short(t.error, 300)}" if t.error else "")
    money = f", {figure(t.cost.money)} money" if t.cost.money else ""
    cells = [f'<td class="text">{esc(t.label)}</td>', f"<td>{t.n}</td>", f"<td>{t.seed}</td>"]
    cells += [f'<td class="wide">{said}</td>', f"<td{kind}>{score}</td>"]
    cells += [f"<td>{figure(t.cost.tokens)}{money}</td>", f"<td>{figure(t.cost.calls)}</td>"]
    return f'<tr>{"".join(cells)}<td class="wide">{esc(why)}</td></tr>'


def _mark(label: str, trials: Sequence[Trial]) -> str:
    """How a method's largest n and first seed came out."""
    mine = [t for t in trials if t.label == label]
    if not mine:
        return "·"
    most = max(t.n for t in mine)
    t = next(t for t in mine if t.n == most)
    if t.failed:
        return "!"
    return "?" if math.isnan(t.score) else "✓" if t.score >= 0.5 else "✗"


def _kinds(trials: Sequence[Trial]) -> list[str]:
    scores = [t.score for t in trials if not math.isnan(t.score)]
    found = {
        "differ": len(set(scores)) > 1,
        "wrong": bool(scores) and max(scores) < 0.5,
        "failed": any(t.failed for t in trials),
        "unscored": len(scores) < len(trials),
    }
    return [kind for kind, holds in found.items() if holds]


def _short(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} […] {text[-most // 2 :]}"
