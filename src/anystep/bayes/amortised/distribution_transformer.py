"""Distribution transformers: a Gaussian mixture prior and data in, a Gaussian mixture posterior out, in one pass.

Source: Whittle et al., "Distribution Transformers: Fast Approximate Bayesian Inference With On-The-Fly Prior
Adaptation" (arXiv 2502.02463, ICML 2026).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anystep import kept
from anystep.averaged import Cost, averaged
from anystep.bayes.amortised.distribution_transformer_net import DistributionNet, numbers
from anystep.bayes.amortised.distribution_transformer_problems import LinearGaussian
from anystep.bayes.amortised.mixtures import GaussianMixture
from anystep.errors import ModelError, UsageError

DATA = "posterior(prior, data): data is one tensor (*batch, rows, numbers) for each source, as posterior(prior, [y])"


@dataclass(frozen=True)
class DistributionRecipe:
    """Everything that decides a model.

    problem: a frozen dataclass with the methods of `Problem`. components: of the priors and the posteriors. width,
    heads, layers: of the network. fresh: share of a batch, in (0, 1], whose priors are new; the others are posteriors
    of the batch before, in half of the rows as tokens, so that the network knows what it will be fed back. prior_loss:
    whether tokens of a prior must stand for that prior.
    """

    problem: Any = field(default_factory=LinearGaussian)
    components: int = 3
    width: int = 64
    heads: int = 4
    layers: int = 2
    fresh: float = 0.2
    prior_loss: bool = True
    seed: int = 0
    updates: int = 2_500
    batch: int = 256
    rate: float = 2e-3
    average: float = 0.999

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self) | {"problem": {"kind": type(self.problem).__name__, **asdict(self.problem)}}


class DistributionTransformer:
    """Says the posterior of any mixture prior given data of a problem that it was trained on.

    Preserves nothing exactly: trained on joint draws alone, its posterior minimises the expected divergence from the
    true one to it, as far as the network and k components can; what remains is measured on the method's page. Order of
    components and of data never matters. Priors unlike those of the recipe degrade it without a word: ask `outside`.

        model = DistributionTransformer(DistributionRecipe(problem)).fit()
        posterior = model.posterior(prior, [y])

    Cost: O(k (k + rows)) attention a layer, the same for every update of a sequence.
    """

    def __init__(self, recipe: DistributionRecipe | None = None) -> None:
        self.recipe = recipe or DistributionRecipe()
        if not 0 < self.recipe.fresh <= 1 or self.recipe.components < 1:
            raise UsageError("DistributionRecipe(components=3, fresh=0.3): at least 1 component, fresh in (0, 1].")
        self._net: DistributionNet | None = None

    def fit(self, say: Callable[[str], None] = print) -> DistributionTransformer:
        """Trains the first time, minutes for the recipes of the page, and reads from the cache folder afterwards."""

        def make(name: str, folder: Path) -> None:
            net, cost = train(self.recipe, say)
            card = {"recipe": self.recipe.told(), "cost": asdict(cost)}
            kept.save(net.state_dict(), card, name, folder, torch.float32)

        card = kept.kept("distribution-transformer", self.recipe.told(), make)
        self._net = _read(self.recipe, card.stem, card.parent)
        return self

    @property
    def net(self) -> DistributionNet:
        """The trained network. ModelError before `fit`."""
        if self._net is None:
            raise ModelError("DistributionTransformer: not trained yet; DistributionTransformer(recipe).fit().")
        return self._net

    def posterior(self, prior: GaussianMixture, data: Tensor | Sequence[Tensor]) -> GaussianMixture:
        """The posterior of every prior of a batch.

        data: for each source of the problem (*batch, rows, numbers), where rows of NaN are no data; one tensor will do
        for one source. A prior without a batch serves all data. Raises UsageError for shapes that do not fit.
        """
        return self.mixture(self.posterior_tokens(self.tokens(prior), data))

    def tokens(self, prior: GaussianMixture) -> Tensor:
        """(*batch, k, width): what stands for each component of the priors."""
        problem, k = self.recipe.problem, self.recipe.components
        if (prior.components, prior.size) != (k, problem.size):
            raise UsageError(
                f"tokens(prior): trained for {k} components in {problem.size} dimensions, not {prior.components} in "
                f"{prior.size}; prior.split({k}) or prior.merged({k}) changes how many they are."
            )
        with torch.no_grad():
            return self.net.embed(prior.to(torch.float32))

    def posterior_tokens(self, tokens: Tensor, data: Tensor | Sequence[Tensor]) -> Tensor:
        """(*batch, k, width): tokens after data, which may be fed back with the next data; `mixture` reads them."""
        data = (data,) if isinstance(data, Tensor) else tuple(data)
        sizes = tuple(d.shape[-1] if d.ndim >= 2 else 0 for d in data)
        if sizes != tuple(self.recipe.problem.sources):
            raise UsageError(f"{DATA}; numbers: {tuple(self.recipe.problem.sources)}, not {sizes}.")
        try:
            batch = torch.broadcast_shapes(tokens.shape[:-2], *(d.shape[:-2] for d in data))
        except RuntimeError:
            raise UsageError(f"{DATA}; not {[tuple(d.shape) for d in data]} for {tuple(tokens.shape[:-2])}.") from None
        flat = tuple(d.float().expand(*batch, *d.shape[-2:]).reshape(-1, *d.shape[-2:]) for d in data)
        with torch.no_grad():
            found: Tensor = self.net(tokens.expand(*batch, *tokens.shape[-2:]).reshape(-1, *tokens.shape[-2:]), flat)
        return found.reshape(*batch, *found.shape[1:])

    def mixture(self, tokens: Tensor) -> GaussianMixture:
        """What tokens stand for, in float64."""
        with torch.no_grad():
            return self.net.unembed(tokens).to(torch.float64)

    def outside(self, prior: GaussianMixture) -> Tensor:
        """(*batch) whether a mean, deviation or slope of a component is beyond all but 2 in 1,000 seen in training."""
        said = numbers(prior.to(torch.float32))[..., 1:]
        return ((said < self.net.least) | (said > self.net.most)).flatten(-2).any(-1)


def untrained(recipe: DistributionRecipe) -> DistributionNet:
    """The network before training; global draws untouched."""
    problem = recipe.problem
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return DistributionNet(problem.size, tuple(problem.sources), recipe.width, recipe.heads, recipe.layers)


class Chains:
    """The priors of a batch: new ones, and the posteriors of the batch before, as tokens or as mixtures."""

    def __init__(self, recipe: DistributionRecipe, generator: torch.Generator) -> None:
        self.recipe, self.generator = recipe, generator
        self.last: tuple[GaussianMixture, Tensor] | None = None

    def draw(self, net: DistributionNet) -> tuple[GaussianMixture, Tensor]:
        """Mixtures (batch) and the tokens that stand for them."""
        recipe, generator = self.recipe, self.generator
        prior = recipe.problem.priors(recipe.batch, recipe.components, generator)
        if self.last is None or recipe.fresh == 1:
            return prior, net.embed(prior)
        mixture, tokens = self.last
        # An untrained network may say anything: what is far from all priors does not go on.
        deviations = mixture.scales.diagonal(dim1=-2, dim2=-1)
        sound = ((deviations > 0.01) & (deviations < 10) & (mixture.means.abs() < 20)).flatten(1).all(1)
        on = sound & (torch.rand(recipe.batch, generator=generator) >= recipe.fresh)
        prior = prior.where(on, mixture)
        as_tokens = on & (torch.arange(recipe.batch) % 2 == 0)  # so some stay tokens for many updates
        return prior, torch.where(as_tokens[:, None, None], tokens, net.embed(prior))


def train(recipe: DistributionRecipe, say: Callable[[str], None] | None = None) -> tuple[DistributionNet, Cost]:
    """The averaged weights of a network that learned posteriors from joint draws, and what that took.

    An update draws a prior, an unknown from it and data from that. The loss is minus the log density of the unknown
    under the posterior, and under what the prior's tokens stand for, by the same un-embedding.
    """
    net, generator = untrained(recipe), torch.Generator().manual_seed(recipe.seed + 1)
    problem, chains = recipe.problem, Chains(recipe, generator)

    def loss() -> Tensor:
        prior, tokens = chains.draw(net)
        before = prior.sample(1, generator)[0]
        after = problem.evolve(before, generator)
        found = net(tokens, problem.observe(after, generator))
        posterior = net.unembed(found)
        total = -posterior.log_density(after).mean()
        if recipe.prior_loss:
            total = total - net.unembed(tokens).log_density(before).mean()
        chains.last = (posterior.detach(), found.detach())
        return total

    cost = averaged(net, recipe, loss, 0.0, say)
    chains, seen = Chains(recipe, generator), []
    with torch.no_grad():
        for _ in range(20):
            loss()
            prior, _ = chains.draw(net)
            seen.append(numbers(prior)[..., 1:].flatten(0, 1))
    ends = torch.cat(seen).quantile(torch.tensor([0.001, 0.999]), 0)
    net.least, net.most = ends[0], ends[1]
    return net, cost


@cache
def _read(recipe: DistributionRecipe, name: str, folder: Path) -> DistributionNet:
    tensors, _ = kept.load(name, folder)
    net = untrained(recipe)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)
