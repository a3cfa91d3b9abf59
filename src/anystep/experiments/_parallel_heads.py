"""The baseline of semi-autoregressive drafting: heads that each foresee one place from the last feature alone.

Medusa's arrangement (Cai et al., 2024) under the drafter's own terms: the same text, features, output head, loss and
least-squares start, and as many operations of training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.semi_autoregressive import RANKS, FalconNetwork, Growing, head_rows
from anystep.language.accelerate.verify import Verdict
from anystep.language.train.falcon import FalconRecipe, Lesson, lessons
from anystep.language.train.selftext import Written


class ParallelHeads(nn.Module):
    """Features (..., dim) to those of the next `count` places (..., count, dim), each from a head of its own."""

    linear: Tensor

    def __init__(self, like: FalconNetwork, count: int) -> None:
        super().__init__()
        self.like, dim = like, like.target.dim
        self.down = nn.Parameter(torch.randn(count, dim, dim) / dim**0.5)
        self.up = nn.Parameter(torch.zeros(count, dim, dim))
        self.register_buffer("linear", torch.zeros(count, dim + 1, dim))

    def forward(self, features: Tensor) -> Tensor:
        x = (features - self.like.mean) / self.like.spread
        bent = F.silu(torch.einsum("...i,kio->...ko", x, self.down))
        told = torch.einsum("...ki,kio->...ko", bent, self.up)
        return self.like.feature(told + torch.einsum("...i,kio->...ko", x, self.linear[:, :-1]) + self.linear[:, -1])

    @torch.no_grad()
    def start(self, text: Sequence[Written], damp: float = 0.02) -> None:
        """Least squares for every head."""
        for place in range(len(self.linear)):
            gram, image = torch.zeros(()), torch.zeros(())
            for one in text:
                states = (one.hidden[max(0, one.start - 16) :].float() - self.like.mean) / self.like.spread
                x = F.pad(states[: -1 - place], (0, 1), value=1.0)
                gram, image = gram + x.T @ x, image + x.T @ states[1 + place :]
            gram = gram + damp * gram.diagonal().mean() * torch.eye(len(gram))
            self.linear[place] = torch.linalg.solve(gram, image)


def train_heads(
    engine: Any,
    like: FalconNetwork,
    text: Sequence[Written],
    recipe: FalconRecipe,
    count: int,
    say: Callable[[str], None],
) -> ParallelHeads:
    """Heads trained with as many operations as `recipe` gives the drafter `like`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        heads = ParallelHeads(like, count)
    heads.start(text)
    head = head_rows(engine, like.words)
    per = count * (3 * like.target.dim**2 + head.numel())
    share = per / (sum(p.numel() for p in like.parameters()) + head.numel())  # of the drafter's operations a position
    optimiser, work, updates = torch.optim.AdamW(heads.parameters(), betas=(0.9, 0.95)), 0.0, 0
    for lesson in lessons(text, 1, recipe.batch, recipe.seed):
        loss = heads_loss(heads, head, lesson, recipe)
        torch.autograd.backward(loss)
        work, updates = work + 3 * share * lesson.told.numel(), updates + 1
        torch.nn.utils.clip_grad_norm_(heads.parameters(), 0.5)
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * min(1.0, updates / 20, 2.0 * (1.02 - work / recipe.work))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if updates % 20 == 1:
            say(f"heads: {work:,.0f} of {recipe.work:,} loss {loss.item():.3f}")
        if work >= recipe.work:
            return heads.eval()
    raise AssertionError("lessons are endless")


def heads_loss(heads: ParallelHeads, head: Tensor, lesson: Lesson, recipe: FalconRecipe) -> Tensor:
    """The drafter's own loss, over all heads: `lesson` looks one place ahead."""
    like, total = heads.like, torch.zeros(())
    foreseen = heads(lesson.features[:, : -len(heads.linear)] if len(heads.linear) > 1 else lesson.features)
    with torch.no_grad():
        truth = F.log_softmax(lesson.goal @ head.T, -1)
    for place in range(len(heads.linear)):
        ahead = slice(place, place + foreseen.shape[1])
        told, goal = lesson.told[:, ahead], lesson.goal[:, ahead]
        ours = foreseen[:, :, place][told]
        distance = F.smooth_l1_loss((ours - like.mean) / like.spread, (goal[told] - like.mean) / like.spread)
        logp, aim = F.log_softmax(ours @ head.T, -1), truth[:, ahead][told]
        apart = F.kl_div(logp, aim, log_target=True, reduction="batchmean")
        total = total + distance + recipe.token_weight * (0.9 * apart + 0.1 * F.nll_loss(logp, aim.argmax(-1)))
    return total / len(heads.linear)


class ParallelDrafter(Drafter):
    """Drafts with parallel heads, in the same tree as the semi-autoregressive drafter."""

    name = "parallel-heads"

    def __init__(self, engine: Any, heads: ParallelHeads, tree: bool = True) -> None:
        self.heads, self.head, self.tree = heads, head_rows(engine, heads.like.words), tree

    def begin(self, job: Job) -> Drafting:
        return _Ahead(self, job)


class _Ahead(Drafting):
    def __init__(self, drafter: ParallelDrafter, job: Job) -> None:
        self.drafter, self.job = drafter, job
        self.last: dict[int, Tensor] = {}

    @torch.inference_mode()
    def draft(self, wants: Mapping[int, Want]) -> dict[int, Draft]:
        rows, heads = list(wants), self.drafter.heads
        last = [
            self.last[row] if row in self.last else self.job.session.states(self.job.place[row])[-1] for row in rows
        ]
        best = F.log_softmax(heads(torch.stack(last)) @ self.drafter.head.T, -1).topk(RANKS if self.drafter.tree else 1)
        found = {}
        for row, values, words in zip(rows, best.values, heads.like.words[best.indices], strict=True):
            tree, pairs = Growing(), zip(values.tolist(), words.tolist(), strict=True)
            choices = [list(zip(*pair, strict=True)) for pair in pairs][: wants[row].depth]
            tree.block(-1, choices, wants[row].nodes, 0)
            found[row] = tree.likeliest(wants[row].nodes)
        return found

    def told(self, row: int, draft: Draft, verdict: Verdict, hidden: Tensor) -> None:
        self.last[row] = hidden[verdict.nodes[-1] + 1 if verdict.nodes else 0]
