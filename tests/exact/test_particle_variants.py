"""The iterated and the parallel particle filter, against exact posteriors, evidences and transition laws.

Means over independent runs, |z| < 5: a false alarm with probability 6e-7 each. Laws by chi-square at 1e-6. Seeds are
fixed. Each test that a filter must pass is shown to fail where the property in question is taken away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Run, UsageError, drive, potential, search
from anystep.population import Population
from anystep.procedure import Exploring, Method, start, step
from anystep.search.parallel_tempering import Tempered, exchanged
from anystep.search.particle_gibbs import Line, multinomial, sweep
from anystep.testing import assert_law, assert_mean, merged, total_variation, weighed
from anystep.testing.oracles import EnumerableLM, HiddenMarkov
from anystep.testing.oracles.language import Tokens

LM = EnumerableLM(seed=3, length=3)


def psi(x: Tokens) -> float:
    return 0.9 * sum(x) - 0.8 * len(x) + 0.7 * np.sin(5 * sum(x))


PSI = potential(lambda states: np.array([psi(x) for x in states.tuples()]), "psi")
LAW, Z = LM.tilted(lambda x: float(np.exp(psi(x))))


def law_of(population: Population, process: Any = LM) -> dict[Any, float]:
    return weighed(process.answers(population.states), population.weights)


def means(make: Any, runs: int, process: Any = LM) -> np.ndarray:
    """Of independent runs, each output's weight in the final population: (runs, outputs)."""
    found = merged(lambda seed: Run(process, make, seed=seed), range(runs))
    laws = [law_of(run.answer.population, process) for run in found if run.answer and run.answer.population]
    return np.array([[law.get(x, 0.0) for x in LAW] for law in laws])


def test_gibbs_with_three_particles_comes_to_the_posterior_that_three_particles_miss() -> None:
    (answer,) = drive(Run(LM, search.particle_gibbs(n=3, sweeps=500, potential=PSI), seed=1))
    assert answer.population is not None and total_variation(law_of(answer.population), LAW) <= 0.07
    assert answer.value == max(LAW, key=lambda x: LAW[x])
    alone = means(search.particle_filter(n=3, potential=PSI, ess=1.0), 300).mean(0)
    assert total_variation(dict(zip(LAW, alone, strict=True)), LAW) > 0.1, "a filter of three alone would pass"


def test_gibbs_matches_smoothing_on_the_hidden_markov_model() -> None:
    hmm = HiddenMarkov(seed=1, steps=4)
    (answer,) = drive(Run(hmm, search.particle_gibbs(n=6, sweeps=300), seed=2))
    assert answer.population is not None
    for t, exact in enumerate(hmm.smoothing()):
        z = answer.population.states.z[:, t]
        found = [answer.population.weights[z == i].sum() for i in range(hmm.k)]
        assert np.abs(found - exact).sum() / 2 <= 0.1


def conditional(n: int, ess: float, free: bool = False) -> Method:
    """One sweep beside a reference that is drawn exactly from the posterior (or, as an ablation, from the model)."""

    def body() -> Exploring:
        line: Line = []
        while not line:  # exact draws by rejection: a sample of the model is kept with probability exp(psi) / its bound
            population = yield from start(1)
            trail = [population]
            while population.live.any():
                population = yield from step(population)
                trail.append(population)
            (x,) = population.states.tuples()
            bound = max(np.exp(psi(y)) for y in LAW)
            from anystep.procedure import draw

            if free or float((yield from draw(1))[0]) < np.exp(psi(x)) / bound:
                line = trail
        swept = yield from sweep(n, PSI, ess, line)
        return swept.line[-1]

    return Method("conditional", (), body, search.first_finished)


@pytest.mark.parametrize("n,ess", [(2, 1.0), (3, 0.6)])
def test_a_sweep_leaves_the_posterior_as_it_is_whatever_the_number_of_particles(n: int, ess: float) -> None:
    found = merged(lambda seed: Run(LM, conditional(n, ess), seed=seed), range(200))
    assert_law([run.answer.value for run in found if run.answer], LAW)


def test_a_sweep_beside_a_reference_from_elsewhere_does_not_hide_it() -> None:
    found = merged(lambda seed: Run(LM, conditional(2, 1.0, free=True), seed=seed), range(200))
    with pytest.raises(AssertionError):
        assert_law([run.answer.value for run in found if run.answer], LAW)


def test_the_evidence_of_gibbs_is_its_first_filter_s_and_unbiased() -> None:
    found = merged(lambda s: Run(LM, search.particle_gibbs(n=3, sweeps=2, potential=PSI), seed=s), range(150))
    assert_mean([np.exp(run.answer.evidence) for run in found if run.answer and run.answer.evidence is not None], Z)


