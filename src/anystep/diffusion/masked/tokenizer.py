"""Tokens for things on a grid: each patch becomes one of a few codes, and codes become patches again.

Source: van den Oord et al., "Neural Discrete Representation Learning" (NeurIPS 2017), codes by exponential averages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError


@dataclass(frozen=True)
class TokenizerRecipe:
    """Everything that decides a tokenizer beside its data.

    grid: patches down and across. patch: numbers in one. codes: of the codebook, `depth` numbers each. commit: what
    the distance between an encoded patch and its code counts. decay: of the averages that the codes follow.
    """

    grid: tuple[int, int]
    patch: int
    codes: int = 64
    depth: int = 16
    width: int = 64
    updates: int = 500
    batch: int = 32
    rate: float = 2e-3
    commit: float = 0.25
    decay: float = 0.98
    seed: int = 0


class Tokenizer(nn.Module):
    """Patches (n, rows, columns, patch) to codes (n, columns * rows), column by column, and back.

    The encoder sees one patch at a time, so a patch's code does not depend on what is around it; the decoder sees two
    patches around each.
    """

    codebook: Tensor
    seen: Tensor
    total: Tensor
    AROUND = 2  # patches on each side that a decoded patch depends on

    def __init__(self, recipe: TokenizerRecipe) -> None:
        super().__init__()
        self.recipe, width = recipe, recipe.width
        self.enter = nn.Sequential(
            nn.Linear(recipe.patch, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.GELU(),
            nn.Linear(width, recipe.depth),
        )  # fmt: skip
        self.place = nn.Parameter(torch.zeros(recipe.grid[0], recipe.depth))  # rows of a grid differ, columns do not
        self.widen = nn.Linear(recipe.depth, width)
        self.around = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(self.AROUND))
        self.leave = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, recipe.patch))
        self.register_buffer("codebook", 0.1 * torch.randn(recipe.codes, recipe.depth))
        self.register_buffer("seen", torch.ones(recipe.codes))
        self.register_buffer("total", self.codebook.clone())

    def inner(self, patches: Tensor) -> Tensor:
        """(n, rows, columns, depth) before it is rounded to a code."""
        found: Tensor = self.enter(patches)
        return found

    def nearest(self, inner: Tensor) -> Tensor:
        """(...,) the nearest code of each."""
        flat = inner.reshape(-1, self.recipe.depth)
        apart = self.codebook.square().sum(-1) - 2 * flat @ self.codebook.T
        return apart.argmin(-1).reshape(inner.shape[:-1])

    def outer(self, coded: Tensor) -> Tensor:
        """(n, rows, columns, patch) from codes' own vectors (n, rows, columns, depth)."""
        x = self.widen(coded + self.place[:, None])
        for conv in self.around:
            x = x + F.gelu(conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        patches: Tensor = self.leave(x)
        return patches

    @torch.no_grad()
    def encode(self, patches: Tensor) -> Tensor:
        """(n, length) codes, column by column."""
        return self.nearest(self.inner(patches)).transpose(1, 2).flatten(1)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """(n, rows, columns, patch)."""
        rows, columns = self.recipe.grid
        return self.outer(self.codebook[tokens.reshape(-1, columns, rows).transpose(1, 2)])


def train_tokenizer(recipe: TokenizerRecipe, patches: Tensor, say: Callable[[str], None] | None = None) -> Tokenizer:
    """A tokenizer of patches (n, rows, columns, patch), by squared error through the rounding.

    Codes follow the average of what is rounded to them; one that is hardly used is put where a patch is. Raises
    UsageError for patches that are not of the recipe's grid.
    """
    if patches.shape[1:] != (*recipe.grid, recipe.patch):
        raise UsageError(f"train_tokenizer: patches {tuple(patches.shape)}, where {recipe} wants {recipe.grid}.")
    drawn = torch.Generator().manual_seed(recipe.seed + 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = Tokenizer(recipe)
    optimiser = torch.optim.AdamW(module.parameters(), recipe.rate, betas=(0.9, 0.99))
    for update in range(recipe.updates):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, (update + 1) / 50, 0.02 + 1.5 * (1 - update / recipe.updates))
        batch = patches[torch.randint(len(patches), (recipe.batch,), generator=drawn)]
        inner = module.inner(batch)
        code = module.nearest(inner.detach())
        coded = module.codebook[code]
        told = module.outer(inner + (coded - inner).detach())
        error = (told - batch).square().mean()
        (error + recipe.commit * (inner - coded).square().mean()).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        _follow(module, inner.detach().reshape(-1, recipe.depth), code.flatten(), drawn)
        if say and update % 100 == 0:
            say(f"update {update}, error {error.item():.4f}, {len(code.unique())} codes in use")
    return module.eval().requires_grad_(False)


@torch.no_grad()
def _follow(module: Tokenizer, inner: Tensor, code: Tensor, drawn: torch.Generator) -> None:
    """Move the codes towards the average of what was rounded to them, and the unused ones to where something is."""
    decay, here = module.recipe.decay, F.one_hot(code, module.recipe.codes).to(inner.dtype)
    module.seen.lerp_(here.sum(0), 1 - decay)
    module.total.lerp_(here.T @ inner, 1 - decay)
    idle = (module.seen < 0.5).nonzero().flatten()
    if len(idle):
        picked = inner[torch.randint(len(inner), (len(idle),), generator=drawn)]
        module.seen[idle], module.total[idle] = 1.0, picked
    module.codebook.copy_(module.total / module.seen[:, None])
