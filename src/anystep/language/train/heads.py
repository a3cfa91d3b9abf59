"""Training Medusa's heads on a frozen model's own text (Medusa-1): least squares first, then gradient steps.

Source: Cai et al., "Medusa" (2024), section 2.2. Hidden states are those the model had while it wrote, so that no pass
of it is needed. What is different from the published recipe, because text is scarce here: a head starts as the
least-squares map from a state to the state k places on, which the model's own output matrix then reads, and learns
what the model itself expects there, all its probabilities, not only the token that was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.language.accelerate.medusa import Heads, Ranks
from anystep.language.engine.engine import Engine
from anystep.language.train.selftext import Written


@dataclass(frozen=True)
class Positions:
    """Where heads learn, all texts one after the other: `hidden` (n, dim) in half precision; `later` (n, heads), where
    among the heads' words the token k + 2 places on is, -1 where it is none of them or the text has ended; `beyond`
    (n, heads), which row of `hidden` is the state that this token comes of, -1 after the end."""

    hidden: Tensor
    later: Tensor
    beyond: Tensor

    def __len__(self) -> int:
        return len(self.hidden)


def positions(text: Sequence[Written], heads: int, words: Tensor, vocab: int) -> Positions:
    """Every position from the prompt's last on."""
    place = torch.full((vocab,), -1)
    place[words] = torch.arange(len(words))
    hidden, later, beyond, at = [], [], [], 0
    for one in text:
        tokens, first = torch.tensor(one.tokens), one.start - 1
        ahead = torch.arange(first, len(tokens))[:, None] + torch.arange(2, heads + 2)
        there = ahead < len(tokens)
        later.append(torch.where(there, place[tokens[ahead.clamp(max=len(tokens) - 1)]], -1))
        beyond.append(torch.where(there, ahead - 1 - first + at, -1))
        hidden.append(one.hidden[first:])
        at += len(tokens) - first
    return Positions(torch.cat(hidden), torch.cat(later), torch.cat(beyond))


def common(text: Sequence[Written], count: int, vocab: int) -> Tensor:
    """The `count` commonest tokens of the texts, in order of their ids; ties, and tokens that never occur, by lower id:
    byte-pair vocabularies number what is frequent first."""
    seen = torch.zeros(vocab, dtype=torch.int64)
    for one in text:
        seen += torch.bincount(torch.tensor(one.tokens, dtype=torch.int64), minlength=vocab)
    return torch.argsort(seen, descending=True, stable=True)[:count].sort().values


@torch.no_grad()
def least_squares(heads: Heads, learn: Positions, damp: float) -> None:
    """Starts every head as the affine map that foresees the state k + 1 places on best."""
    for k in range(len(heads)):
        here = learn.beyond[:, k] >= 0
        x, y = learn.hidden[here].float(), learn.hidden[learn.beyond[here, k]].float()
        mean, goal = x.mean(0), y.mean(0)
        x, y = x - mean, y - goal
        gram = x.T @ x
        gram += damp * gram.diagonal().mean() * torch.eye(len(gram))
        slope = torch.linalg.solve(gram, x.T @ y)
        heads.skip[k], heads.offset[k, 0] = slope, goal - mean @ slope


@torch.no_grad()
def accuracies(heads: Heads, held: Positions, batch: int = 1024) -> Tensor:
    """(heads, TOP): how often guess i of head k is the token that came, of all positions that have one."""
    hits = torch.zeros_like(heads.accuracy)
    for at in range(0, len(held), batch):
        some = slice(at, at + batch)
        guessed = heads(held.hidden[some].float()).topk(hits.shape[1], -1).indices
        hits += (guessed == held.later[some].T[..., None]).sum(1)
    return hits / (held.beyond >= 0).sum(0).clamp(min=1)[:, None]


@dataclass(frozen=True)
class HeadRecipe:
    """How `fit` trains: `heads` over `words` tokens; `damp` is the ridge of the least squares, as a share of the mean
    variance; then `epochs` of AdamW at `rate`, falling to nothing, on `batch` positions a step, head k's loss weighing
    decay ** k. One text in `held` is held out for the accuracies."""

    heads: int = 4
    words: int = 6_144
    others: int = 1_024
    damp: float = 0.003
    epochs: int = 4
    batch: int = 512
    rate: float = 1e-3
    decay: float = 0.8
    held: int = 16
    seed: int = 0