def test_the_reference_s_line_is_kept_whole_and_costs_nothing() -> None:
    run = Run(LM, search.particle_gibbs(n=4, sweeps=6, potential=PSI), seed=3)
    (answer,) = drive(run)
    assert answer.population is not None and len(answer.population) == 24
    ids = answer.population.id.tolist()
    kept = [ids[4 * sweeps + 3] for sweeps in range(1, 6)]
    for sweeps, reference in enumerate(kept, 1):
        assert reference in ids[4 * (sweeps - 1) : 4 * sweeps], "the last particle is one of the sweep before"
    starts = sum(not parents for parents in run.books.family.parents)
    assert starts == 4 + 5 * 3, "n, and then n - 1 new ones a sweep"


def test_islands_weigh_by_their_evidence_and_so_come_to_the_posterior_at_any_size() -> None:
    for n in (1, 2):
        (answer,) = drive(Run(LM, search.particle_islands(islands=800, n=n, potential=PSI, ess=1.0)))
        assert answer.population is not None and answer.evidence is not None
        assert total_variation(law_of(answer.population), LAW) <= 0.1
        assert answer.evidence == pytest.approx(np.log(Z), abs=0.1)
    members = search.together(*[search.particle_filter(n=2, potential=PSI, ess=1.0)] * 800)
    (equal,) = drive(Run(LM, members))
    assert equal.population is not None and total_variation(law_of(equal.population), LAW) > 0.2


def test_one_island_is_the_filter_and_the_evidence_of_several_is_unbiased() -> None:
    one, alone = drive(
        Run(LM, search.particle_islands(islands=1, n=8, potential=PSI)),
        Run(LM, search.together(search.particle_filter(n=8, potential=PSI))),
    )
    assert one.population is not None and alone.population is not None
    assert one.population.key.tolist() == alone.population.key.tolist()
    assert np.allclose(one.population.weights, alone.population.weights)
    hmm = HiddenMarkov(seed=1, steps=5)
    found = merged(lambda s: Run(hmm, search.particle_islands(islands=3, n=3, ess=0.7), seed=s), range(100))
    assert_mean([np.exp(r.answer.evidence - hmm.evidence()) for r in found if r.answer and r.answer.evidence], 1.0)


def test_tempering_comes_to_the_posterior_at_its_coldest_and_its_hot_outputs_have_no_weight() -> None:
    method = search.parallel_tempering(n=4, sweeps=300, potential=PSI, temperatures=(3.0, 1.0))
    (answer,) = drive(Run(LM, method, seed=2))
    assert answer.population is not None and total_variation(law_of(answer.population), LAW) <= 0.1
    assert len(answer.population) == 2 * 4 * 300 and (answer.population.weights[4 * 300 :] == 0).all()
    values = [psi(x) for x in answer.population.states.tuples()]
    assert np.allclose(answer.population.scores, values), "scores are the potential's own, at every temperature"


def reference(x: Tokens, temperature: float) -> Line:
    (answer,) = drive(Run(LM, search.sample(n=1)))
    assert answer.population is not None
    return [answer.population.scored([psi(x) / temperature])]


def test_references_change_places_as_often_as_leaves_both_targets_as_they_are() -> None:
    """Exactly: the flow from (x, y) to (y, x) under the joint target equals the flow back."""
    temperatures = (2.0, 1.0)
    hot = {x: float(p) * np.exp(psi(x) / 2) for x, p in LM.outputs.items()}
    cold = {x: float(p) * np.exp(psi(x)) for x, p in LM.outputs.items()}
    u = (np.arange(400) + 0.5) / 400

    def rate(x: Tokens, y: Tokens) -> float:
        lines = [reference(x, 2.0), reference(y, 1.0)]
        return float(np.mean([exchanged(lines, temperatures, [v])[0] is lines[1] for v in u]))  # type: ignore[arg-type]

    outputs, moved = list(LM.outputs)[:4], 0
    for x in outputs:
        for y in outputs:
            there, back = hot[x] * cold[y] * rate(x, y), hot[y] * cold[x] * rate(y, x)
            assert there == pytest.approx(back, rel=0.02, abs=1e-3)
            moved += rate(x, y) < 1
    assert moved, "some exchanges are refused"


def test_nobody_changes_places_with_a_chain_that_has_no_reference() -> None:
    line = reference((1, 0), 1.0)
    assert exchanged([[], line], (2.0, 1.0), np.array([1e-9])) == [[], line]


def test_multinomial_draws_have_their_weights_law() -> None:
    weights = np.array([0.1, 0.0, 2.0, 0.9])
    found = multinomial(weights, (np.arange(3000) + 0.5) / 3000)
    assert np.allclose(np.bincount(found, minlength=4) / 3000, weights / 3.0, atol=1e-3)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="2 or more"):
        search.particle_gibbs(n=1, sweeps=3)
    for wrong in ((1.0, 2.0), (2.0,), (), (2.0, 2.0, 1.0), [2.0, 1.0]):
        with pytest.raises(UsageError, match="fall to 1"):
            search.parallel_tempering(2, 2, PSI, temperatures=wrong)
    assert Tempered(PSI, 2.0) == Tempered(PSI, 2.0) != Tempered(PSI, 3.0)
