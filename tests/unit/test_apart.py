"""A process whose rows are stored one by one is the process itself in everything else."""

from __future__ import annotations

import inspect

import numpy as np

from anystep.bench.apart import Apart
from anystep.process import Process
from toy_adder import Adder


class Waits(Adder):
    def forced(self, states: object) -> np.ndarray:
        return np.array([True, False])


def test_it_hands_on_whatever_a_process_may_say() -> None:
    asked = {name for name, _ in inspect.getmembers(Process, inspect.isfunction) if not name.startswith("_")}
    assert asked - set(vars(Apart)) == {"merges"}, "it merges with nothing: each run has one of its own"


def test_a_forced_step_stays_forced() -> None:
    apart = Apart(Waits(total=4, skill=0.5), lambda reply: None)
    assert apart.forced(object()).tolist() == [True, False]
