"""A step's chance of being right, read off what went on inside the model that wrote it, by a small trained head."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.language.engine.engine import Engine
from anystep.language.internals import reader
from anystep.language.loading import load as load_engine
from anystep.language.prefill import paid, portions
from anystep.language.train.checkpoint import WEIGHTS
from anystep.language.train.uncertainty import Head, load
from anystep.language.train.worked import step_ends
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Reward, Scored
from anystep.verify.chain_steps import AGGREGATES, Aggregate

SHIPPED = "{}-uncertainty.safetensors"
Place = tuple[int, tuple[int, ...]]  # where a chain begins, and all tokens up to a step's end


@dataclass(frozen=True)
class UncertaintyHead(Reward):
    """How likely a chain's finished steps are right, in [0, 1], by a head on its own model's internal states; a chain
    without a finished step has `prior`.

    What is read of the model is what writing had computed: on the writer's own engine it lies in the prefix cache, and
    only what the cache has lost is computed again, as prompt tokens on the ledger. (A head that looks at attention
    reads each chain in one pass of its own, and an extended chain pays for its new tokens alone.) The head sees no
    further than a step's end, so a step is judged once: when a chain goes on, its tokens are projected again and the
    new steps alone go through the encoder, each with all tokens before it. Those FLOPs are charged to every row.

    aggregate: how the steps' probabilities become one: their product, the least, or the last. stop: what ends a step;
    the model's end token ends one too. kept: how many steps' probabilities are remembered. which: the
    head's hash.
    """

    name: str
    aggregate: Aggregate = "product"
    stop: str = "\n"
    prior: float = 0.5
    kept: int = 4096
    which: str = ""
    engine: Any = field(default=None, compare=False, repr=False)
    head: Any = field(default=None, compare=False, repr=False)
    known: OrderedDict[Place, float] = field(default_factory=OrderedDict, compare=False, repr=False)

    def __call__(self, states: Any, limit: Limit) -> Scored:
        values = np.full(len(states), np.nan)
        for row, steps in self.steps(states, limit).items():
            values[row] = AGGREGATES[self.aggregate](steps) if steps else self.prior
        return Scored(values, limit.used)

    def steps(self, states: Any, limit: Limit) -> dict[int, list[float]]:
        """How likely each finished step is right, of every row whose new steps could be paid for."""
        with self.engine.lock:
            found = self._judged(states, self._ends(states), limit)
            while len(self.known) > self.kept:
                self.known.popitem(last=False)
        return found

    def _judged(self, states: Any, ends: Sequence[Sequence[int]], limit: Limit) -> dict[int, list[float]]:
        known = self.known  # by where the chain begins too: the head sees nothing before that
        every = list(zip(states.starts, states.tokens, ends, strict=True))
        new = [[e for e in each if (start, tokens[:e]) not in known] for start, tokens, each in every]
        rows = np.flatnonzero([bool(each) for each in new])
        fed = [states.tokens[row][: ends[row][-1] - 1] for row in rows.tolist()]
        found = {row: self._remembered(*each) for row, each in enumerate(every) if not new[row]}
        for some in portions(self.engine, fed):
            part = rows[some]
            prices = [self._price(states.starts[row], ends[row][-1], new[row]) for row in part.tolist()]
            left, plan = paid(self.engine, [fed[i] for i in some.tolist()], limit, prices, rows=part)
            if plan is None:
                continue
            mine = part[left].tolist()
            with self.engine.open(plan) as session:
                read = self.head.inside.read
                features = [
                    read(session, i, states.starts[row], states.tokens[row][states.starts[row] : ends[row][-1]])
                    for i, row in enumerate(mine)
                ]
            fresh = self.head.module.uncertainties(features, [[e - states.starts[r] for e in new[r]] for r in mine])
            for row, wrong in zip(mine, fresh, strict=True):
                start, tokens, own = every[row]
                known.update({(start, tokens[:e]): 1.0 - p for e, p in zip(new[row], wrong, strict=True)})
                found[row] = self._remembered(start, tokens, own)
        return found

    def _price(self, start: int, last: int, new: Sequence[int]) -> Cost:
        """What judging costs beside the model's passes."""
        head = self.head.module.flops(last - start, [end - start for end in new])
        return Cost(flops=head + self.head.inside.flops(self.engine, last - start))

    def _remembered(self, start: int, tokens: tuple[int, ...], ends: Sequence[int]) -> list[float]:
        keys = [(start, tokens[:end]) for end in ends]
        for key in keys:
            self.known.move_to_end(key)
        return [self.known[key] for key in keys]

    def _ends(self, states: Any) -> list[list[int]]:
        """Where each row's finished steps end."""
        tokenizer = self.engine.tokenizer
        if getattr(getattr(states, "tokenizer", None), "size", None) != tokenizer.size:
            raise UsageError(
                f"{self.name} reads what its own model wrote, and these states are none of it: give "
                f"verify.uncertainty_head(engine) the engine that writes them, and a head trained on it."
            )
        return [
            step_ends(tokenizer, tokens, start, self.stop, over=len(tokens) > start and tokens[-1] in tokenizer.ends)
            for tokens, start in zip(states.tokens, states.starts, strict=True)
        ]

    def forget(self) -> None:
        self.known.clear()
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Any) -> None:
        self.steps(states, Limit(Ledger(), self.name))


@functools.cache
def _engine(name: str) -> Engine:
    return load_engine(name)


def head_for(engine: Engine) -> Head:
    """The head that ships for a model known by name; UsageError for any other."""
    path = WEIGHTS / SHIPPED.format(engine.name)
    if path.exists():
        return load(path)
    raise UsageError(
        f"No uncertainty head is known for {engine.name}: train one with language.train.uncertainty_fit.fit(engine, "
        "chains, recipe) and write verify.uncertainty_head(engine, head)."
    )


def uncertainty_head(
    model: str | Engine = "chainlm-2m",
    head: Head | str | Path | None = None,
    aggregate: Aggregate = "product",
    stop: str = "\n",
) -> UncertaintyHead:
    """The reward of an uncertainty head (arXiv 2511.06209) over the states of its own model.

    model: the engine that writes, whose cache then has what the head reads; a name loads another engine, which reads
    every chain itself. head: one that was trained, or its file; by default the model's own. aggregate, stop: see
    `UncertaintyHead`.

    Preserves nothing. As a potential (`.log_odds()`) with the last step's aggregate the target that results is p(x)
    times the odds that x's last step is right; with the product, that all are. Raises UsageError for a head that was
    trained on another model, ModelError for a file that is none.
    """
    if aggregate not in AGGREGATES:
        raise UsageError(f"uncertainty_head(aggregate={aggregate!r}): one of {', '.join(AGGREGATES)}.")
    if not isinstance(stop, str) or not stop:
        raise UsageError(f"uncertainty_head(stop={stop!r}): the text that ends a step, such as '\\n'.")
    engine = _engine(model) if isinstance(model, str) else model
    found = head_for(engine) if head is None else head if isinstance(head, Head) else load(Path(head))
    found.fits(engine)
    name = f"{engine.name}-uncertainty"
    return UncertaintyHead(name, aggregate, stop, which=found.digest, engine=reader(engine, found.inside), head=found)
