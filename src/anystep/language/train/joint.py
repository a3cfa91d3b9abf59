"""Medusa-2: the model's upper layers and its heads learn together, so that its states tell more of what comes later.

The loss is KL(the model as it was || as it is) on its own text plus lambda0 times the heads' cross-entropy, and only
low-rank additions to the upper layers' matrices are trained. Sources: Cai et al., "Medusa" (2024), sections 2.2.2 and
2.3.2; Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021).

Preserves nothing exactly: the model that results is another one, close to the first. Speculation with its heads
preserves its own output.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.language.accelerate.medusa import Heads
from anystep.language.engine.llama import Llama
from anystep.language.train.heads import Positions, accuracies, positions, surprise, told
from anystep.language.train.selftext import Written


@dataclass(frozen=True)
class JointRecipe:
    """`texts` of the model's own are read in batches of `rows`, `epochs` times. `rank` of the additions to the matrices
    of the `upper` last layers. The heads' loss weighs `lambda0`, head k's decay ** k of it. AdamW at `rate` for the
    additions and `head_rate` for the heads, both falling to nothing. `upper` 0 trains the heads alone, on the same
    batches: what Medusa-2 has to be compared with. One text in `held` is held out for the accuracies, as by `fit`."""

    texts: int = 224
    epochs: int = 3
    rows: int = 6
    upper: int = 6
    rank: int = 16
    lambda0: float = 0.2
    decay: float = 0.8
    rate: float = 3e-3
    head_rate: float = 5e-4
    others: int = 1_024
    held: int = 16
    seed: int = 0


class Added(nn.Module):
    """A linear layer and a low-rank matrix beside it, zero at first."""

    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(layer.in_features, rank, generator=generator) / layer.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(rank, layer.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + (x @ self.down) @ self.up


def adapted(model: Llama, upper: int, rank: int, generator: torch.Generator) -> dict[str, Added]:
    """Puts additions beside every matrix of the last `upper` layers, by the names of their weights."""
    found = {}
    for i in range(model.config.layers - upper, model.config.layers):
        for home in ("self_attn", "mlp"):
            part = model.get_submodule(f"layers.{i}.{home}")
            for name, layer in list(part.named_children()):
                if isinstance(layer, nn.Linear):
                    found[f"layers.{i}.{home}.{name}.weight"] = beside = Added(layer, rank, generator)
                    setattr(part, name, beside)
    return found


@dataclass(frozen=True)
class Batch:
    """`lower` (rows, time, dim): what the first trained layer reads, empty where none is. `place` (n,): where in rows
    x time the learning positions are. `learn`: their states before training, and what came later."""

    lower: Tensor
    place: Tensor
    learn: Positions


@torch.no_grad()
def batches(model: Llama, text: Sequence[Written], heads: Heads, recipe: JointRecipe) -> list[Batch]:
    """Texts of similar length side by side, with the layers that are not trained computed once."""
    order = sorted(text, key=lambda one: len(one.tokens))
    found = []
    for at in range(0, len(order), recipe.rows):
        some = order[at : at + recipe.rows]
        tokens = nn.utils.rnn.pad_sequence([torch.tensor(one.tokens) for one in some], batch_first=True)
        lower = torch.empty(0)
        if recipe.upper:
            lower = model.blocks(model.embed(tokens), stop=model.config.layers - recipe.upper).half()
        place = [i * tokens.shape[1] + torch.arange(one.start - 1, len(one.tokens)) for i, one in enumerate(some)]
        learn = positions(some, len(heads), heads.words, model.config.vocab)
        found.append(Batch(lower, torch.cat(place), learn))
    return found


def joint(
    model: Llama, heads: Heads, text: Sequence[Written], recipe: JointRecipe, say: Callable[[str], None] = print
) -> tuple[Heads, dict[str, tuple[Tensor, Tensor]]]:
    """The heads, and by the names of weights the two factors (in, rank) and (rank, out) of what is added to them, for
    `merged`; both arguments stay as they are."""
    generator = torch.Generator().manual_seed(recipe.seed)
    model, heads = copy.deepcopy(model).requires_grad_(False), copy.deepcopy(heads).requires_grad_(True)
    additions = adapted(model, recipe.upper, recipe.rank, generator)
    each = batches(model, [t for i, t in enumerate(text) if i % recipe.held][: recipe.texts], heads, recipe)
    say(f"{sum(len(batch.learn) for batch in each):,} positions, {len(each)} batches")
    trained = [p for one in additions.values() for p in (one.down, one.up)]
    groups = [{"params": list(heads.parameters()), "lr": recipe.head_rate}, {"params": trained, "lr": recipe.rate}]
    optimiser = torch.optim.AdamW(groups if trained else groups[:1], betas=(0.9, 0.97), weight_decay=0.0)
    steps = recipe.epochs * len(each)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: min((n + 1) / 10, 1.0) * (1 - n / steps))
    for _ in range(recipe.epochs):
        for i in torch.randperm(len(each), generator=generator).tolist():
            drift, guess = losses(model, heads, each[i], recipe, generator)
            optimiser.zero_grad(set_to_none=True)
            (drift + recipe.lambda0 * guess).backward()
            torch.nn.utils.clip_grad_norm_([*heads.parameters(), *trained], 1.0)
            optimiser.step()
            schedule.step()
        say(f"KL {drift.item():.4f}, heads' loss {guess.item():.3f}")
    heads.accuracy = accuracies(heads, reread(model, text[:: recipe.held][: recipe.texts // 6], heads, recipe.upper))
    say(f"first guesses right {told(heads.accuracy)}")
    return heads.requires_grad_(False), {n: (a.down.detach(), a.up.detach()) for n, a in additions.items()}


def losses(
    model: Llama, heads: Heads, batch: Batch, recipe: JointRecipe, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """How far the model has drifted from what it said, and how badly the heads guess, on one batch."""
    config = model.config
    hidden = batch.learn.hidden.float()
    if recipe.upper:
        x = model.blocks(batch.lower.float(), start=config.layers - recipe.upper)
        hidden = model.norm(x).flatten(0, 1)[batch.place]
    learn = Positions(hidden, batch.learn.later, batch.learn.beyond)
    others = torch.randperm(len(heads.words), generator=generator)[: recipe.others]
    weigh = recipe.decay ** torch.arange(len(heads))
    guess = surprise(heads, learn, torch.arange(len(learn)), weigh, others)
    if not recipe.upper:
        return hidden.new_zeros(()), guess
    rare = torch.randperm(config.vocab, generator=generator)[: recipe.others]
    rare = rare[~torch.isin(rare, heads.words)]
    share = math.log(max(config.vocab - len(heads.words), 1) / max(len(rare), 1))
    standing = torch.cat([torch.zeros(len(heads.words)), torch.full((len(rare),), share)])
    output = torch.cat([heads.outer, output_rows(model, rare)])
    was = (batch.learn.hidden.float() @ output.T + standing).log_softmax(-1)
    now = (hidden @ output.T + standing).log_softmax(-1)
    return F.kl_div(now, was, log_target=True, reduction="batchmean"), guess


@torch.no_grad()
def reread(model: Llama, text: Sequence[Written], heads: Heads, upper: int) -> Positions:
    """Positions of texts with the states that the model has for them now."""
    if upper:
        text = [replace(one, hidden=model(torch.tensor([one.tokens]))[0].half()) for one in text]
    return positions(text, len(heads), heads.words, model.config.vocab)


def output_rows(model: Llama, tokens: Tensor) -> Tensor:
    """(tokens, dim) of the matrix that makes logits."""
    weight = model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
    return weight[tokens]


@torch.no_grad()
def merged(model: Llama, added: Mapping[str, tuple[Tensor, Tensor]]) -> Llama:
    """A copy of `model` with what `joint` found added to its weights."""
    model = copy.deepcopy(model)
    weights = dict(model.named_parameters())
    for name, (down, up) in added.items():
        weights[name].add_((down @ up).T)
    return model.requires_grad_(False).eval()