def output_of(engine: Engine) -> Tensor:
    """(vocab, dim): the matrix that makes logits of hidden states, read off the model in whatever form it is."""
    with torch.inference_mode():
        return engine.model.logits(torch.eye(engine.config.dim)).T.float().clone()


def fit(engine: Engine, text: Sequence[Written], recipe: HeadRecipe, say: Callable[[str], None] = print) -> Heads:
    """Heads for the engine's model, trained on text it wrote.

    Raises UsageError where there are too few texts to hold any out.
    """
    if len(text) < 2 * recipe.held:
        raise UsageError(f"fit(engine, text) needs at least {2 * recipe.held} texts, one in {recipe.held} is held out.")
    output = output_of(engine)
    words = common(text, min(recipe.words, len(output)), len(output))
    learn = positions([t for i, t in enumerate(text) if i % recipe.held], recipe.heads, words, len(output))
    held = positions(text[:: recipe.held], recipe.heads, words, len(output))
    heads = Heads(recipe.heads, words, output[words])
    least_squares(heads, learn, recipe.damp)
    say(f"{len(learn):,} positions; least squares: first guesses right {told(accuracies(heads, held))}")
    generator, weigh = torch.Generator().manual_seed(recipe.seed), recipe.decay ** torch.arange(recipe.heads)
    steps = recipe.epochs * (len(learn) // recipe.batch)
    optimiser = torch.optim.AdamW(heads.parameters(), recipe.rate, betas=(0.9, 0.97), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min((n + 1) / 10, 1.0) * (1 - n / steps))
    for _ in range(recipe.epochs):
        order = torch.randperm(len(learn), generator=generator)
        for some in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
            others = torch.randperm(len(words), generator=generator)[: recipe.others]
            loss = surprise(heads, learn, some, weigh, others)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        heads.accuracy = accuracies(heads, held)
        say(f"loss {loss.item():.3f}, first guesses right {told(heads.accuracy)}")
    return heads.requires_grad_(False).eval()


def surprise(heads: Heads, learn: Positions, some: Tensor, weigh: Tensor, others: Tensor) -> Tensor:
    """Cross-entropy of the heads at positions `some`, among the words that came there and `others`, drawn at random.

    Each of the latter stands for as many as were not drawn, so that the sum over all words is right on average: Jean et
    al., "On Using Very Large Target Vocabulary for Neural Machine Translation" (2015).
    """
    later = learn.later[some].T.contiguous()
    came = later[later >= 0].unique()
    rest = others[~torch.isin(others, came)]
    among = torch.cat([came, rest])
    share = math.log(max(len(heads.words) - len(came), 1) / max(len(rest), 1))
    standing = torch.cat([torch.zeros(len(came)), torch.full((len(rest),), share)])
    logits = heads.ahead(learn.hidden[some].float()) @ heads.outer[among].T + standing
    goal = torch.where(later >= 0, torch.searchsorted(came, later.clamp(min=0)), -1)
    each = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), ignore_index=-1, reduction="none")
    return (each.view(later.shape).sum(1) * weigh).sum() / len(some)


def told(accuracy: Tensor) -> str:
    """The first column in words."""
    return ", ".join(f"{a:.3f}" for a in accuracy[:, 0].tolist())


@torch.no_grad()
def accepted(heads: Heads, ranks: Ranks, text: Written) -> list[int]:
    """For each pass of greedy decoding with the `ranks` tree, how many guesses it accepts, if `text` is what the model
    writes greedily. No pass is needed: the states along what is accepted are those of the text."""
    learn = positions([text], len(heads), heads.words, max(int(heads.words.max()), *text.tokens) + 1)
    top = heads(learn.hidden.float()).topk(heads.accuracy.shape[1], -1).indices
    right = top == learn.later.T[..., None]
    rank = torch.where(right.any(-1), right.float().argmax(-1), -1).T.tolist()
    paths, at, last, found = set(ranks), 0, len(rank) - 2, []
    while at < last:  # the state from which the last token comes needs no pass after it
        path: tuple[int, ...] = ()
        while len(path) < min(len(heads), last - at - 1) and (*path, rank[at][len(path)]) in paths:
            path = (*path, rank[at][len(path)])
        found.append(len(path))
        at += 1 + len(path)
    return found
