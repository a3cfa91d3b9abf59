"""Marginalization models against enumeration: with exact networks everything is exact, and small ones learn."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep import Run, UsageError, keys, search
from anystep.bayes.amortised import (
    AnyOrderProcess,
    DataRecipe,
    EnergyRecipe,
    MarginalizationModel,
    MarginalShape,
    Stage,
)
from anystep.bayes.amortised.marginalization_net import untrained
from anystep.bayes.amortised.marginalization_training import from_data, from_energy, gibbs
from anystep.experiments._ising import Ising, subsets
from anystep.ledger import Ledger, Limit
from anystep.process import potential
from anystep.testing import check_process
from anystep.testing.runs import merged

LENGTH, SYMBOLS, SHIFT = 4, 3, 3.7
SHAPE = MarginalShape(LENGTH, SYMBOLS)


class Exact(torch.nn.Module):
    """A skewed law of 4 sites of 3 symbols, its marginals up to a shift, and its conditionals, by adding up a table.

    slope: what m says too much for each known site.
    """

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        rng = np.random.Generator(np.random.Philox(5))
        self.shape, self.slope = SHAPE, slope
        self.table = torch.from_numpy(rng.dirichlet(np.full(SYMBOLS**LENGTH, 0.4))).reshape((SYMBOLS,) * LENGTH)
        self.m = self.phi = SimpleNamespace(flops=lambda: 10.0)

        sums = self.table.numpy()
        for site in range(LENGTH):  # token 0 adds up the symbols of its site
            sums = np.concatenate([sums.sum(site, keepdims=True), sums], site)
        self.log = torch.from_numpy(np.log(sums))

    def marginal(self, tokens: Tensor) -> Tensor:
        return self.log[tuple(tokens.T)] + SHIFT + self.slope * (tokens != 0).sum(-1)

    def conditional(self, tokens: Tensor) -> Tensor:
        """Of a known site it answers something else, which nobody should read."""
        filled = tokens[:, None, None].repeat(1, LENGTH, SYMBOLS, 1)
        for site in range(LENGTH):
            filled[:, site, :, site] = 1 + torch.arange(SYMBOLS)
        return self.log[tuple(filled.movedim(-1, 0))].log_softmax(-1)


def model(slope: float = 0.0) -> MarginalizationModel:
    return MarginalizationModel(Exact(slope))  # type: ignore[arg-type]


STATES = np.stack(np.unravel_index(np.arange(SYMBOLS**LENGTH), (SYMBOLS,) * LENGTH), -1)
LAW = Exact().table.flatten().numpy()


def given(x: Any, mask: Any) -> Any:
    """log p(x_S) by adding up all states that agree."""
    agree = ((STATES[None] == x[:, None]) | ~mask[:, None]).all(-1)
    return np.log((agree * LAW).sum(-1))


def cases(n: int = 40) -> tuple[Any, Any]:
    rng = np.random.Generator(np.random.Philox(1))
    return rng.integers(0, SYMBOLS, (n, LENGTH)), rng.random((n, LENGTH)) < 0.5


def test_marginals_by_one_pass_and_by_many_are_the_enumerated_ones() -> None:
    x, mask = cases()
    exact = given(x, mask)
    assert np.allclose(model().log_marginal(x, mask), exact)
    for order in (None, (2, 0, 3, 1)):
        for batched in (False, True):
            assert np.allclose(model().log_chain(x, mask, order, batched), exact)
    everything = np.ones_like(mask)
    assert np.allclose(model().log_prob(x), given(x, everything))
    assert np.allclose(model().log_prob(x, (3, 1, 0, 2)), given(x, everything))


def test_what_is_masked_is_not_read() -> None:
    x, mask = cases()
    other = np.where(mask, x, -7)
    for ask in (model().log_marginal, model().log_conditionals, model().log_chain):
        assert np.array_equal(ask(x, mask), ask(other, mask))


def test_conditionals_are_the_enumerated_ones_and_certain_of_what_is_known() -> None:
    x, mask = cases()
    found = model().log_conditionals(x, mask)
    for site in range(LENGTH):
        for symbol in range(SYMBOLS):
            filled, more = x.copy(), mask.copy()
            filled[:, site], more[:, site] = symbol, True
            wanted = np.where(
                mask[:, site], np.log(np.where(x[:, site] == symbol, 1.0, 1e-300)), given(filled, more) - given(x, mask)
            )
            assert np.allclose(np.maximum(found[:, site, symbol], np.log(1e-300)), wanted)


def test_the_residual_is_zero_for_one_law_and_measures_what_is_not() -> None:
    x = STATES
    assert model().residual(x).largest < 1e-9
    gap = model(slope=0.25).residual(x)
    assert gap.rms == pytest.approx(0.25) and gap.mean == pytest.approx(0.25) and gap.largest == pytest.approx(0.25)


def test_samples_have_the_law_in_any_order_and_given_anything() -> None:
    """6,000 draws each: every frequency within five standard errors; false alarms below one in 10^4."""
    asked: list[dict[str, Any]] = [
        {},
        {"order": (3, 1, 0, 2)},
        {"given": (None, 2, None, 0)},
        {"given": (None, 2, None, 0), "order": (2, 1, 3, 0)},
    ]
    for turn, how in enumerate(asked):
        drawn = model().sample(6_000, seed=turn, **how)
        stands = [True if s is None else STATES[:, i] == s for i, s in enumerate(how.get("given", (None,) * LENGTH))]
        near(drawn, np.where(np.logical_and.reduce(np.broadcast_arrays(*stands)), LAW, 0.0))
    assert np.array_equal(model().sample(5, seed=3), model().sample(9, seed=3)[:5])


def near(drawn: Any, weights: Any, share: Any = None) -> None:
    p = weights / weights.sum()
    code = drawn @ SYMBOLS ** np.arange(LENGTH)[::-1]
    share = np.full(len(drawn), 1 / len(drawn)) if share is None else share
    found = np.bincount(code, share, len(p))
    most = 5 * np.sqrt(p * (1 - p) * (share**2).sum()) + 4 * share.max() * (
        p > 0
    )  # four draws: rare states are Poisson
    assert (np.abs(found - p) <= most).all()


def test_block_gibbs_keeps_the_law() -> None:
    """From 6,000 exact draws, three moves of two sites; and a move of all sites is a fresh draw."""
    draw, net = torch.Generator().manual_seed(0), Exact()
    tokens = torch.from_numpy(model().sample(6_000, seed=9)) + 1
    for _ in range(3):
        before, tokens = tokens, gibbs(net, tokens, 2, draw)  # type: ignore[arg-type]
        assert int((before != tokens).sum(-1).max()) == 2
    near(tokens.numpy() - 1, LAW)
    near(gibbs(net, torch.ones_like(tokens), LENGTH, draw).numpy() - 1, LAW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{}, {"order": (2, 0, 3, 1), "per_step": 3}, {"given": (None, 1, None, None)}, {"per_step": 2, "energy": True}],
    ids=str,
)
def test_any_order_sampling_is_a_lawful_process(options: dict[str, Any]) -> None:
    learned = MarginalizationModel(untrained(SHAPE, 0))
    check_process(AnyOrderProcess(learned, **(options | ({"energy": energy} if "energy" in options else {}))))


def energy(x: Tensor) -> Tensor:
    """Log of what the enumerated law weighs, and 1.5 more."""
    return torch.from_numpy(np.log(LAW[x.numpy() @ SYMBOLS ** np.arange(LENGTH)[::-1]]) + 1.5)


@pytest.mark.parametrize("order", [None, (1, 3, 0, 2)])
def test_log_probabilities_of_paths_are_masses(order: Any) -> None:
    process, born = AnyOrderProcess(model(), order), keys.roots(3, (), np.arange(30))
    limit = Limit(Ledger(), "test")
    reply = process.step(process.start(born, limit).states, born, limit, "done")
    x = np.array(process.answers(reply.states))
    orders = 0.0 if order else np.log(24)
    assert np.allclose(reply.logp + orders, given(x, np.ones_like(x, dtype=bool)))


def test_a_particle_filter_tilts_the_law() -> None:
    """2,000 particles of a potential on the symbols' sum: within five standard errors of enumeration, and the evidence
    within 5%."""
    tilt = potential(lambda s: 0.4 * (s.tokens * (s.tokens > 0)).sum(-1), "sum")
    (run,) = merged(lambda seed: Run(AnyOrderProcess(model()), search.particle_filter(2_000, tilt), seed=seed), [0])
    assert run.answer and run.answer.population is not None and run.answer.evidence is not None
    weights = LAW * np.exp(0.4 * (STATES + 1).sum(-1))
    population = run.answer.population
    share = population.weights / population.weights.sum()
    near(np.array(population.answers), weights, share)
    assert abs(np.exp(run.answer.evidence) / weights.sum() - 1) < 0.05


def test_with_an_energy_a_consistent_model_needs_no_weights_and_another_is_corrected() -> None:
    """The evidence of an untrained model: 200 filters of 8 within five standard errors of the normaliser."""
    process = AnyOrderProcess(model(), energy=energy)
    (run,) = merged(lambda seed: Run(process, search.particle_filter(8), seed=seed), [0])
    assert run.answer and run.answer.evidence == pytest.approx(1.5 + 0.0)
    assert np.ptp(run.answer.population.weights) < 1e-9  # type: ignore[union-attr]
    wrong = AnyOrderProcess(MarginalizationModel(untrained(SHAPE, 0)), energy=energy, given=(None, 2, None, None))
    runs = merged(lambda seed: Run(wrong, search.particle_filter(8), seed=seed), range(200))
    found = np.exp([r.answer.evidence for r in runs if r.answer and r.answer.evidence is not None])
    truth = np.exp(1.5) * LAW[STATES[:, 1] == 2].sum()
    assert len(found) == 200 and abs(found.mean() - truth) < 5 * found.std() / np.sqrt(200)


def test_training_from_data_learns_the_marginals() -> None:
    stage = Stage(updates=300, batch=128, rate=5e-3, average=0.98)
    recipe = DataRecipe(MarginalShape(LENGTH, SYMBOLS, 32, 1), stage, stage, drawn=2_000)
    net, record = from_data(recipe, torch.from_numpy(model().sample(8_000, seed=7)))
    learned = MarginalizationModel(net)
    x, (_, mask) = model().sample(200, seed=8), cases(200)
    assert np.abs(learned.log_marginal(x, mask) - given(x, mask)).mean() < 0.1
    assert record["residual"][-1] < 0.2 * record["residual"][0]
    assert learned.residual(x).rms < 0.2


def test_training_from_an_energy_learns_the_law_without_data() -> None:
    """A 2 x 3 Ising model with uneven fields: reverse divergence of phi along an order, by enumeration; the same law
    read backwards is far."""
    ising = Ising(2, 3, seed=4)
    stage = Stage(updates=400, batch=128, rate=5e-3, average=0.98)
    net, record = from_energy(EnergyRecipe(MarginalShape(6, 2, 32, 1), stage, block=2), ising.energy)
    learned = MarginalizationModel(net)
    log_q = learned.log_prob(ising.states, (5, 3, 1, 0, 2, 4))
    assert np.exp(log_q).sum() == pytest.approx(1.0, abs=1e-5)
    assert (np.exp(log_q) * (log_q - ising.log_p)).sum() < 0.05
    backwards = ising.energy(torch.from_numpy(ising.states[:, ::-1].copy())).numpy()
    backwards = backwards - np.logaddexp.reduce(backwards)
    assert (np.exp(log_q) * (log_q - backwards)).sum() > 0.2
    x, mask = ising.draw(200, 1), subsets(200, 6, 2)
    assert np.abs(learned.log_marginal(x, mask) - ising.log_marginal(x, mask)).mean() < 0.1
    assert record["residual"][-1] < 0.3 * record["residual"][0]


def test_models_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYSTEP_CACHE", str(tmp_path))
    stage = Stage(updates=3, batch=8)
    x, mask = cases(8)
    recipe = DataRecipe(MarginalShape(LENGTH, SYMBOLS, 8, 1), stage, stage)
    one, again = (MarginalizationModel.from_data(x, recipe) for _ in range(2))
    assert np.array_equal(one.log_marginal(x, mask), again.log_marginal(x, mask)) and one.record == again.record
    MarginalizationModel.from_data(x[::-1], recipe)
    energetic = EnergyRecipe(recipe.shape, stage)
    two = [MarginalizationModel.from_energy(energy, energetic, told="a table") for _ in range(2)]
    assert np.array_equal(two[0].log_marginal(x, mask), two[1].log_marginal(x, mask))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3
    assert one.settings() != two[0].settings() and one.settings() == again.settings()


def test_misuse_says_what_was_meant() -> None:
    x, mask = cases(2)
    for wrong in ((x[:, :3], mask), (x + 3, np.ones_like(mask)), (x[0], mask[0])):
        with pytest.raises(UsageError, match=r"log_marginal\(x, mask\)"):
            model().log_marginal(*wrong)
    with pytest.raises(UsageError, match="order=range"):
        model().sample(1, order=(0, 1, 1, 2))
    with pytest.raises(UsageError, match="leave a site"):
        AnyOrderProcess(model(), given=(0, 1, 2, 0))
    with pytest.raises(UsageError, match="do not fit"):
        from_data(DataRecipe(SHAPE), torch.full((5, LENGTH), SYMBOLS))
    with pytest.raises(UsageError, match="one log-density a row"):
        from_energy(EnergyRecipe(SHAPE), lambda x: x.double() * np.nan)
    with pytest.raises(UsageError, match="1 to length"):
        EnergyRecipe(SHAPE, block=5)
    with pytest.raises(UsageError, match="MarginalShape"):
        MarginalShape(0)
