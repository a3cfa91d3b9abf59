"""Every representation of inference means what its program means: compared as fractions, not as floats."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, keys, search
from anystep.bayes import (
    Factor,
    Finite,
    Normal,
    Observe,
    Program,
    ProgramProcess,
    Sample,
    TraceKernel,
    choice,
    evidence,
    flip,
    importance,
    measure,
    normalised,
    particle_marginal,
    smc,
    spawn,
    trace_mh,
)
from anystep.bayes.process import perform
from anystep.experiments._programs import STACKS, adders, moved, positive, sprinkler, uniforms, varying
from anystep.experiments.inference_representations import balance, caught
from anystep.ledger import Ledger, Limit
from anystep.testing import check_process
from anystep.testing.oracles import HiddenMarkov
from anystep.testing.runs import merged

MODELS: list[Program] = [sprinkler, varying]


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("model", MODELS)
def test_a_representation_means_what_its_program_means(model: Program, stack: Callable[[Program], Program]) -> None:
    assert positive(measure(stack(model))) == positive(measure(model))


def test_a_measure_is_right_by_hand() -> None:
    assert measure(sprinkler) == {
        True: F(1, 5) * (F(1, 100) * F(99, 100) + F(99, 100) * F(4, 5)),
        False: F(4, 5) * F(2, 5) * F(9, 10),
    }


def test_a_population_without_weight_is_carried_along() -> None:
    def impossible() -> Any:
        x = yield Sample(flip(F(1, 2)))
        yield Factor(F(0))
        return x

    assert not positive(measure(smc(impossible, 2, 2)))
    with pytest.raises(UsageError, match="impossible"):
        normalised(measure(impossible))


def test_particle_marginal_means_the_whole_model() -> None:
    def prior() -> Any:
        return (yield Sample(Finite((F(1, 3), F(3, 4)), (F(2, 5), F(3, 5)))))

    def model(p: F) -> Program:
        def run() -> Any:
            for seen in (True, False):
                hidden = yield Sample(flip(p))
                yield Observe(flip(F(4, 5) if hidden else F(1, 10)), seen)

        return run

    def whole() -> Any:
        p = yield from prior()
        yield from model(p)()
        return p

    assert measure(particle_marginal(prior, model, n=2, steps=1)) == measure(whole)


def test_programs_that_return_functions_run() -> None:
    found = normalised(measure(importance(adders, 2), key=lambda add: add(10)))
    assert found == {11: F(3, 7), 12: F(4, 7)}


def test_transitions_keep_detailed_balance() -> None:
    """mass(a) K(a, b) = mass(b) K(b, a) for traces of different lengths, as fractions."""
    broken, lengths = balance()
    assert broken == 0 and lengths > 0


def test_seeded_bugs_are_caught() -> None:
    """A dropped average weight, and a missing ratio of lengths, change what is enumerated."""
    assert caught() == 2
    assert positive(measure(lambda: moved(varying))) == positive(measure(varying))


def test_trace_mh_converges_to_the_posterior() -> None:
    """4,000 transitions: within five standard errors of as many independent draws, doubled for correlation."""
    chain = perform(trace_mh(varying, 4000), uniforms(0))
    for value, mass in normalised(measure(varying)).items():
        share, p = np.mean([v == value for v in chain]), float(mass)
        assert abs(share - p) < 10 * np.sqrt(p * (1 - p) / len(chain)), value


def test_filters_converge_to_the_posterior() -> None:
    drawn = [perform(smc(sprinkler, 40, 1)(), uniforms(seed)) for seed in range(150)]
    p = float(normalised(measure(sprinkler))[True])
    assert abs(np.mean(drawn) - p) < 5 * np.sqrt(p * (1 - p) / len(drawn)) + 0.02  # and the bias of 40 particles


def hmm(oracle: HiddenMarkov) -> Program:
    def program() -> Any:
        state, path = None, []
        for seen in oracle.observed:
            state = yield Sample(choice((oracle.initial if state is None else oracle.transition[state]).tolist()))
            path.append(state)
            yield Factor(oracle.emission[state, seen])
        return tuple(path)

    return program


def test_a_particle_filter_on_a_program_gives_its_evidence() -> None:
    """100 runs of 16 particles: within five standard errors of the exact evidence."""
    oracle = HiddenMarkov(steps=4)
    process = ProgramProcess(hmm(oracle), horizon=4, logp="mass")
    runs = merged(lambda seed: Run(process, search.particle_filter(n=16), seed=seed), range(100))
    found = np.exp([run.answer.evidence for run in runs if run.answer and run.answer.evidence is not None])
    assert abs(found.mean() - np.exp(oracle.evidence())) < 5 * found.std() / np.sqrt(len(found))


@pytest.mark.parametrize("model", MODELS)
def test_a_program_is_a_lawful_process(model: Program) -> None:
    check_process(ProgramProcess(model, horizon=4, logp="mass"))


def test_a_kernel_moves_states_and_keeps_their_law() -> None:
    """From 1,500 runs weighted by their factors, five transitions each: means within five standard errors."""
    process = ProgramProcess(varying, horizon=4, logp="mass")
    kernel, limit = TraceKernel(process), Limit(Ledger(), "test")
    born = keys.roots(0, (), np.arange(1500))
    reply = process.step(process.start(born, limit).states, born, limit, "done")
    states, weights = reply.states, np.exp(reply.logw)
    for turn in range(5):
        states = kernel.step(states, keys.children(born, 5, turn), limit, "step").states
    p = {value: float(mass) for value, mass in normalised(measure(varying)).items()}
    answers, share = np.array(kernel.answers(states)), weights / weights.sum()
    for value, mass in p.items():
        error = np.sqrt((share**2).sum() * mass * (1 - mass))
        assert abs((share * (answers == value)).sum() - mass) < 5 * error, value


def test_a_state_survives_its_process() -> None:
    process = ProgramProcess(varying, horizon=4, logp="mass")
    limit, born = Limit(Ledger(), "test"), keys.roots(1, (), np.arange(20))
    one = process.step(process.start(born, limit).states, born, limit, "step").states
    again = process.load(process.dump(one))
    assert again.contents() == one.contents() and [row.weight for row in again.rows] == [row.weight for row in one.rows]


def test_bad_programs_say_what_was_meant() -> None:
    with pytest.raises(UsageError, match="sums? ?ming to one"):
        Finite((0, 1), (F(1, 2), F(1, 3)))
    with pytest.raises(UsageError, match="positive"):
        Normal(0.0, 0.0)
    with pytest.raises(UsageError, match="no finite support"):
        measure(lambda: iter_normal())
    with pytest.raises(UsageError, match="horizon=100"):
        ProgramProcess(sprinkler, horizon=0)


def iter_normal() -> Any:
    yield Sample(Normal(0.0, 1.0))


def test_the_evidence_is_the_total_weight() -> None:
    assert evidence(spawn(sprinkler, 3)) == 1
