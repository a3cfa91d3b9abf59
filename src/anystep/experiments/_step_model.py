"""A step-reward model to compare with: the upper layers of the same base model, fine-tuned to judge steps.

It reads the question and the chain, without the worked examples, and says at each step's last token whether the step is
right. All chains of a problem share its question in one pass. The lower layers stay as they are, so what comes out of
them is computed once; those above, with the final norm, learn fully, in full precision.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from random import Random
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from anystep.kept import cache_folder
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Attend, Llama
from anystep.language.train.worked import Chain

QUESTION = "Question: "


@dataclass(frozen=True)
class StepModelRecipe:
    """How it is trained: how many upper layers, epochs over the chains, problems an update, and rates."""

    upper: int = 10
    epochs: int = 2
    batch: int = 6
    rate: float = 1e-4
    head_rate: float = 1e-3
    decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Read:
    """A problem's question and chains side by side, out of the lower layers: `states` (tokens, dim), in half precision.

    owner: 0 for the question's tokens, i + 1 for chain i's. ends: where the last tokens of all steps stand. labels:
    theirs. steps: how many each chain has.
    """

    states: Tensor
    positions: Tensor
    owner: Tensor
    ends: Tensor
    labels: Tensor
    steps: tuple[int, ...]


def seen(owner: Tensor) -> Tensor:
    """(..., time, time): what each token may look at: the question and its own chain, as far as itself."""
    same = (owner[..., None] == owner[..., None, :]) | (owner[..., None, :] == 0)
    return same & torch.ones(owner.shape[-1], owner.shape[-1], dtype=torch.bool).tril()


def masked(mask: Tensor) -> Attend:
    """Attention under a boolean mask (rows, time, time)."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=q.shape[1] != k.shape[1])

    return attend


@torch.no_grad()
def lower(engine: Engine, chains: Sequence[Chain], layers: int) -> list[Read]:
    """What the first `layers` layers make of every problem's chains."""
    problems: dict[str, list[Chain]] = {}
    for chain in chains:
        problems.setdefault(chain.problem, []).append(chain)
    found = []
    for some in problems.values():
        text = engine.tokenizer.decode(some[0].tokens[: some[0].start])
        question = engine.tokenizer.encode(text[max(text.rfind(QUESTION), 0) :])
        tokens, owner, positions, ends = list(question), [0] * len(question), list(range(len(question))), []
        for i, chain in enumerate(some):
            ends += [len(tokens) + end - chain.start - 1 for end in chain.ends]
            written = chain.tokens[chain.start : chain.ends[-1]]
            tokens += written
            owner += [i + 1] * len(written)
            positions += range(len(question), len(question) + len(written))
        own, at = torch.tensor(owner), torch.tensor(positions)
        states = engine.part(torch.tensor([tokens]), at[None], masked(seen(own)[None]), 0, layers)
        labels = torch.tensor([label for chain in some for label in chain.labels])
        sizes = tuple(len(chain.ends) for chain in some)
        found.append(Read(states[0].half(), at, own, torch.tensor(ends), labels, sizes))
    return found


class StepModel(nn.Module):
    """The upper layers of `model` with a linear reading of each step's last token."""

    def __init__(self, model: Llama, upper: int) -> None:
        super().__init__()
        self.base = copy.copy(model)
        self.base._modules = dict(model._modules)
        self.start = model.config.layers - upper
        self.base.layers = nn.ModuleList([*model.layers[: self.start], *copy.deepcopy(model.layers[self.start :])])
        self.base.norm = copy.deepcopy(model.norm)
        self.learned = nn.ModuleList([*self.base.layers[self.start :], self.base.norm])
        self.head = nn.Linear(model.config.dim, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, some: Sequence[Read]) -> Tensor:
        """Log-odds of being wrong of all steps of these problems, in order."""
        states = pad_sequence([each.states.float() for each in some], batch_first=True)
        positions = pad_sequence([each.positions for each in some], batch_first=True)
        owner = pad_sequence([each.owner for each in some], batch_first=True, padding_value=-1)
        hidden = self.base.norm(self.base.blocks(states, positions, masked(seen(owner)), self.start))
        return torch.cat([self.head(hidden[i, each.ends])[:, 0] for i, each in enumerate(some)])


