"""What is shown is safe, fits and says what was measured."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep import Budget, Cost, Run, UsageError, drive, search
from anystep.bench import Entry, Item, Report, compare
from anystep.view import (
    Live,
    Meter,
    Section,
    check_folder,
    clipped,
    cost_line,
    cost_rows,
    curve,
    duration,
    figure,
    page,
    point_rows,
    printable,
    text_table,
    write,
)
from anystep.view.items import SCRIPT
from anystep.view.plot import APART, _dodged, _scale, axes, frontier, ticks
from toy_adder import Adder, Right, adder_for, adding

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\b\u202e[bold red]boo[/] <script>alert(1)</script> \"' onload=x & \ud800"


def report() -> Report:
    def best(n: int, task: object) -> object:
        return search.best_of_n(n=n, reward=Right(task.meta["total"]))

    entries = [Entry("best_of_n", best, (1, 4, 16)), Entry("knows", best, (1, 4, 16), oracle=True)]
    return compare(entries, adding(12, frozenset({1})), adder_for, title="Sums", model="adder", task="sums")


@pytest.fixture(scope="module")
def found() -> Report:
    return report()


@given(st.text())
def test_printable_text_cannot_act_on_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert printable(shown) == shown
    shown.encode("utf-8")


def test_printable_text_keeps_what_is_written() -> None:
    plain = "2 + 2 = 4\n\tπ ≈ 3.14 日本 \U0001f469\u200d\U0001f4bb é"
    assert printable(plain) == plain
    assert printable("a\x1b[31mb\r\nc") == "a\\x1b[31mb\nc"
    assert printable("\u202e") == "<U+202E>"


def test_numbers_read_well() -> None:
    assert [figure(x) for x in (0, 7, 12.34, 1234.5, 0.0412, float("nan"), None)] == [
        "0", "7", "12.3", "1,234", "0.0412", "n/a", "n/a",
    ]  # fmt: skip
    assert [duration(s) for s in (0.44, 12.2, 185, 3720)] == ["0.4 s", "12 s", "3 min 05 s", "1 h 02 min"]
    assert clipped("a  long\nline of words", 11) == "a lon…words"
    line = cost_line(Cost(prompt=1000, generated=234, calls=2, seconds=1.5, estimated=True))
    assert line == "1,234 tokens (1,000 prompt, 234 generated), 2 calls, 1.5 s (estimated)"


def test_a_table_lines_up_and_shows_what_was_measured(found: Report) -> None:
    head, rows = point_rows(found)
    assert head == ["method", "n", "accuracy", "95% interval", "against greedy", "tokens", "calls", "unscored"]
    assert len(rows) == 1 + 3 + 3 + 3 and rows[0][4] == "-"
    assert rows[-1][0] == "knows [oracle]"
    lines = text_table(head, rows).splitlines()
    edge = lines[0].index("n ", 8) if "n " in lines[0][8:] else 0
    assert all(line[: lines[1].index("  ")].strip() for line in lines[2:]) and edge
    assert "\x1b" not in text_table(["a"], [[HOSTILE]])


class Elements(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def hostile_page(found: Report) -> str:
    labels = tuple(HOSTILE + label for label in found.labels)
    said = {"answer": HOSTILE, "text": HOSTILE + "!", "error": HOSTILE, "stopped_because": HOSTILE}
    trials = tuple(replace(t, label=HOSTILE + t.label, item=HOSTILE + t.item, **said) for t in found.trials)
    items = tuple(Item(HOSTILE + i.id, HOSTILE, HOSTILE) for i in found.items)
    bad = replace(found, trials=trials, labels=labels, greedy=HOSTILE + "greedy", model=HOSTILE, task=HOSTILE)
    bad = replace(bad, items=items, notes=(HOSTILE,), command=HOSTILE)
    return page(HOSTILE, [Section(HOSTILE, (HOSTILE,), ((HOSTILE, HOSTILE),), bad)])


def test_the_page_escapes_hostile_text_everywhere(found: Report) -> None:
    text = hostile_page(found)
    seen = Elements(text)
    assert set(seen.tags).isdisjoint({"img", "iframe", "link", "object", "a"})
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert "alert(1)" in text and the_only_script(text) == SCRIPT
    assert seen.tags.count("details") > len(found.items) and text.count("owned") > 10 * len(found.items)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    text.encode("utf-8")


def test_the_page_fetches_nothing(found: Report) -> None:
    text = page("Sums", [Section("", report=found)])
    assert "default-src 'none'" in text
    assert not re.search(r"https?:|url\(|@import|src=|href=", text)
    assert the_only_script(text) == SCRIPT
    assert not re.search(r"fetch|XMLHttp|WebSocket|innerHTML|eval|import", SCRIPT)
    bare = page("Sums", [Section("", report=replace(found, items=()))])
    assert "<script" not in bare and "script-src" not in bare


def the_only_script(text: str) -> str:
    """The page's script, which is the one that its policy allows by digest."""
    (found,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and text.count("<script") == 1
    return str(found)


def test_every_problem_shows_its_runs(found: Report) -> None:
    text = page("Sums", [Section("", report=found)])
    assert text.count('<details class="item"') == len(found.items) == 12
    kinds = re.findall(r'data-kind="([^"]*)"', text)
    assert kinds[1] == "unscored" and {k for kind in kinds for k in kind.split()} >= {"differ", "unscored"}
    marks = re.findall(r'<span class="marks">(.*?)</summary>', text)
    assert all(re.sub(r"<[^>]+>", "", m).count("✓") + len(re.findall("[✗?]", m)) == len(found.labels) for m in marks)
    assert re.sub(r"<[^>]+>", "", marks[1]) == "????"
    rows = text[text.index("Every problem") :].count("<tr>") - len(found.items)
    assert rows == len(found.trials)
    many = replace(found, items=found.items * 200)
    assert "400 more problems stand in the JSON" in page("x", [Section("", report=many)])


def test_the_axis_of_cost_may_be_changed_where_more_was_measured(found: Report) -> None:
    priced = replace(
        found, trials=tuple(replace(t, cost=replace(t.cost, money=t.cost.tokens / 1e6)) for t in found.trials)
    )
    assert "by money" in page("x", [Section("", report=priced)]) and axes(priced)[:2] == ["tokens", "money"]
    assert "by money" not in page("x", [Section("", report=found)]) and "money" not in point_rows(found)[0]
    assert "money" in point_rows(priced)[0] and cost_rows(priced, "money")[0][0] == "at most money"
    for by in axes(priced):
        assert len(list(ET.fromstring(curve(priced, by)).iter("title"))) == len(found.points)


def test_the_frontier_only_rises_and_oracles_are_not_on_it(found: Report) -> None:
    best = frontier(found.points)
    assert best[0].tokens == min(p.tokens for p in found.points) and not any(p.oracle for p in best)
    for a, b in zip(best, best[1:], strict=False):
        assert a.tokens < b.tokens and a.accuracy.value < b.accuracy.value
    top = max(p.accuracy.value for p in found.points if not p.oracle)
    assert best[-1].accuracy.value == top


def test_differences_at_equal_cost_are_paired_with_self_consistency(found: Report) -> None:
    head, rows = cost_rows(found)
    assert head[5] == "against self_consistency"
    against = {(row[1], row[2]): row[5] for row in rows[-4:]}
    assert against["self_consistency", "16"] == "-"
    points = {(p.label, p.n): p for p in found.points}
    gap = found.difference(points["best_of_n", 16], points["self_consistency", 16])
    assert against["best_of_n", "16"].startswith(f"{100 * gap.value:+.1f} (")
    assert gap.value == pytest.approx(
        points["best_of_n", 16].accuracy.value - points["self_consistency", 16].accuracy.value
    )


def test_the_curve_is_well_formed_and_holds_every_point(found: Report) -> None:
    drawn = ET.fromstring(curve(found))
    titles = [t.text or "" for t in drawn.iter("title")]
    assert len(titles) == len(found.points)
    assert any(t.startswith("best_of_n, n = 16: ") and "160 tokens" in t for t in titles)
    lines = [e for e in drawn.iter("polyline") if e.get("class") == "line"]
    assert len(lines) == len(found.labels)
    assert [bool(e.get("stroke-dasharray")) for e in lines] == [False, False, False, True]  # the oracle's


def test_points_keep_apart_and_stay_near_their_place(found: Report) -> None:
    points = [p for p in found.points]
    scale = _scale(points)
    at = _dodged(points, scale)
    ordered = sorted(at)
    assert all(b - a > APART * 0.9 for a, b in zip(ordered, ordered[1:], strict=False))
    assert all(abs(x - scale.across(p.tokens)) < 3 * APART for x, p in zip(at, points, strict=True))


@given(low=st.floats(1, 1e5), ratio=st.floats(1.3, 1e4))
def test_ticks_are_round_few_and_inside(low: float, ratio: float) -> None:
    found = ticks(low, low * ratio)
    assert len(found) <= 10
    assert all(low <= t <= low * ratio for t in found)
    assert len(found) >= 1 or ratio < 2


def test_nothing_measured_draws_nothing() -> None:
    empty = compare([Entry("a", lambda n, t: search.sample(n=n), (1,))], adding(2, frozenset({0, 1})), adder_for)
    assert curve(empty) == ""
    assert "n/a" in page("x", [Section("", report=empty)])


def test_a_report_is_two_files_in_a_folder_that_is_checked_first(found: Report, tmp_path: Path) -> None:
    html, beside = write(tmp_path / "a" / "b", "c", "Sums", [Section("", report=found)], found.to_json())
    assert html.read_text().startswith("<!doctype html>")
    assert Report.from_json(beside.read_text()).to_json() == found.to_json()
    (tmp_path / "file").write_text("")
    for refuse in (check_folder, lambda folder: write(folder, "c", "", [], "")):
        with pytest.raises(UsageError, match="cannot write to"):
            refuse(tmp_path / "file")


class Rude(Adder):
    """Its texts try to take the terminal over."""

    def texts(self, states: object) -> tuple[str, ...]:
        return (HOSTILE,) * len(states)


@pytest.mark.parametrize("terminal", [False, True])
def test_the_live_view_shows_a_run_and_neutralises_what_it_wrote(terminal: bool) -> None:
    stream = io.StringIO()
    with Live(HOSTILE, stream, terminal=terminal, every=0.0) as live:
        budget = Budget(tokens=60, seconds=50)
        run = Run(Rude(12, 0.9, steps=5), search.self_consistency(n=4), budget, show=live.show, watch=live.watch)
        live.show(1, HOSTILE)
        drawn = live._drawn().plain if terminal else live.line()
        drive(run)
        drawn += live._drawn().plain if terminal else live.line()
    for expected in ("tokens", "of 60", "seconds", "of 50", "0 live, 4 done", "best so far", "owned"):
        assert expected in drawn
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", drawn)
    assert "[bold red]" in drawn  # shown, never read as markup
    said = stream.getvalue()
    assert said and "\x1b]0;" not in said and "\x07" not in said
    if not terminal:
        assert "\x1b" not in said
    assert live.run is run


def test_a_quiet_view_says_nothing_but_knows_the_run() -> None:
    stream = io.StringIO()
    with Live("x", stream, terminal=False, every=0.0, quiet=True) as live:
        run = Run(Adder(12, 0.9), search.self_consistency(n=2), show=live.show, watch=live.watch)
        drive(run)
    assert stream.getvalue() == "" and live.run is run


def test_the_view_follows_one_state_at_a_time() -> None:
    live = Live("x", io.StringIO(), terminal=False, every=1e9)
    for key, piece in ((7, "a"), (8, "b"), (7, "c")):
        live.show(key, piece)
    assert live.tail == "ac"


def test_the_meter_beats_while_nothing_is_said() -> None:
    stream = io.StringIO()
    with Meter(stream, terminal=False, every=0.0) as meter:
        meter.say("\x1b[31mworking", 0.5)
        while stream.getvalue().count("working") < 2:
            assert meter.seconds < 30
        meter.note("a line")
    assert "50%" in stream.getvalue() and "a line\n" in stream.getvalue() and "\x1b" not in stream.getvalue()
    drawn = io.StringIO()
    with Meter(drawn, terminal=True) as meter:
        meter.say("working", 0.25)
        while "━━━━━───────────────" not in drawn.getvalue():
            assert meter.seconds < 30
    assert drawn.getvalue().endswith("\r\x1b[2K")
