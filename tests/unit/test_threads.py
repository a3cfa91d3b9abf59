"""How many threads torch is given, on machines of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from anystep.language import threads


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing set from outside, a machine of four cores, and torch as it was before at the end."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def never(count: int) -> float:
    raise AssertionError(f"{count} threads were tried")


def perfect(count: int) -> float:
    return 1 / count


def test_a_number_that_was_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    choice = threads.choose(cores=4, load=0.0, probe=never)
    assert (choice.threads, choice.why) == (3, "torch.set_num_threads was called")
    torch.set_num_threads(4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert threads.choose(cores=1, load=9.0, probe=never) == threads.Choice(4, "OMP_NUM_THREADS says so")


@pytest.mark.parametrize(("cores", "load"), [(1, 0.0), (1.5, 0.0), (2, 1.0), (2, 8.0), (4, 3.0)])
def test_one_thread_where_there_is_no_second_free_core(cores: float, load: float) -> None:
    assert threads.choose(cores, load, probe=never).threads == 1


@pytest.mark.parametrize(("cores", "load", "free"), [(2, 0.2, 2), (4, 0.1, 4), (4, 1.2, 3), (4, 2.4, 2), (2.5, 0, 2)])
def test_as_many_as_are_free_where_they_were_seen_to_pay(cores: float, load: float, free: int) -> None:
    assert threads.choose(cores, load, probe=perfect).threads == free
    assert threads.choose(cores, load, probe=lambda count: 1.0 if count == 1 else 0.9).threads == 1
    assert "1.1 times" in threads.choose(cores, load, probe=lambda count: 1.0 if count == 1 else 0.9).why


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_a_control_group_is_read(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert threads.quota(tmp_path) == quota
    assert threads.usable_cores(tmp_path) == (4 if quota is None else quota)


def test_trying_leaves_torch_as_it_was_and_settling_does_not() -> None:
    one, many = threads._tried(2)
    assert one > 0 and many > 0 and torch.get_num_threads() == 4
    assert threads.use(threads.Choice(2, "a test says so")).threads == 2
    assert torch.get_num_threads() == 2
    assert threads.settle() == threads.Choice(2, "torch.set_num_threads was called")
