"""SmolLM2-135M's shipped uncertainty head on chains the model writes anew: it ranks, and changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from anystep import Ledger, Limit, verify
from anystep.calibrate import auroc
from anystep.experiments.uncertainty_head import fingerprint, states_of
from anystep.language import load
from anystep.language.train.worked import write
from anystep.tasks.lines import lines

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_the_shipped_head_ranks_the_steps_of_fresh_chains() -> None:
    engine = load("smollm2-135m")
    before = fingerprint(engine.model)
    tasks = [task for family in ("counts", "stories") for task in lines(6, family, split="dev", seed=7)]
    chains = write(engine, tasks, 3, seed=7)
    reward = verify.uncertainty_head(engine)
    states = states_of(engine, chains)
    steps = reward.steps(states, Limit(Ledger(), "test"))
    right = [float(label) for chain in chains for label in chain.labels]
    said = [p for row in range(len(chains)) for p in steps[row]]
    assert len(said) == len(right) > 60 and 0.2 < np.mean(right) < 0.8
    assert auroc(said, right).value > 0.8
    again = Limit(Ledger(), "test")
    reward(states, again)
    assert again.used.evaluations == 0 and fingerprint(engine.model) == before
