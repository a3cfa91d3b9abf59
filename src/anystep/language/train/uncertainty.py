"""The uncertainty head: a small transformer over a frozen model's internal states that says how likely a step is wrong.

Of each token of the chain it sees the features of `language.internals`; a learned mark says which tokens are the
step's; two bidirectional layers without positions mix them, and the mean over the step's tokens is classified. It sees
no further than the step's end, so what it says of a step does not change as the chain goes on.

Source: "Reasoning with Confidence: Efficient Verification of LLM Reasoning Steps via Uncertainty Heads",
arXiv 2511.06209, whose head sees attention and probabilities, the written token's own not among them, and is wider.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from anystep.errors import ModelError, UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config
from anystep.language.internals import Inside

BATCH = 256  # steps judged side by side


@dataclass(frozen=True)
class Shape:
    """`width` features a token, `hidden` wide, `layers` of `heads` heads (0 layers: a mean of projected tokens)."""

    width: int
    hidden: int = 128
    layers: int = 2
    heads: int = 8


class Mixer(nn.Module):
    """One layer of the encoder: attention of all tokens to all that are seen, then two products, each added."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        rows, time, hidden = x.shape
        q, k, v = self.qkv(self.before(x)).view(rows, time, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = seen[:, None, None]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, time, hidden))
        return x + self.drop(self.mlp(self.after(x)))


