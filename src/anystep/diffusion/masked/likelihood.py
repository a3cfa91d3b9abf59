"""How likely is a whole sequence under a masked model? In expectation over the orders in which it may be revealed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anystep import keys as lineage
from anystep.diffusion.denoiser import NULL
from anystep.diffusion.masked.predictor import Predictor
from anystep.process import Floats


@torch.no_grad()
def log_likelihood(
    model: Predictor, tokens: Tensor, condition: int | None = None, draws: int = 32, seed: int = 0
) -> Floats:
    """(n, draws) unbiased estimates of E[log p(tokens revealed in a random order)], one evaluation each.

    Each hides a random number k of random sites and weighs what the model says of the true symbols there by length / k.
    The expectation is a lower bound of log p under unmasking one site at a time in random order, and log p itself for a
    model whose conditionals are those of one law. tokens: (n, length), none hidden. The draws do not depend on the
    sequence, so differences between models or sequences are paired.

    Source: the ELBO of masked diffusion in Shi et al., "Simplified and Generalized Masked Diffusion" (NeurIPS 2024),
    with the time integrated out.
    """
    n, length = tokens.shape
    keys = lineage.roots(seed, (), np.arange(draws))
    given = torch.full((n,), NULL if condition is None else condition, device=tokens.device)
    found = np.zeros((n, draws))
    for i, key in enumerate(keys):
        # Stratified: every draw's k comes from its own share of 1..length.
        count = 1 + int((i + lineage.uniforms(key, 0)) / draws * length)
        rank = lineage.uniforms(np.full(length, key), 1, np.arange(length)).argsort()
        hidden = torch.from_numpy(np.sort(rank[:count])).to(tokens.device)
        shown = tokens.clone()
        shown[:, hidden] = model.mask
        said = model(shown, given)[:, hidden].gather(-1, tokens[:, hidden, None])[..., 0]
        found[:, i] = said.to(torch.float64).sum(-1).cpu().numpy() * length / count
    return found
