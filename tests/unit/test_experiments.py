"""Checks compute their own verdicts, results survive a file, and experiments are found by any of their names."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anystep.errors import UsageError
from anystep.experiments import Check, Result, discover, find
from anystep.experiments.check import OPERATORS

finite = st.floats(allow_nan=False, allow_infinity=False)
checks = st.builds(
    Check,
    clause=st.text(min_size=1),
    value=st.floats(),
    op=st.sampled_from(sorted(OPERATORS)),
    bound=st.floats(allow_nan=False),
    interval=st.none() | st.tuples(finite, finite).map(lambda ends: (min(ends), max(ends))),
)


@pytest.mark.parametrize(
    ("value", "op", "bound", "passed"),
    [
        (0.05, "<=", 0.05, True),
        (0.0501, "<=", 0.05, False),
        (5, ">", 5, False),
        (5, ">=", 5, True),
        (3, "==", 3, True),
        (3, "!=", 3, False),
        (math.nan, "!=", 3, False),
        (math.nan, "<", math.inf, False),
        (math.inf, ">", 1, True),
    ],
)
def test_a_check_computes_its_verdict(value: float, op: str, bound: float, passed: bool) -> None:
    assert Check("c", value, op, bound).passed is passed


@given(st.lists(checks, min_size=1, max_size=4), st.integers(0, 2**31), st.text())
def test_a_result_survives_its_file(several: list[Check], seed: int, notes: str) -> None:
    result = Result("particle_filter", 34, tuple(several), 1.25, seed, notes)
    again = Result.from_json(result.to_json())
    assert repr(again) == repr(result)  # repr, since NaN differs from itself
    assert again.passed == result.passed


def test_a_verdict_is_not_read_back_from_the_file() -> None:
    text = Result("x", 34, (Check("c", 1.0, ">=", 2.0),), 0.0).to_json()
    assert '"passed": false' in text
    assert not Result.from_json(text.replace('"passed": false', '"passed": true')).passed


def test_malformed_checks_are_refused() -> None:
    with pytest.raises(UsageError, match="op is one of"):
        Check("c", 1.0, "=>", 2.0)
    with pytest.raises(UsageError, match="needs a number"):
        Check("c", 1.0, ">=", math.nan)
    with pytest.raises(UsageError, match="low, high"):
        Check("c", 1.0, ">=", 0.0, interval=(2.0, 1.0))
    with pytest.raises(UsageError, match="one check for each clause"):
        Result("x", 34, (), 0.0)


def test_a_result_is_saved_under_its_name(tmp_path: Path) -> None:
    result = Result("x", 34, (Check("c", 1.0, "<", 2.0, (0.5, 1.5)),), 0.5, 7, "sizes")
    assert result.save(tmp_path) == tmp_path / "x.json"
    assert Result.from_json((tmp_path / "x.json").read_text()) == result


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with one experiment, for row 34, and one helper."""
    folder = tmp_path / "some_experiments"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_shared.py").write_text("")
    (folder / "rollouts.py").write_text(
        textwrap.dedent(
            """
            from anystep.experiments import Check, Result

            ROW = 34

            def run(seed=0, progress=print):
                progress("half way")
                return Result("rollouts", ROW, (Check("seed", seed, "==", 3),), 0.0, seed)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "some_experiments"
    for name in [m for m in sys.modules if m.startswith("some_experiments")]:
        del sys.modules[name]


def test_an_experiment_is_found_by_module_row_and_public_name(package: str) -> None:
    (experiment,) = discover(package)
    for name in ("rollouts", 34, "34", "particle-filter", "search.particle_filter"):
        assert find(name, package) == experiment
    said: list[str] = []
    result = experiment.run(seed=3, progress=said.append)
    assert result.passed and said == ["half way"]


def test_what_has_no_experiment_is_said_so(package: str) -> None:
    with pytest.raises(UsageError, match="did you mean rollouts"):
        find("rolouts", package)
    with pytest.raises(
        UsageError, match="row 74 .diffusion.HumanMAC. is planned, with no experiment yet; try: rollouts"
    ):
        find(74, package)
    with pytest.raises(UsageError, match="experiments: rollouts"):
        find("zzzzzz", package)


def test_a_module_that_is_no_experiment_is_refused(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "loose.py").write_text("ROW = 'thirty-four'\n")
    with pytest.raises(UsageError, match="loose is no experiment"):
        discover(package)


def test_this_project_s_experiments_load_and_name_distinct_rows() -> None:
    named = [e.row for e in discover()]
    assert len(set(named)) == len(named)
