"""What the experiment on marginalization models trains: recipes, their ablations, digits, an autoregressive rival."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anystep import kept
from anystep.averaged import averaged
from anystep.bayes.amortised import DataRecipe, EnergyRecipe, MarginalizationModel, MarginalShape, Stage
from anystep.bayes.amortised.marginalization_net import untrained
from anystep.bayes.amortised.marginalization_training import Say, asked, orders, sampled
from anystep.errors import UsageError
from anystep.experiments._ising import Ising, Symbols

SITES = 16
BOARD = MarginalShape(SITES)


@dataclass(frozen=True)
class Sizes:
    """How long everything is trained; smaller in the tests."""

    energy: int = 3_000
    ablation: int = 600
    data: int = 2_500
    rows: int = 20_000  # exact draws of the Ising model to learn from


def energy_recipe(updates: int, alpha: float = 1.0, persistent: bool = True) -> EnergyRecipe:
    return EnergyRecipe(BOARD, Stage(updates), alpha, persistent=persistent)


def from_energy(ising: Ising, recipe: EnergyRecipe, say: Say | None = None) -> MarginalizationModel:
    return MarginalizationModel.from_energy(ising.energy, recipe, asdict(ising), say)


def from_draws(ising: Ising, sizes: Sizes, say: Say | None = None) -> MarginalizationModel:
    stage = Stage(sizes.data)
    return MarginalizationModel.from_data(ising.draw(sizes.rows, 1), DataRecipe(BOARD, stage, stage), say)


def reinforced(ising: Ising, updates: int, batch: int = 256, seed: int = 0) -> MarginalizationModel:
    """The rival without m: phi alone, from the energy, by REINFORCE on fresh samples; sampling and scoring each take a
    pass a site. Kept."""
    net, stage = untrained(BOARD, seed), Stage(updates, batch)

    def make(name: str, folder: Path) -> None:
        draw = torch.Generator().manual_seed(seed + 1)

        def loss() -> Tensor:
            tokens = sampled(net, batch, draw)
            rank = orders(tokens.shape, draw)
            before = torch.where(
                rank[:, None] < torch.arange(SITES)[:, None], tokens[:, None], 0
            )  # (batch, turn, site)
            said = net.conditional(before.flatten(0, 1)).view(batch, SITES, SITES, 2)
            own = said.gather(-1, (tokens - 1)[:, None, :, None].expand(-1, SITES, -1, -1))[..., 0]
            logs = own.gather(-1, rank.argsort(-1)[..., None])[..., 0].sum(-1)
            signal = logs.detach() - asked(ising.energy, tokens).float()
            return (((signal - signal.mean()) / signal.std().clamp_min(1.0)) * logs).mean()

        averaged(net.phi, stage, loss, stage.decay)
        kept.save(net.state_dict(), {}, name, folder, torch.float32)

    card = kept.kept("marginalization-reinforced", [asdict(ising), asdict(stage), seed], make)
    net.load_state_dict(kept.load(card.stem, card.parent)[0])
    return MarginalizationModel(net)


def passes_of(recipe: EnergyRecipe) -> int:
    """Network passes over the batch of one update, a gradient counted as two more: the moves, m of a sample and before
    and after a place, phi there."""
    return recipe.block + 3 * (1 + 2 + 1)


ARM_PASSES = SITES + 3 * SITES  # sampling and scoring of `reinforced`

GLYPHS = MarginalShape(64, width=128, blocks=2)


@dataclass(frozen=True)
class Glyphs:
    """Binarised 8 x 8 digits in rows: what is learned from, what settings were chosen on, what is reported on."""

    learn: Symbols
    choose: Symbols
    test: Symbols


def glyphs() -> Glyphs:
    """scikit-learn's 1,797 digits, a pixel black where its ink is 8 of 16 or more. Raises UsageError without it."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("the 8 x 8 digits come with scikit-learn: pip install 'anystep[bayes]'.") from error
    x = (load_digits().data >= 8).astype(np.int64)
    x = x[np.random.Generator(np.random.Philox(0)).permutation(len(x))]
    return Glyphs(x[:1_200], x[1_200:1_497], x[1_497:])


DIGITS = DataRecipe(GLYPHS, Stage(2_000, 128, decay=0.3), Stage(20_000, 128), drawn=20_000)


def shorter(recipe: DataRecipe, updates: int) -> DataRecipe:
    """For tests."""
    return replace(
        recipe,
        arm=replace(recipe.arm, updates=updates),
        marginal=replace(recipe.marginal, updates=updates),
        drawn=min(recipe.drawn, 100),
    )


def from_digits(x: Symbols, recipe: DataRecipe, say: Say | None = None) -> MarginalizationModel:
    return MarginalizationModel.from_data(x, recipe, say)
