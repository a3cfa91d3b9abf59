"""Row 113: plans verified by extracted constraints, and a bandit that chooses per problem which search makes them.

Stated time: six minutes on one quiet core given the four models, and eight more the first time, when they are trained
(then they are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments._equal import Outcomes, no_cheaper, outcomes
from anystep.experiments._figures import held, paired, ratio, table
from anystep.experiments.check import Check, Result
from anystep.procedure import Method
from anystep.process import Floats, Process, Reward
from anystep.search.plangen import Played
from anystep.solve import process_for
from anystep.tasks.planning import planning
from anystep.tasks.task import Task
from anystep.verify import plan_constraints

ROW = 113
TEMPERATURE = 0.7
ROUNDS = 3

Make = Callable[[Reward], Method]


def _tree(reward: Reward) -> Method:
    """The tree of thoughts of the paper: three children a node, partial plans verified, the best kept."""
    return search.beam(width=2, reward=reward, branch=3)


def _rebase(reward: Reward) -> Method:
    """REBASE's kind: children allotted by reward, which a particle filter on the verifier's odds does by chance."""
    return search.particle_filter(n=10, potential=_Steering(reward, "steering"))


ALGORITHMS: dict[str, Make] = {
    "best of 5": lambda reward: search.best_of_n(n=5, reward=reward),
    "tree": _tree,
    "rebase": _rebase,
}