class UncertaintyHead(nn.Module):
    """Features of a chain's tokens to the log-odds that a step is wrong, divided by a temperature fitted afterwards."""

    mean: Tensor
    spread: Tensor
    temperature: Tensor

    def __init__(self, shape: Shape, dropout: float = 0.1) -> None:
        super().__init__()
        self.shape, h = shape, shape.hidden
        self.project = nn.Sequential(
            *(nn.Linear(shape.width, 2 * h), nn.LayerNorm(2 * h), nn.GELU(), nn.Dropout(dropout)),
            *(nn.Linear(2 * h, h), nn.LayerNorm(h), nn.GELU()),
        )
        self.mark = nn.Embedding(2, h)
        self.encoder = nn.ModuleList(Mixer(h, shape.heads, dropout) for _ in range(shape.layers))
        self.classify = nn.Sequential(nn.Linear(h, h), nn.LayerNorm(h), nn.GELU(), nn.Dropout(dropout), nn.Linear(h, 1))
        for name, fill in {"mean": 0.0, "spread": 1.0}.items():
            self.register_buffer(name, torch.full((shape.width,), fill))
        self.register_buffer("temperature", torch.ones(()))

    @property
    def parameters_in_all(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops(self, tokens: int, seen: Sequence[int]) -> float:
        """Floating-point operations of judging steps of a chain: `tokens` of its tokens to be projected, and for each
        step the tokens `seen` up to its end. Products only; a multiply and an add count as two."""
        s, h = self.shape, self.shape.hidden
        mixed = sum(n * s.layers * (12 * h * h + 2 * n * h) + h * h + h for n in seen)
        return 2.0 * (tokens * (s.width * 2 * h + 2 * h * h) + mixed)

    def embed(self, features: Tensor) -> Tensor:
        """Projected tokens (..., hidden) of features (..., width)."""
        return self.project((features.float() - self.mean) / self.spread)

    def forward(self, tokens: Tensor, step: Tensor, seen: Tensor) -> Tensor:
        """Log-odds (rows,) of being wrong, one step a row: projected tokens (rows, time, hidden), and booleans (rows,
        time) of which are the `step`'s and which are `seen`."""
        x = tokens + self.mark(step.long())
        for layer in self.encoder:
            x = layer(x, seen)
        inside = step[..., None].to(x)
        return self.classify((x * inside).sum(1) / inside.sum(1))[:, 0]

    @torch.inference_mode()
    def log_odds(self, features: Sequence[Tensor], ends: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each chain, features (tokens, width) and where steps end in it: their log-odds of being wrong."""
        found: list[list[float]] = []
        for at in range(0, len(features), BATCH // 4):
            some = slice(at, at + BATCH // 4)
            sizes = [len(each) for each in ends[some]]
            if sum(sizes) == 0:
                found += [[] for _ in sizes]
                continue
            tokens = [self.embed(x) for x in features[some]]
            flat = torch.cat([self(*batch) for batch in batches(tokens, ends[some])])
            found += [part.tolist() for part in (flat / self.temperature).split(sizes)]
        return found

    def uncertainties(self, features: Sequence[Tensor], ends: Sequence[Sequence[int]]) -> list[list[float]]:
        """As `log_odds`, as probabilities."""
        return [torch.tensor(row).sigmoid().tolist() for row in self.log_odds(features, ends)]


def batches(tokens: Sequence[Tensor], ends: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Every step of every chain as a row of what `UncertaintyHead.forward` takes, BATCH rows together."""
    rows = [(i, [0, *each][k], end) for i, each in enumerate(ends) for k, end in enumerate(each)]
    made = []
    for at in range(0, len(rows), BATCH):
        some = rows[at : at + BATCH]
        width = max(end for _, _, end in some)
        place = torch.arange(width)
        begin, end = (torch.tensor([row[k] for row in some])[:, None] for k in (1, 2))
        padded = pad_sequence([tokens[i][:width] for i, _, _ in some], batch_first=True)
        made.append((padded, (place >= begin) & (place < end), place < end))
    return made


@dataclass(frozen=True)
class Head:
    """A trained head with what it needs to be used: which model's insides it reads, of which kind, and its card."""

    module: UncertaintyHead
    inside: Inside
    model: str
    recipe: Mapping[str, Any]
    cost: Mapping[str, Any]

    @functools.cached_property
    def digest(self) -> str:
        """A short hash of its weights."""
        told = blake2b(digest_size=6)
        for tensor in self.module.state_dict().values():
            told.update(tensor.detach().float().contiguous().numpy().tobytes())
        return told.hexdigest()

    def fits(self, engine: Engine) -> None:
        """UsageError for an engine of another shape than the model's that it was trained on."""
        width, own = self.inside.width(engine.config), self.module.shape.width
        if width != own:
            raise UsageError(
                f"This head reads {own} numbers a token of {self.model}, and {engine.name} has {width}: train one with "
                "language.train.uncertainty_fit.fit(engine, chains, recipe)."
            )


def save(head: Head, path: Path) -> str:
    """Writes `path` (.safetensors, in bf16) and its card beside it (.json); returns the hash of the tensors' file."""
    tensors = {name: t.detach().to(torch.bfloat16).contiguous() for name, t in head.module.state_dict().items()}
    content = write_tensors(tensors)
    card = {
        **{"kind": "uncertainty-head", "model": head.model, "inside": asdict(head.inside)},
        **{"shape": asdict(head.module.shape), "recipe": dict(head.recipe), "cost": dict(head.cost)},
        "sha256": sha256(content).hexdigest(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    part.replace(path)
    return str(card["sha256"])


def load(path: Path) -> Head:
    """What `save` wrote; ModelError for a file that is missing, damaged or of something else."""
    try:
        content, card = path.read_bytes(), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if sha256(content).hexdigest() != card["sha256"]:
            raise ValueError("its hash is not the one on its card")
        module = UncertaintyHead(Shape(**card["shape"]))
        module.load_state_dict({name: t.float() for name, t in read_tensors(content).items()})
        inside = Inside(**card["inside"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} holds no uncertainty head ({error}); delete it, and the recipe trains it again."
        ) from error
    return Head(module.eval().requires_grad_(False), inside, card["model"], card["recipe"], card["cost"])


def shape_of(inside: Inside, config: Config, hidden: int, layers: int, heads: int) -> Shape:
    """The shape of a head on a model of this `config`."""
    if hidden % heads:
        raise UsageError(f"An uncertainty head {hidden} wide cannot have {heads} heads; try hidden=128, heads=8.")
    return Shape(inside.width(config), hidden, layers, heads)
