"""Every representation of inference means what its program means: compared as fractions, not as floats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
    Particle,
    Program,
    ProgramProcess,
    Sample,
    Suspended,
    TraceKernel,
    advance,
    choice,
    collapse,
    evidence,
    flip,
    forward,
    importance,
    measure,
    mh_step,
    normalised,
    particle_marginal,
    push_evidence,
    representations,
    resample,
    smc,
    spawn,
    trace_mh,
    weighed,
)
from anystep.bayes.process import perform
from anystep.bayes.representations import Population
from anystep.testing import check_process
from anystep.testing.oracles import HiddenMarkov
from anystep.testing.runs import merged


def sprinkler() -> Any:
    rain = yield Sample(flip(F(1, 5)))
    on = yield Sample(flip(F(1, 100) if rain else F(2, 5)))
    yield Observe(flip({(1, 1): F(99, 100), (1, 0): F(4, 5), (0, 1): F(9, 10), (0, 0): F(0)}[int(rain), int(on)]), True)
    return rain


def varying() -> Any:
    """How many choices it makes, and which, depends on the choices; factors in between; no two sites are alike."""
    n = yield Sample(Finite((1, 2), (F(3, 5), F(2, 5))))
    total = 0
    for i in range(n):
        if (yield Sample(flip(F(1, 3 + i + total)))):
            total += 1
            yield Factor(F(2, 3))
    yield Factor(F(1, 2 + n))
    if total == 1:
        total += 10 * (yield Sample(Finite((0, 1, 2), (F(1, 7), F(4, 7), F(2, 7)))))
    return total


def adders() -> Any:
    """Returns a function: programs are higher-order."""
    n = yield Sample(Finite((1, 2), (F(1, 3), F(2, 3))))
    yield Factor(F(1, n + 1))
    return lambda x: x + n


MODELS: list[Program] = [sprinkler, varying]
STACKS: dict[str, Callable[[Program], Program]] = {
    "weighed": lambda model: lambda: weighed(Suspended(model)),
    "spawn": lambda model: lambda: collapse(spawn(model, 2)),
    "importance": lambda model: importance(model, 2),
    "resample": lambda model: lambda: _resampled(model, resample),
    "push_evidence": lambda model: lambda: _resampled(model, push_evidence),
    "filter": lambda model: smc(model, 2, 1),
    "transition": lambda model: lambda: _moved(model, mh_step),
    "resample-move": lambda model: lambda: _resample_move(model),
}


def _resampled(model: Program, how: Callable[[Population], Any]) -> Any:
    population = yield from forward(spawn(model, 2))
    return (yield from collapse((yield from how(population))))


def _moved(model: Program, kernel: Callable[[Suspended], Any]) -> Any:
    """A transition from the model's own law of traces, weighted by the factors of where it began."""
    state = yield from advance(Suspended(model), None)
    yield Factor(state.weight)
    return (yield from kernel(state)).value


def _resample_move(model: Program) -> Any:
    """Resampled after the first factor; one of the particles is moved by a transition of its trace so far."""
    first, second = yield from resample((yield from forward(spawn(model, 2))))
    shifted = Particle((yield from mh_step(first.of)), first.weight)
    return (yield from collapse([shifted, second]))


def positive(found: dict[Any, Any]) -> dict[Any, Any]:
    return {value: mass for value, mass in found.items() if mass}


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
    flow: dict[tuple[Any, Any], Any] = measure(
        lambda: _both_ends(varying), key=lambda ends: tuple(tuple(v for _, v in s.trace) for s in ends)
    )
    lengths = {len(a) - len(b) for (a, b), mass in flow.items() if mass and a != b}
    assert min(lengths) < 0 < max(lengths)
    for (a, b), mass in flow.items():
        assert mass == flow.get((b, a), 0), (a, b)


def _both_ends(model: Program) -> Any:
    state = yield from advance(Suspended(model), None)
    yield Factor(state.weight)
    return state, (yield from mh_step(state))


def _average_weight_dropped(population: Population) -> Any:
    return [replace(p, weight=F(1, len(population))) for p in (yield from resample(population))]


def test_a_dropped_average_weight_is_caught() -> None:
    broken = measure(lambda: _resampled(sprinkler, _average_weight_dropped))
    assert positive(broken) != positive(measure(sprinkler))


def test_a_missing_length_factor_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(representations, "lengths", lambda old, new: F(1))
    assert positive(measure(lambda: _moved(varying, mh_step))) != positive(measure(varying))


def uniforms(seed: int) -> Any:
    where = 0
    while True:
        yield from keys.uniforms(keys.roots(seed, (), np.arange(1))[0], where, np.arange(64)).tolist()
        where += 1


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
    kernel, limit = TraceKernel(process), merged_limit()
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


def merged_limit() -> Any:
    from anystep.ledger import Ledger, Limit

    return Limit(Ledger(), "test")


def test_a_state_survives_its_process() -> None:
    process = ProgramProcess(varying, horizon=4, logp="mass")
    limit, born = merged_limit(), keys.roots(1, (), np.arange(20))
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
