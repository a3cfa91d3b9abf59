"""The page of curves, and each method's part of it, say what was measured."""

from __future__ import annotations

import json

import pytest

from scripts import script


def test_the_tables_are_those_of_the_file() -> None:
    page = script("tools/curves_page.py")
    data = json.loads(page.DATA.read_text())
    text = page.PAGE.read_text()
    assert text == page.render(text, data), "run `make docs`"
    names = [name for name in next(iter(data.values())) if name not in page.BASE]
    for name in names:
        path = page.METHODS / f"{name}.md"
        assert path.read_text() == page.own(path.read_text(), name, data), f"{path.name} is stale: run `make docs`"


def test_every_method_is_measured_on_every_task_and_can_be_again() -> None:
    bench = script("benchmarks/curves.py")
    data = json.loads(bench.DATA.read_text())
    assert set(data) == set(bench.TASKS)
    for task in data.values():
        assert set(task) == {"greedy", "self_consistency", *bench.METHODS}
        for name, (ns, _) in bench.METHODS.items():
            assert [p["n"] for p in task[name]] == list(ns)
            assert all(len(p["right"]) == bench.PROBLEMS for p in task[name])
            assert all(p["over"][0] == pytest.approx(p["accuracy"] - equal(task, p), abs=1e-3) for p in task[name])


def equal(task: dict, p: dict) -> float:
    return next(v["accuracy"] for v in task["self_consistency"] if v["n"] == p["vote"])
