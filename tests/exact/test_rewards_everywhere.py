"""Every verifier in every procedure: values in range, paid under its own name, and a refusal that loses nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Run, calibrate, drive, search, tasks, verify
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.train import checkpoint, labelled
from anystep.process import Process, Reward
from anystep.solve import process_for
from models import chain_engine
from tally import tally_engine

TASK = tasks.load("chains", 1, families="C", seed=3)[0]
PROGRAM = tasks.load("programs", 1, seed=3)[0]


@dataclass(frozen=True)
class Verifier:
    """How a verifier is made, the process it is used on, and whether it asks a model and so costs tokens."""

    make: Callable[[], Reward]
    process: Callable[[], Process]
    reads: bool = True


def chain() -> Process:
    return process_for(TASK, chain_engine())


def bytes_() -> Process:
    return LanguageProcess(tally_engine(), "Which?", unit="token", max_tokens=3, chat=False)


def calibrated() -> Reward:
    return calibrate.calibrated(verify.chain_steps(), [0.1, 0.2, 0.3, 0.6, 0.8, 0.9] * 10, [0, 0, 1, 0, 1, 1] * 10)


def judging(**options: Any) -> Callable[[], Reward]:
    return lambda: verify.judge(tally_engine(), scale={"Y": 1.0, "N": 0.0}, **options)


@cache
def ends() -> Path:
    """The card of a miniature outcome reward."""
    recipe = labelled.OutcomeRecipe(tokens=400, own=4, drawn=2, groups=4, micro=1)
    model, _ = labelled.train(labelled.outcomes(recipe), recipe)
    folder = Path(tempfile.mkdtemp())
    checkpoint.save(model, checkpoint.Card("ends", "outcome-reward", model.trunk.config, model.alphabet), folder)
    return folder / "ends.json"


own = cache(tally_engine)


def its_own() -> Process:
    return LanguageProcess(own(), "Which?", unit="step", stop="Y", max_tokens=3, chat=False)


def asking_itself() -> Reward:
    return verify.self_evaluation(own(), ask="Good?", scale={"Y": 1.0, "N": 0.0}, chat=False)


@cache
def aware() -> Engine:
    """A chain model under a name that says it has learned to ask itself, which is all that is read of it here."""
    plain = chain_engine()
    return Engine(plain.model, plain.tokenizer, name="mini-capability")


def its_outlook() -> Reward:
    return verify.self_evaluation_token(aware())


VERIFIERS = {
    "chain_outcome": Verifier(lambda: verify.chain_outcome(ends()), chain),
    "chain_steps": Verifier(verify.chain_steps, chain),
    "chain_steps, last": Verifier(lambda: verify.chain_steps(aggregate="last"), chain),
    "chain_steps, calibrated": Verifier(calibrated, chain),
    "collaborative_cot_pot": Verifier(verify.collaborative_cot_pot, chain),
    "equations": Verifier(lambda: verify.equations("How many?"), chain, reads=False),
    "natural_program, rules": Verifier(lambda: verify.natural_program(premises="#1a=9"), chain, reads=False),
    "oracle": Verifier(lambda: verify.oracle(TASK), chain, reads=False),
    "tests": Verifier(lambda: verify.tests(PROGRAM), chain, reads=False),
    "uncertainty_head": Verifier(verify.uncertainty_head, chain),
    "judge": Verifier(judging(), bytes_),
    "judge, sampling": Verifier(judging(samples=2, max_tokens=2), bytes_),
    "self_evaluation": Verifier(asking_itself, its_own),
    "self_evaluation_token": Verifier(
        lambda: verify.self_evaluation_token(aware()), lambda: process_for(TASK, aware())
    ),
    "win_rate": Verifier(lambda: verify.win_rate(verify.pairwise(tally_engine()), ["+", "-"]), bytes_),
}
METHODS: dict[str, Callable[[Reward], Any]] = {
    "best_of_n": lambda r: search.best_of_n(n=3, reward=r),
    "reward_majority": lambda r: search.best_of_n(n=3, reward=r).deciding(search.reward_majority),
    "beam": lambda r: search.beam(width=2, reward=r),
    "particle_filter": lambda r: search.particle_filter(n=3, potential=r.log_odds()),
    "mcts": lambda r: search.mcts(rounds=2, reward=r),
    "together": lambda r: search.together(search.best_of_n(n=2, reward=r), search.beam(width=2, reward=r)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verifier_serves_in_a_procedure(name: str, method: str) -> None:
    verifier = VERIFIERS[name]
    reward = verifier.make()
    reward.forget()
    (answer,) = drive(Run(verifier.process(), METHODS[method](reward), Budget(tokens=20_000), seed=1))
    assert answer.stopped_because == "finished" and answer.population is not None
    scores = answer.population.scores
    potential = reward.log_odds()
    low, high = potential.range if method == "particle_filter" else reward.range
    assert ((scores >= low) & (scores <= high))[~np.isnan(scores)].all()
    own = answer.costs.get(reward.source().name)
    assert (own is not None and own.tokens > 0) == verifier.reads
    assert sum(cost.tokens for cost in answer.costs.values()) == answer.cost.tokens


@pytest.mark.parametrize("name", [name for name, verifier in VERIFIERS.items() if verifier.reads])
def test_what_cannot_be_paid_is_left_unscored_and_the_run_has_its_answer(name: str) -> None:
    """Whatever the budget: never over it, and as soon as a sample is done there is an answer."""
    verifier = VERIFIERS[name]
    for tokens in (5, 40, 80, 160):
        reward = verifier.make()
        reward.forget()
        run = Run(verifier.process(), search.best_of_n(n=3, reward=reward), Budget(tokens=tokens), seed=1)
        (answer,) = drive(run)
        assert answer.cost.tokens <= tokens
        assert (answer.row is not None) == (answer.finished > 0)
