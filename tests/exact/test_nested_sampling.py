"""Nested sampling: dynesty's numbers, evidences in closed form, calls counted, and gates that leave no trace."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anystep import UsageError
from anystep.bayes import NestedSampler, SurrogateNestedSampler
from anystep.bayes.nested import Architecture, Gate, GeneticSearch, surrogate
from anystep.bayes.nested.network import Network, fit, whitening
from anystep.bayes.nested.plain import IMPOSSIBLE, Stretch, stream
from anystep.experiments._evidences import Supernovae, Target, distance_modulus, gaussian, rough, skewed
from anystep.experiments.surrogate_nested_sampling import Pair, clauses, silent
from anystep.ledger import Budget

SMALL = Architecture(layers=2, width=32, updates=500, batch=64)
CENTRE, COVARIANCE = np.array([0.8, -1.1]), np.array([[1.0, 0.5], [0.5, 0.4]])
INVERSE = np.linalg.inv(COVARIANCE)
LOGZ = math.log(2 * math.pi) + 0.5 * math.log(np.linalg.det(COVARIANCE)) - 2 * math.log(10.0)


class Counted:
    """A correlated Gaussian in the plane, without its constant; it counts its calls."""

    def __init__(self, shift: float = 0.0, ripple: float = 0.0) -> None:
        self.calls, self.shift, self.ripple = 0, shift, ripple

    def __call__(self, x: Any) -> float:
        self.calls += 1
        depth = 0.5 * (x - CENTRE) @ INVERSE @ (x - CENTRE)
        return float(self.shift - depth + self.ripple * (depth < 1.5) * math.sin(1e6 * x.sum()))


def box(u: Any) -> Any:
    return -5 + 10 * u


def plane(target: Any, live: int = 100, **options: Any) -> SurrogateNestedSampler:
    return SurrogateNestedSampler(target, box, 2, live=live, architecture=SMALL, corrected=200, **options)


def same(one: Any, other: Any) -> bool:
    return (one.logz, one.logzerr) == (other.logz, other.logzerr) and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("samples", "weights", "log_likelihood")
    )


def test_the_plain_run_is_dynestys_and_counts_as_it_does() -> None:
    import dynesty

    target = Counted()
    ours = NestedSampler(target, box, 2, live=80).run(seed=3)
    theirs = dynesty.NestedSampler(Counted(), box, 2, nlive=80, rstate=np.random.Generator(np.random.Philox(3)))
    theirs.run_nested(print_progress=False)
    assert np.array_equal(ours.samples, theirs.results.samples)
    assert ours.logz == pytest.approx(theirs.results.logz[-1], abs=1e-9)
    assert ours.logzerr == pytest.approx(theirs.results.logzerr[-1], rel=1e-9)
    assert np.allclose(ours.weights, theirs.results.importance_weights(), atol=1e-12)
    assert ours.calls == target.calls == theirs.ncall and ours.stopped_because == "converged"
    information = math.log(100.0) - 0.5 * math.log(np.linalg.det(COVARIANCE)) - math.log(2 * math.pi * math.e)
    assert abs(ours.logz - LOGZ) < 5 * ours.logzerr and abs(ours.information - information) < 5 * ours.logzerr
    assert 100 < ours.ess < len(ours.weights)


def test_a_learned_likelihood_gives_the_same_evidence_for_fewer_calls() -> None:
    target = Counted(shift=-3e4)  # five per cent of this constant would let everything pass
    plain = NestedSampler(target, box, 2, live=100).run(seed=1)
    before, result = target.calls, plane(target).run(seed=1)
    assert result.swapped and result.calls == target.calls - before < plain.calls / 2
    assert result.calls == sum(cost.evaluations for cost in result.by.values())
    sd = np.sqrt(np.diag(COVARIANCE))
    pair = Pair(Target("plane", 2, target, box, LOGZ - 3e4, CENTRE, sd), 1, plain, result)
    wide = {
        c.clause: c for c in clauses("plane", [pair]) if "mean" not in c.clause
    }  # the means vary at 100 live points
    assert len(wide) == 4 and all(c.passed for c in wide.values())
    assert result.attempts[0].after >= 100 and result.correction_ess > 120
    assert np.abs((result.mean - CENTRE) / sd).max() < 0.4
    assert np.sign(result.covariance[0, 1]) == 1 and result.covariance.shape == (2, 2)


def test_a_gate_that_never_opens_leaves_the_plain_run_in_every_digit() -> None:
    square = (rough, lambda u: 2 * u - 1, 2)
    plain = NestedSampler(*square, live=50).run(seed=2)
    method = SurrogateNestedSampler(*square, live=50, architecture=SMALL, networks=2)
    result = method.run(seed=2)
    assert not result.swapped and [a.closed for a in result.attempts] == ["held out"] * 2
    assert same(plain, result) and result.iterations == plain.iterations
    nothing = np.full(2, math.nan)
    pair = Pair(Target("rough", 2, rough, square[1], math.nan, nothing, nothing), 2, plain, result)
    assert all(check.passed for check in silent([pair]))
    off = Pair(pair.target, 2, replace(plain, logz=plain.logz + 1e-12), result)
    assert not all(check.passed for check in silent([off]))
    assert result.calls == plain.calls + 2 * method.extra == plain.calls + result.by["extra"].evaluations


def test_a_network_that_fails_near_the_peak_leaves_no_trace() -> None:
    plain = NestedSampler(Counted(ripple=1.5), box, 2, live=60).run(seed=4)
    result = plane(Counted(ripple=1.5), live=60, retries=0, networks=2).run(seed=4)
    closed = [a.closed for a in result.attempts]
    assert set(closed) & {"monitor", "correction"}, "a network must have been let in for this test to say something"
    assert not result.swapped and same(plain, result)


class Wrong:
    """Knows the likelihood but for an error that tilts: what a network leaves after passing its gates."""

    def __init__(self, tilt: float) -> None:
        self.tilt = tilt

    def __call__(self, u: Any) -> Any:
        apart = box(u) - CENTRE
        return -0.5 * np.einsum("...i,ij,...j->...", apart, INVERSE, apart) + 0.4 + self.tilt * apart[..., 1]


@pytest.mark.parametrize("tilt", [0.0, 0.8])
def test_what_is_wrong_with_a_network_is_weighted_away(tilt: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "fit", lambda *told: Wrong(tilt))
    result = replace(plane(Counted(), live=200, gate=Gate(nats=5.0)), corrected=1_000).run(seed=5)
    assert result.learned is not None
    shift = 0.4 + 0.5 * tilt**2 * COVARIANCE[1, 1]  # the evidence of the tilted Gaussian, in closed form
    off = COVARIANCE[:, 1] * tilt  # and by how much its mean is off
    draws = 5 * tilt * math.sqrt(COVARIANCE[1, 1] / 1_000) + 0.02  # Monte Carlo error of the correction
    # the learned run still begins with true values, whose share of the evidence stays right
    assert result.correction == pytest.approx(-shift, abs=draws + 0.05)
    assert abs(result.logz - LOGZ) < 5 * result.logzerr
    sd = np.sqrt(np.diag(COVARIANCE))
    assert np.abs((result.mean - CENTRE) / sd).max() < 0.25
    assert np.abs((result.learned.mean - CENTRE - off) / sd).max() < 0.25
    assert result.correction_ess == pytest.approx(1_000 * math.exp(-(tilt**2) * COVARIANCE[1, 1]), rel=0.15)


def test_the_gate_measures_nats_below_the_best_and_takes_no_impossible_point() -> None:
    gate, true = Gate(nats=0.2, slope=0.05), np.array([-500.0, -502.0, -510.0, -600.0])
    wrong = true + np.array([0.25, -0.15, 0.45, 6.0])
    assert gate.within(true, wrong, -500.0) == 0.5
    assert gate.within(true + 1e6, wrong + 1e6, -500.0 + 1e6) == 0.5
    assert gate.within(np.array([-math.inf, -500.0]), np.array([-500.0, -500.0]), -500.0) == 0.5


def test_points_behind_one_another_integrate_as_one_run() -> None:
    n, decay = 2_000, 50.0
    logvol = -np.arange(1, n + 1) / 100
    one = Stretch(
        np.zeros((n, 1)), decay * (1 - np.exp(logvol)), logvol
    )  # L = exp(50 (1 - X)), whose integral is known
    split = Stretch(one.u[:150], one.logl[:150], logvol[:150]).then(
        Stretch(one.u[150:], one.logl[150:], logvol[150:] - logvol[149])
    )
    assert split.integrated()[0] == pytest.approx(one.integrated()[0], abs=1e-12)
    assert one.integrated()[0] == pytest.approx(math.log((math.exp(decay) - 1) / decay), abs=0.01)


def test_a_network_has_no_ties_and_is_the_same_again() -> None:
    u = stream(0).random((300, 3))
    logl = np.array([gaussian().log_likelihood(gaussian().prior(x)) for x in u])
    one, two = (fit(u, logl, float(logl.max()), SMALL, stream(7)) for _ in range(2))
    assert np.array_equal(one(u), two(u)) and np.allclose([one(x) for x in u[:5]], one(u[:5]), rtol=1e-12)
    flat = Network.__new__(Network)
    flat.__dict__ |= one.__dict__ | {"layers": [(np.zeros((3, 1)), np.ones(1))]}
    assert len(set(flat(u).tolist())) == len(u)
    centre, whiten = whitening(u @ np.array([[1.0, 0.7, 0.0], [0.0, 0.2, 3.0], [0.0, 0.0, 1.0]]))
    moved = (u @ np.array([[1.0, 0.7, 0.0], [0.0, 0.2, 3.0], [0.0, 0.0, 1.0]]) - centre) @ whiten
    assert np.allclose(np.cov(moved.T), np.eye(3), atol=1e-6)


def test_a_genetic_search_prefers_what_learns_and_calls_nothing() -> None:
    u = stream(1).random((200, 2))
    logl = -50 * ((u - 0.4) ** 2).sum(1)
    search = GeneticSearch(population=3, generations=2, updates=40, like=SMALL)
    found = search.best(u, logl, 0.0, stream(2))
    assert found == search.best(u, logl, 0.0, stream(2)) and found.updates == SMALL.updates
    target = Counted()
    result = replace(plane(target, live=40, networks=1, gate=Gate(nats=1e-9, slope=0)), architecture=search).run(seed=0)
    assert result.calls == target.calls == NestedSampler(Counted(), box, 2, live=40).run(seed=0).calls + 20


@pytest.mark.parametrize("calls", [30, 400])
def test_a_budget_is_never_overshot(calls: int) -> None:
    for method in (NestedSampler(Counted(), box, 2, live=100), plane(Counted())):
        result = method.run(seed=0, budget=Budget(evaluations=calls))
        assert result.calls == calls and result.stopped_because == "evaluations"
        assert result.weights.sum() == pytest.approx(1) and np.isfinite(result.logz)


def test_impossible_regions_weigh_nothing() -> None:
    def half(x: Any) -> float:
        return Counted()(x) if x[0] > CENTRE[0] else -math.inf

    result = NestedSampler(half, box, 2, live=80).run(seed=0)
    assert abs(result.logz - LOGZ + math.log(2)) < 5 * result.logzerr
    assert result.weights[result.log_likelihood <= IMPOSSIBLE].sum() == 0


def test_the_distances_and_the_grid_of_the_supernovae() -> None:
    from scipy.integrate import quad

    for m, w in ((0.3, -1.0), (0.15, -0.5), (0.6, -2.2)):
        rate = quad(lambda z, m=m, w=w: 1 / math.sqrt(m * (1 + z) ** 3 + (1 - m) * (1 + z) ** (3 + 3 * w)), 0, 1.1)[0]
        far = 5 * math.log10(299_792.458 / 70 * 2.1 * rate) + 25
        assert distance_modulus(np.array(m), np.array(w), np.array([1.1]))[0] == pytest.approx(far, abs=1e-6)
    data, low, high = Supernovae.drawn(n=6), np.array([0.2, -1.4, -0.2]), np.array([0.5, -0.6, 0.3])
    found = data.on_a_grid(low, high, 24)
    points = low + (high - low) * stream(3).random((4_000, 3))
    p = np.exp([data.log_likelihood(x) for x in points])
    assert abs(math.log(p.mean()) - found[0]) < 5 * p.std() / p.mean() / math.sqrt(len(p))
    assert np.allclose(p @ points / p.sum(), found[1], atol=0.02)


def test_the_skewed_evidence_is_a_density_behind_a_matrix() -> None:
    target = skewed()
    x = stream(4).gumbel(size=(200_000, 3)) * -1  # density exp(x - e^x)
    assert np.allclose(x.mean(0), -np.euler_gamma, atol=0.02) and np.allclose(x.var(0), np.pi**2 / 6, atol=0.03)
    corner = np.array([target.prior(np.zeros(3)), target.prior(np.ones(3))])
    assert ((target.mean - corner[0]) / target.sd > 5).all() and ((corner[1] - target.mean) / target.sd > 5).all()


def test_bad_calls_say_what_was_meant() -> None:
    with pytest.raises(UsageError, match="live=20"):
        NestedSampler(Counted(), box, 2, live=5)
    with pytest.raises(UsageError, match="dim is the number"):
        NestedSampler(Counted(), box, 0)
    with pytest.raises(UsageError, match=r"Gate\(nats=0.2"):
        Gate(nats=0.0)
    with pytest.raises(UsageError, match=r"Architecture\(width=0\)"):
        Architecture(width=0)
    with pytest.raises(UsageError, match="population=6"):
        GeneticSearch(population=2)
    with pytest.raises(UsageError, match="-math.inf where it is impossible"):
        NestedSampler(lambda x: math.nan, box, 2, live=50).run()
