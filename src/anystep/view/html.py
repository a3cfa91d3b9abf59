"""A report as one HTML file that needs nothing else, with its JSON beside it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anystep.bench.report import Report
from anystep.errors import UsageError
from anystep.view.items import DIGEST, SCRIPT, problems
from anystep.view.plot import axes, curve, esc, legend
from anystep.view.style import STYLE
from anystep.view.tables import ORACLE, cost_rows, point_rows
from anystep.view.text import counted, duration


@dataclass(frozen=True)
class Figure:
    """Something drawn, and how to read it. svg: elements made here, put in as they are, by the title of their tab.
    png: a picture instead, with what it shows in words. legend: above it, made here too."""

    caption: str
    svg: Mapping[str, str] = field(default_factory=dict)
    png: bytes = b""
    alt: str = ""
    legend: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page: what was done, a transcript of (name, text) pairs, a comparison, figures, and a table of a head
    and rows."""

    heading: str
    paragraphs: tuple[str, ...] = ()
    transcript: tuple[tuple[str, str], ...] = ()
    report: Report | None = None
    figures: tuple[Figure, ...] = ()
    table: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None


def page(title: str, sections: Sequence[Section]) -> str:
    """The whole page: inline style and SVG, nothing fetched, light and dark; all text escaped. Where problems can be
    searched it has one script, which its policy names by digest."""
    body = "\n".join(_section(s, i) for i, s in enumerate(sections))
    searched = any(s.report is not None and s.report.items for s in sections)
    policy = "default-src 'none'; style-src 'unsafe-inline'" + (f"; script-src '{DIGEST}'" if searched else "")
    policy += "; img-src data:" if any(figure.png for s in sections for figure in s.figures) else ""
    script = f"<script>{SCRIPT}</script>\n" if searched else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{esc(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{esc(title)}</h1>
{body}
</main>
{script}</body>
</html>
"""


def write(folder: Path, stem: str, title: str, sections: Sequence[Section], record: str) -> tuple[Path, Path]:
    """Write `stem.html` and `stem.json` (the text `record`) into `folder`, made if need be; returns both paths.

    Raises UsageError where the folder cannot be written to.
    """
    paths = folder / f"{stem}.html", folder / f"{stem}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, (page(title, sections), record), strict=True):
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; give a folder, as in --out results.") from None
    return paths


def check_folder(folder: Path) -> None:
    """UsageError, before hours of work, where `write` could not write there afterwards."""
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise UsageError(
            f"cannot write to {folder}: {nearest} is no folder to write to; give one, as in --out results."
        )


def _section(s: Section, number: int) -> str:
    parts = [f"<section>\n<h2>{esc(s.heading)}</h2>" if s.heading else "<section>"]
    parts += [f"<p>{esc(text)}</p>" for text in s.paragraphs]
    if s.transcript:
        turns = "".join(f"<dt>{esc(who)}</dt><dd>{esc(text)}</dd>" for who, text in s.transcript)
        parts.append(f'<dl class="transcript">{turns}</dl>')
    if s.report is not None:
        parts += _comparison(s.report, number)
    parts += [_figure(figure, f"figure-{number}-{i}") for i, figure in enumerate(s.figures)]
    if s.table is not None:
        parts.append(_table(*s.table))
    return "\n".join([*parts, "</section>"])


def _figure(figure: Figure, name: str) -> str:
    if figure.png:
        data = b64encode(figure.png).decode()
        drawn = f'<img class="picture" src="data:image/png;base64,{data}" alt="{esc(figure.alt)}">'
    else:
        drawn = _tabs(name, figure.svg)
    return f"<figure>{figure.legend}\n{drawn}\n<figcaption>{esc(figure.caption)}</figcaption></figure>"


def _comparison(report: Report, number: int) -> list[str]:
    parts = [f'<p class="facts">{esc(facts(report))}</p>']
    if not report.complete:
        parts.append('<p class="warn">Cancelled before its end: what had finished is shown.</p>')
    by = axes(report)
    if by:
        drawn = _tabs(f"cost-{number}", {f"by {name}": curve(report, name) for name in by})
        parts.append(f"<figure>{legend(report)}\n{drawn}\n<figcaption>{esc(caption(report))}</figcaption></figure>")
    parts.append("<h3>At equal cost</h3>")
    parts.append("<p>The largest n of each method whose mean cost a problem stays within the budget.</p>")
    priced = [name for name in ("tokens", "money") if name in by] or ["tokens"]
    parts.append(_tabs(f"equal-{number}", {f"by {name}": _table(*cost_rows(report, name)) for name in priced}))
    parts.append("<h3>Every point</h3>")
    parts.append(_table(*point_rows(report, timings=True)))
    if report.oracles:
        parts.append(f'<p class="facts">{esc(ORACLE)}</p>')
    if report.notes:
        lines = "".join(f"<li>{esc(line)}</li>" for line in report.notes)
        parts.append(f'<h3>The data</h3><ul class="notes">{lines}</ul>')
    parts += problems(report)
    if report.command:
        parts.append(f"<h3>To run it again</h3><pre>{esc(report.command)}</pre>")
    parts.append(f'<p class="facts">{esc(machine(report))}</p>')
    return parts


def _tabs(name: str, panels: Mapping[str, str]) -> str:
    """Panels of which one is seen, chosen by radio buttons: no script."""
    if len(panels) == 1:
        return next(iter(panels.values()))
    parts = []
    for i, title in enumerate(panels):
        chosen = " checked" if i == 0 else ""
        parts.append(f'<input type="radio" name="{name}" id="{name}-{i}"{chosen}>')
        parts.append(f'<label for="{name}-{i}">{esc(title)}</label>')
    return (
        f'<div class="tabs">{"".join(parts)}'
        + "".join(f'<div class="panel">{p}</div>' for p in panels.values())
        + "</div>"
    )


def facts(report: Report) -> str:
    """What was compared on what, in one line."""
    items = len({t.item for t in report.trials})
    seeds = counted(len(report.seeds), "seed")
    limit = "".join(f", at most {cap:g} {what} a run" for what, cap in report.budget.items())
    failed = sum(t.failed for t in report.trials)
    unscored = sum(p.unscored for p in report.points)
    who = " on ".join(x for x in (report.model, report.task) if x)
    return (
        f"{who}: {counted(items, 'problem')}, {seeds} ({', '.join(map(str, report.seeds))}){limit}; "
        f"{counted(len(report.trials), 'run')} in {duration(report.seconds)}, "
        f"{failed:,} without an answer, {unscored:,} unscored."
    ).removeprefix(": ")


def caption(report: Report) -> str:
    """How to read the curve."""
    level = "The dashed level and its band are greedy. " if any(p.greedy for p in report.points) else ""
    return (
        f"Bars are 95% intervals over problems. On the frontier nothing cheaper is more accurate. {level}Points that "
        "would lie on each other are moved sideways by a few pixels; the table has their figures. Point at a mark to "
        "read it."
    )


def machine(report: Report) -> str:
    """When, on what and with which versions it was measured."""
    found = [report.date, *(f"{k} {v}" for k, v in report.hardware.items())]
    return "; ".join([*(x for x in found if x), *(f"{k} {v}" for k, v in report.versions.items())])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    kinds = [' class="text"' if column in ("method", "solver") else "" for column in head]
    columns = "".join(f"<th{kind}>{esc(cell)}</th>" for cell, kind in zip(head, kinds, strict=True))
    lines = [[f"<td{kind}>{esc(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)] for row in rows]
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>\n{body}</tbody></table></div>'
