"""DDIM: the clean thing and the noise that a state is made of, mixed again at the next level; with fresh noise, DDPM.

Source: Song et al., "Denoising Diffusion Implicit Models" (ICLR 2021), eq. 12 and 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from anystep.diffusion.solvers.solver import Here, Reached, Solver
from anystep.errors import UsageError


@dataclass(frozen=True)
class DDIM(Solver):
    """alpha' clean + sqrt(sigma'^2 - added^2) noise + added fresh noise, one evaluation a step.

    Preserves the model's law as steps grow, for every eta; the error of eta = 0 falls as 1 / steps. steps: 1 or more.
    eta: in [0, 1], the share of DDPM's fresh noise: 0 is deterministic, 1 is ancestral sampling. Raises UsageError for
    an eta outside.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise UsageError(
                f"DDIM(eta={self.eta!r}): eta is in [0, 1]; DDIM(eta=0.0) draws no noise, eta=1.0 is DDPM."
            )

    @property
    def random(self) -> bool:
        return self.eta > 0

    def step(self, here: Here) -> Reached:
        now, then = here.now, here.then
        noise = now.noise(here.x, here.clean)
        if not self.random:
            return Reached(then.alpha * here.clean + then.sigma * noise)
        # The posterior's spread: what of the noise at `then` is not explained by the noise at `now`.
        kept = (now.alpha * then.sigma / (then.alpha * now.sigma)) ** 2
        added = self.eta * then.sigma * torch.sqrt((1 - kept).clamp_min(0.0))
        left = torch.sqrt((then.sigma**2 - added**2).clamp_min(0.0))
        return Reached(then.alpha * here.clean + left * noise + added * here.draw(0), added=added)


@dataclass(frozen=True)
class DDPM(DDIM):
    """Ancestral sampling: DDIM with all of the fresh noise, eta = 1.

    Preserves the model's law as steps grow, slowly: hundreds of steps. steps: 1 or more, one evaluation each.

    Source: Ho et al., "Denoising Diffusion Probabilistic Models" (NeurIPS 2020), algorithm 2, with the posterior's
    variance, on any grid.
    """

    eta: float = 1.0
