"""Advantage-aware speculation: a light head says how much better the large model would do than the drafted step.

Source: Maheswaran et al., "Arbitrage: Efficient Reasoning via Advantage-Aware Speculation" (2025), arXiv 2512.05033.
What is different from the paper: its router is a step reward that was fine-tuned whole on contexts in which each step
is marked with its writer; here the step reward's trunk stays as it is, a head of two layers reads its states at the
step's beginning and end, its verdict and the writers, so that it is trained in seconds; and it learns the advantage
itself, which on held-out pairs of steps ranked better than its sign.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.engine.tokenizer import Alphabet
from anystep.language.prefill import opened, portions, read_each
from anystep.language.states import Sequences
from anystep.language.train.checkpoint import WEIGHTS, load
from anystep.language.train.reward import StepReward, step_reward
from anystep.ledger import Ledger, Limit
from anystep.procedure import Method
from anystep.process import Process, Reward, Scored
from anystep.search.draft_router import draft_router

WRITERS = 3  # what is told of the writers: steps by another than the draft's, by the draft's, and who wrote the last


class Head(nn.Module):
    """From what is read of a drafted step, (n, width), to how much better the large model would do, (n,)."""

    mean: Tensor
    spread: Tensor

    def __init__(self, dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.width = 2 * dim + 1 + WRITERS
        self.inner, self.outer = nn.Linear(self.width, hidden), nn.Linear(hidden, 1)
        self.register_buffer("mean", torch.zeros(self.width))
        self.register_buffer("spread", torch.ones(self.width))

    def forward(self, features: Tensor) -> Tensor:
        x = (features - self.mean) / self.spread
        found: Tensor = self.outer(torch.tanh(self.inner(x)))[..., 0]
        return found

    def digest(self) -> str:
        """A short hash of its weights."""
        told = b"".join(tensor.float().numpy().tobytes() for tensor in self.state_dict().values())
        return blake2b(told, digest_size=6).hexdigest()


@torch.inference_mode()
def features(judge: StepReward, hidden: Tensor, tokens: Sequence[int], start: int, by: Sequence[bool]) -> Tensor:
    """What a head reads of the last step of `tokens`, from the trunk's states (time, dim) at all of them: (width,).

    by: of each step before it, whether another than the draft's writer wrote it.
    """
    marks = (judge.alphabet.step_end, judge.alphabet.chain_end)
    ends = [i for i in range(start, len(tokens)) if tokens[i] in marks]
    begin = ends[-2] + 1 if len(ends) > 1 else start
    right = min(max(judge.read(hidden, tokens, start)[-1], 1e-6), 1 - 1e-6)
    told = [sum(by), len(by) - sum(by), float(bool(by) and by[-1]), float(np.log(right) - np.log1p(-right))]
    return torch.cat([hidden[ends[-1]].float(), hidden[begin - 1].float(), torch.tensor(told)])


def writers_before(states: Sequences, row: int, ends: Sequence[int]) -> list[bool]:
    """Of each step that ends at `ends` in a row, whether another than the writer of its last token wrote it."""
    told = states.writers[row]
    if not told:
        return [False] * len(ends)
    last = told[-1][0]
    return [next(name for name, at in reversed(told) if at <= end) != last for end in ends]


@dataclass(frozen=True)
class Router(Reward):
    """How much better the large model's next step would be than the one that was drafted last, in [0, 1].

    The sigmoid of what the head says: of the expected advantage in reward, so that above 0.5 the large model is
    expected to do better and 0.51 is an advantage of 0.04; of a head that learned the sign, its probability.

    It reads a state's tokens through a prefix cache of its own, so a state that goes on pays for its new tokens alone:
    prompt tokens on the ledger, since it writes none. which: the head's name.
    """

    name: str
    which: str = ""
    range: tuple[float, float] = (0.0, 1.0)
    engine: Any = field(default=None, compare=False, repr=False)
    judge: Any = field(default=None, compare=False, repr=False)
    head: Any = field(default=None, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        read = self.read_features(states, limit)
        values = np.full(len(states), np.nan)
        rows = np.array(sorted(read), np.int64)
        if len(rows):
            with torch.inference_mode():
                values[rows] = self.head(torch.stack([read[row] for row in rows.tolist()])).sigmoid().double().numpy()
        return Scored(values, limit.used)

    def read_features(self, states: Any, limit: Limit) -> dict[int, Tensor]:
        """What the head reads of every row that could be paid for."""
        size = getattr(getattr(states, "tokenizer", None), "size", None)
        if size != self.engine.tokenizer.size:
            raise UsageError(
                f"{self.name} reads what chain models write, and these states are none of it: use it with "
                "model='chainlm-300k' and large=LanguageProcess(load('chainlm-2m'), ...)."
            )
        found: dict[int, Tensor] = {}
        marks = (self.judge.alphabet.step_end, self.judge.alphabet.chain_end)

        def read(hidden: Tensor, row: int) -> float:
            tokens, start = states.tokens[row], states.starts[row]
            ends = [i for i in range(start, len(tokens)) if tokens[i] in marks]
            if not ends:
                return 0.0  # nothing is finished: there is no step to judge
            found[row] = features(self.judge, hidden, tokens, start, writers_before(states, row, ends[:-1]))
            return 0.0

        read_each(self.engine, states.tokens, np.arange(len(states)), limit, read)
        return found

    def forget(self) -> None:
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        with self.engine.lock:
            for some in portions(self.engine, states.tokens):
                sequences = [states.tokens[i] for i in some.tolist()]
                _, session = opened(self.engine, sequences, Limit(Ledger(), self.name))
                if session is not None:
                    session.close()


@functools.cache
def trunk(reward: str) -> tuple[Engine, StepReward]:
    """A step reward, and an engine that reads with its trunk for routers alone."""
    judge = step_reward(reward)
    judge.requires_grad_(False)
    return Engine(judge.trunk, Alphabet(judge.alphabet.symbols), name=f"{reward}-router"), judge


def advantage_router(head: Head | str | Path = "chainlm-300k-router", reward: str = "chainlm-2m-step-reward") -> Router:
    """The advantage router for ChainLM of 2.2M parameters over steps that chainlm-300k drafts.

    head: another one that `language.train.router` trained, or its card's path. Preserves nothing.
    """
    engine, judge = trunk(reward)
    if isinstance(head, Head):
        return Router(engine.name, head.digest(), engine=engine, judge=judge, head=head.eval())
    path = Path(head)
    tensors, _ = load(path.stem, path.parent) if path.suffix == ".json" else load(str(head), WEIGHTS)
    found = Head(judge.trunk.config.dim, tensors["inner.weight"].shape[0])
    found.load_state_dict(tensors)
    return Router(engine.name, found.digest(), engine=engine, judge=judge, head=found.eval())


def arbitrage(target: Process, router: Reward, threshold: float = 0.51, n: int = 1) -> Method:
    """n samples drafted step by step by the run's (small) process; a step is dropped, and `target` writes it, where the
    router's value is above `threshold`: an advantage of 0.04 by default, which a quarter of the steps drafted for
    ChainLM's training problems have.

    Preserves nothing in between; `threshold=1` is the draft's law exactly, below 0 the target's: see
    `search.draft_router`, which this is with an advantage router.
    """
    return draft_router(target, router, threshold, n)
