"""Sequential Bayes for a network without a variational family: a task's HMC posterior is the next task's prior.

The draws of all chains are pooled, a mixture of Gaussians is fitted to them, and its density is the next prior.

Preserves: each task's posterior under its prior in the limit of long chains; the chain of posteriors only as well as
the mixtures fit. What to look at before blaming either: R-hat of the network's outputs, which do not depend on how
its units are ordered, and the log density of draws that the mixture was not fitted to.

Source: Kessler et al., "On Sequential Bayesian Inference for Continual Learning", Entropy 2023 (arXiv 2301.01828).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anystep.bayes.mcmc import HMC, Target, sample
from anystep.bayes.sequential.batched import MLP
from anystep.bayes.sequential.mixture import Mixture, fit_mixture
from anystep.errors import UsageError
from anystep.process import Floats

Density = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Chain:
    """How each posterior is drawn: `chains` side by side, `burn` transitions and then `draws`, of `steps` leapfrog
    steps of `step_size`."""

    chains: int = 8
    draws: int = 300
    burn: int = 100
    steps: int = 10
    step_size: float = 0.1


@dataclass(frozen=True)
class Posterior:
    """After a task: draws (chains, draws, d); fit, the mixture that is the next prior; rhat, the largest split R-hat of
    the logits at the task's first points; held and fitted, the mixture's mean log density of draws that it was not and
    was fitted to; acceptance, the chains' mean."""

    draws: Floats
    fit: Mixture
    rhat: float
    held: float
    fitted: float
    acceptance: float

    def probabilities(self, net: MLP, x: Tensor, fit: bool = False, at_most: int = 400) -> Floats:
        """Mean class probabilities at x (n, inputs), of evenly chosen draws: (n, classes).

        fit: of draws from the mixture instead, which says what of the posterior goes on to the next task.
        """
        rows = self.draws.reshape(-1, self.draws.shape[-1])
        rows = rows[np.linspace(0, len(rows) - 1, min(at_most, len(rows))).astype(int)]
        weights = self.fit.sample(at_most) if fit else torch.from_numpy(rows)
        return np.asarray(net(weights, x.double()).softmax(-1).mean(0).numpy())


def sequential_hmc(
    net: MLP,
    tasks: Sequence[tuple[Tensor, Tensor]],
    sd: float,
    chain: Chain | None = None,
    components: Sequence[int] = (1, 2, 4, 8),
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> list[Posterior]:
    """Learn tasks (x (n, inputs), labels (n,)) in turn, each from the mixture of the one before; one posterior a task.

    sd: of the first prior N(0, sd^2) of every weight. The last third of every chain is held out of the mixture, to
    choose the number of components and to measure it. Raises UsageError without tasks, and for fewer than three
    draws.
    """
    chain = chain or Chain()
    if not tasks or min(chain.chains, chain.draws // 3) < 1 or not sd > 0:
        raise UsageError(
            f"sequential_hmc({len(tasks)} tasks, sd={sd}, {chain}): give tasks [(x, y), ...], sd above 0, "
            "and three draws of a chain or more"
        )
    prior: Density = lambda w: -(w**2).sum(-1) / (2 * sd**2)  # noqa: E731
    start = np.random.Generator(np.random.Philox(seed)).normal(0, 0.5 * sd, (chain.chains, net.dim))
    found = []
    for at, (x, y) in enumerate(tasks):
        posterior = _learn(net, x.double(), y, prior, start, chain, components, seed + at)
        if say:
            say(f"task {at + 1}: R-hat {posterior.rhat:.3f}, acceptance {posterior.acceptance:.2f}")
        prior, start = posterior.fit.logp, posterior.draws[:, -1]
        found.append(posterior)
    return found


def _learn(
    net: MLP,
    x: Tensor,
    y: Tensor,
    prior: Density,
    start: Floats,
    chain: Chain,
    components: Sequence[int],
    seed: int,
) -> Posterior:
    def density(w: Tensor) -> Tensor:
        logits = net(w, x)
        return prior(w) + logits.log_softmax(-1).gather(-1, y.expand(len(w), -1)[..., None]).sum((1, 2))

    kernel = HMC(Target(density, net.dim), chain.step_size, chain.steps, jitter=0.2, start=start)
    drawn = sample(kernel, chain.draws, chain.chains, seed, chain.burn)
    flat = torch.from_numpy(drawn.flat())
    logits = net(flat, x[:4]).log_softmax(-1)[..., :-1].flatten(1).numpy()
    rhat = drawn.rhat(of=logits.reshape(chain.chains, chain.draws, -1))
    first = chain.draws - chain.draws // 3
    fitted, held = (p.reshape(-1, net.dim) for p in (drawn.position[:, :first], drawn.position[:, first:]))
    fit = fit_mixture(fitted, held, components, seed)
    with torch.no_grad():
        outside, inside = (float(fit.logp(torch.from_numpy(part)).mean()) for part in (held, fitted))
    return Posterior(drawn.position, fit, float(rhat.max()), outside, inside, float(drawn.acceptance.mean()))
