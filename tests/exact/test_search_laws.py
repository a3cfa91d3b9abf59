"""What guided methods say they preserve or find, against exact posteriors, evidences and optima.

Evidence tests are means over thousands of runs, |z| < 5: a false alarm with probability 6e-7 each; seeds are fixed.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from anystep import Process, Run, drive, potential, reward, search
from anystep.process import Potential, Status
from anystep.search.particle import systematic
from anystep.testing import assert_mean, merged, total_variation, weighed
from anystep.testing.oracles import EnumerableLM, HiddenMarkov, LinearGaussian, MixtureDiffusion
from anystep.testing.oracles.language import Tokens

LM = EnumerableLM(seed=3, length=5)


def psi(x: Tokens) -> float:
    return 0.6 * sum(x) - 0.5 * len(x)


def steering(how: str) -> Potential:
    """psi where a state is finished; anywhere else, whatever `how` says: it must not matter."""

    def values(states: Any) -> np.ndarray:
        exact = np.array([psi(x) for x in states.tuples()])
        done = LM.status(states) == Status.DONE
        elsewhere = {"partly": exact, "nothing": 0 * exact, "noise": 2 * np.sin(17.0 * exact + states.size)}[how]
        return np.where(done, exact, elsewhere)

    return potential(values, how)


def test_weighted_particles_match_the_tilted_posterior() -> None:
    exact, _ = LM.tilted(lambda x: np.exp(psi(x)))
    for how in ("partly", "nothing", "noise"):
        (answer,) = drive(Run(LM, search.particle_filter(n=4000, potential=steering(how))))
        assert answer.population is not None and answer.population.answers is not None
        found = weighed(answer.population.answers, answer.population.weights)
        assert total_variation(found, exact) <= 0.05
        assert answer.value == max(exact, key=lambda x: exact[x])
    assert total_variation(LM.outputs, exact) > 0.15, "a filter that did nothing would pass"


def test_a_reward_s_log_odds_tilt_by_its_odds() -> None:
    r = reward(lambda states: np.array([(1 + sum(x)) / 12 for x in states.tuples()]), "r")
    exact, z = LM.tilted(lambda x: Fraction(1 + sum(x), 12) / (1 - Fraction(1 + sum(x), 12)))
    assert isinstance(z, Fraction)
    (answer,) = drive(Run(LM, search.particle_filter(n=4000, potential=r.log_odds())))
    assert answer.population is not None and answer.evidence is not None
    assert total_variation(weighed(answer.population.answers or (), answer.population.weights), exact) <= 0.05
    assert answer.evidence == pytest.approx(float(np.log(float(z))), abs=0.05)


def evidences(process: Process, log_z: float, runs: int = 1000, **options: Any) -> np.ndarray:
    """Estimates over the exact evidence, from independent small filters."""
    found = merged(lambda seed: Run(process, search.particle_filter(n=4, **options), seed=seed), range(runs))
    return np.array([np.exp((run.answer.evidence or 0.0) - log_z) for run in found if run.answer])


@pytest.mark.parametrize("how,ess", [("partly", 0.7), ("noise", 0.0), ("noise", 1.0)])
def test_the_evidence_is_unbiased_on_the_language_model(how: str, ess: float) -> None:
    _, z = LM.tilted(lambda x: np.exp(psi(x)))
    assert_mean(evidences(LM, float(np.log(z)), potential=steering(how), ess=ess), 1.0)


@pytest.mark.parametrize("ess,runs", [(0.5, 1200), (1.0, 600)])
def test_the_evidence_is_unbiased_on_the_hidden_markov_model(ess: float, runs: int) -> None:
    hmm = HiddenMarkov(seed=1, steps=5)
    ratios = evidences(hmm, hmm.evidence(), runs=runs, ess=ess)
    assert_mean(ratios, 1.0)
    with pytest.raises(AssertionError):
        assert_mean(np.log(ratios), 0.0)  # its log is biased low: the test can tell


def test_the_evidence_is_unbiased_on_the_linear_gaussian_model() -> None:
    model = LinearGaussian()
    assert_mean(evidences(model, model.evidence(), runs=800, ess=0.9), 1.0)


def test_the_evidence_is_unbiased_on_the_diffusion() -> None:
    diffusion, c = MixtureDiffusion(steps=4), np.array([0.5, -0.3])
    assert_mean(evidences(diffusion, diffusion.law.tilted(c)[1], potential=diffusion.linear(c)), 1.0)


def test_particles_match_smoothing_filtering_and_tilted_means() -> None:
    hmm = HiddenMarkov(seed=1)
    (answer,) = drive(Run(hmm, search.particle_filter(n=4000)))
    assert answer.population is not None
    for t, exact in enumerate(hmm.smoothing()):
        z = answer.population.states.z[:, t]
        found = [answer.population.weights[z == i].sum() for i in range(hmm.k)]
        assert np.abs(found - exact).sum() / 2 <= 0.05
    assert np.allclose(hmm.smoothing()[-1], hmm.filtering()[0][-1])
    model = LinearGaussian()
    (answer,) = drive(Run(model, search.particle_filter(n=4000)))
    mean, covariance, _ = model.kalman()
    assert answer.population is not None
    found = answer.population.weights @ answer.population.states.x
    assert np.abs(found - mean).max() < 0.1 * np.sqrt(np.diag(covariance)).max()
    diffusion, centre = MixtureDiffusion(), np.array([0.5, 0.5])
    pull = potential(lambda s: -((diffusion.denoised(s.x, diffusion.sigmas[s.t]) - centre) ** 2).sum(-1) / 2, "pull")
    exact_law, log_z = diffusion.law.pulled(centre, 1.0)
    (answer,) = drive(Run(diffusion, search.particle_filter(n=4000, potential=pull)))
    assert answer.population is not None
    assert np.abs(answer.population.weights @ answer.population.states.x - exact_law.mean()).max() < 0.1
    assert answer.evidence == pytest.approx(log_z, abs=0.1)
    assert np.abs(diffusion.law.mean() - exact_law.mean()).max() > 0.2, "a filter that did nothing would pass"


def test_values_of_unfinished_states_telescope_away_exactly() -> None:
    """Without resampling the final weights are exp(psi) of the finished state, whatever was said on the way."""
    answers = [drive(Run(LM, search.particle_filter(64, steering(how), ess=0.0)))[0] for how in ("nothing", "noise")]
    one, other = (a.population for a in answers)
    assert one is not None and other is not None
    assert one.answers == other.answers and np.allclose(one.weights, other.weights, rtol=1e-10)
    tilts = np.exp([psi(x) for x in one.answers or ()])
    assert np.allclose(one.weights, tilts / tilts.sum())


def test_systematic_resampling_is_unbiased_and_rounds_to_a_neighbour() -> None:
    weights = np.array([0.05, 0.0, 0.41, 0.17, 0.37])
    grid = (np.arange(20_000) + 0.5) / 20_000
    counts = np.array([np.bincount(systematic(weights, u), minlength=5) for u in grid])
    assert (np.abs(counts - 5 * weights) < 1).all()
    assert np.allclose(counts.mean(0), 5 * weights, atol=2e-4)


FLAT = potential(lambda states: np.zeros(len(states)), "flat")
HOPELESS = potential(lambda states: -3.0 * states.size, "hopeless")


def test_a_star_finds_the_most_probable_output() -> None:
    wrong = 0
    for seed in range(60):
        lm = EnumerableLM(seed=seed, vocab=3, length=5, expands=True)
        best = max(lm.outputs.values())
        for heuristic in (lm.to_go(), FLAT):
            run = Run(lm, search.astar(heuristic, branch=3))
            (answer,) = drive(run)
            assert lm.outputs[answer.value] == best  # type: ignore[index]
            if heuristic is not FLAT:  # a perfect heuristic opens no state off the best path
                assert run.spent.calls == len(answer.value)  # type: ignore[arg-type]
        (misled,) = drive(Run(lm, search.astar(HOPELESS, branch=3)))
        wrong += lm.outputs[misled.value] != best  # type: ignore[index]
    assert wrong > 5, "a heuristic that underestimates should miss some"


LIKES = reward(lambda s: np.sin([1.7 * psi(x) + 3 * len(x) for x in s.tuples()]), "likes", (-1, 1))


def value(x: Tokens) -> float:
    return float(np.sin(1.7 * psi(x) + 3 * len(x)))


def test_a_beam_as_wide_as_the_tree_is_exhaustive() -> None:
    missed = 0
    for seed in range(40):
        lm = EnumerableLM(seed=seed, vocab=3, length=4, expands=True)
        best = max(value(x) for x in lm.outputs)
        (wide,) = drive(Run(lm, search.beam(width=len(lm.outputs), reward=LIKES, branch=3)))
        assert value(wide.value) == pytest.approx(best)  # type: ignore[arg-type]
        assert wide.population is not None and set(wide.population.answers or ()) == set(lm.outputs)
        (narrow,) = drive(Run(lm, search.beam(width=1, reward=LIKES, branch=3)))
        missed += value(narrow.value) < best - 1e-9  # type: ignore[arg-type]
    assert missed == 40, "one state wide, the reward of unfinished states leads it astray here"


def test_tree_search_converges_to_the_best_leaf() -> None:
    found = {}
    for rounds in (1, 150):
        hits = 0
        for seed in range(10):
            lm = EnumerableLM(seed=seed, vocab=3, length=4, expands=True)
            (answer,) = drive(Run(lm, search.mcts(LIKES, rounds=rounds, branch=3), seed=seed))
            hits += value(answer.value) >= max(value(x) for x in lm.outputs) - 1e-9  # type: ignore[arg-type]
        found[rounds] = hits
    assert found[150] == 10 and found[1] < 10


def test_tree_search_does_not_change_when_reward_and_range_are_rescaled() -> None:
    lm = EnumerableLM(seed=2, length=5)
    scaled = reward(lambda s: 40 * LIKES.function(s) + 7, "scaled", (-33, 47))  # type: ignore[attr-defined]
    unscaled_range = reward(LIKES.function, "wider", (-100, 100))  # type: ignore[attr-defined]
    one, same, other = drive(
        *(Run(lm, search.mcts(r, rounds=25, branch=2), seed=5) for r in (LIKES, scaled, unscaled_range))
    )
    assert one.family.parents == same.family.parents and one.value == same.value
    assert one.family.parents != other.family.parents, "the declared range is what is normalised by"


def test_together_explores_as_each_would_beside_any_other() -> None:
    lm = EnumerableLM(seed=2, length=5)
    first, second = search.particle_filter(n=5, potential=steering("partly")), search.sample(n=4)
    solo, pair, other = drive(
        *(
            Run(lm, method)
            for method in (
                search.together(first),
                search.together(first, second),
                search.together(search.mcts(LIKES, rounds=4), second),
            )
        )
    )
    assert solo.population is not None and pair.population is not None and other.population is not None
    assert pair.population.answers is not None and other.population.answers is not None
    assert pair.population.answers[:5] == solo.population.answers
    assert pair.population.key[:5].tolist() == solo.population.key.tolist()
    assert pair.population.answers[5:] == other.population.answers[-4:]
    assert pair.population.key[5:].tolist() == other.population.key[-4:].tolist()
    assert len(set(pair.population.key.tolist())) == 9


def test_together_merges_its_members_calls() -> None:
    lm = EnumerableLM(seed=2, length=5)
    trees = [search.mcts(LIKES, rounds=8, branch=2) for _ in range(8)]
    (merged_trees,) = drive(Run(lm, search.together(*trees)))
    (tree,) = drive(Run(lm, trees[0]))
    assert merged_trees.cost.calls < 3 * tree.cost.calls  # of the eight
    assert merged_trees.cost.tokens > 3 * tree.cost.tokens