def fitted(
    engine: Engine,
    exact: Llama,
    train: Sequence[Read],
    dev: Sequence[Read],
    recipe: StepModelRecipe,
    say: Callable[[str], None],
    judge: Callable[[Tensor, Tensor], float],
) -> tuple[StepModel, dict[str, Any]]:
    """The model of the epoch that `judge(labels, log-odds)` of dev likes best, and what training took."""
    began, began_cpu, tokens = time.perf_counter(), time.process_time(), 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = StepModel(exact, recipe.upper)
    model.requires_grad_(False)
    model.learned.requires_grad_(True)
    model.head.requires_grad_(True)
    groups: list[dict[str, Any]] = [
        {"params": model.learned.parameters()},
        {"params": model.head.parameters(), "lr": recipe.head_rate},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate, weight_decay=recipe.decay)
    peaks = [group["lr"] for group in optimiser.param_groups]
    order, rng, done = list(range(len(train))), Random(recipe.seed), 0
    total = recipe.epochs * -(-len(train) // recipe.batch)
    best, kept = -1.0, {}
    for epoch in range(recipe.epochs):
        rng.shuffle(order)
        for at in range(0, len(order), recipe.batch):
            some = [train[i] for i in order[at : at + recipe.batch]]
            wrong = torch.cat([~each.labels for each in some]).float()
            loss = F.binary_cross_entropy_with_logits(model(some), wrong)
            loss.backward()  # type: ignore[no-untyped-call]
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * min((done + 1) / (0.06 * total + 1), 1 - done / total)
            torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            done, tokens = done + 1, tokens + sum(len(each.states) for each in some)
            if done % 20 == 1:
                spent = time.process_time() - began_cpu
                say(f"step model: update {done} of {total}, loss {loss.item():.3f}, {spent:.0f} s of processor")
        found = judge(torch.cat([each.labels for each in dev]), judged(model, dev))
        say(f"step model: epoch {epoch + 1}, dev {found:.3f}")
        if found > best:
            best, kept = found, {k: v.clone() for k, v in _learned(model).items()}
    model.load_state_dict(kept, strict=False)
    seconds = {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - began_cpu, 1),
    }
    return model, {
        "tokens": tokens,
        "parameters": sum(p.numel() for p in _learned(model).values()),
        "dev": best,
    } | seconds


def _learned(model: StepModel) -> dict[str, Tensor]:
    return {k: v for k, v in model.state_dict().items() if k.startswith(("learned.", "head."))}


@torch.inference_mode()
def judged(model: StepModel, reads: Sequence[Read], batch: int = 8) -> Tensor:
    """Log-odds of being wrong of all steps, in order."""
    return torch.cat([model(reads[at : at + batch]) for at in range(0, len(reads), batch)])


def by_chain(reads: Sequence[Read], odds: Tensor) -> Iterator[list[float]]:
    """The log-odds of each chain's steps."""
    for part in torch.split(odds, [size for each in reads for size in each.steps]):
        yield part.tolist()


def kept_or_fitted(
    engine: Engine,
    exact: Callable[[], Llama],
    train: Sequence[Chain],
    dev: Sequence[Chain],
    recipe: StepModelRecipe,
    say: Callable[[str], None],
    judge: Callable[[Tensor, Tensor], float],
) -> tuple[StepModel, dict[str, Any]]:
    """As `fitted`, once; then from the cache folder by the hash of recipe and chains."""
    told = json.dumps([asdict(recipe), [c.tokens for c in (*train, *dev)]], sort_keys=True)
    name = f"{engine.name}-step-model-{blake2b(told.encode(), digest_size=6).hexdigest()}"
    path = cache_folder() / "models" / f"{name}.safetensors"
    model = exact()
    layers = model.config.layers - recipe.upper
    if not path.exists():
        tuned, cost = fitted(
            engine, model, lower(engine, train, layers), lower(engine, dev, layers), recipe, say, judge
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(cost), encoding="utf-8")
        save_file({k: v.half().contiguous() for k, v in _learned(tuned).items()}, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    tuned = StepModel(model, recipe.upper).requires_grad_(False).eval()
    tuned.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    return tuned, json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
