"""An engine for models whose past cannot be cut at a token: every pass feeds whole sequences, and is charged so.

What a recurrent model remembers is one state, not a position's keys and values, so a sequence cannot be taken up in its
middle. Here nothing is remembered: a fork, a step and each next token compute their whole sequence again, each row in a
pass of its own. Slow, exact, and of one interface with the engine that shares: `LanguageProcess` takes it as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from anystep.errors import ModelError, Unsupported, UsageError
from anystep.language.engine.cache import Path, Segment, Tokens
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import Config
from anystep.language.engine.plan import Plan, Unit
from anystep.language.engine.slots import Arrange, Slots
from anystep.language.engine.tokenizer import Tokenizer
from anystep.ledger import FREE, Cost

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = 4  # tokens that the model is checked on


class Whole(nn.Module):
    """A transformers model that is asked for logits alone."""

    def __init__(self, model: PreTrainedModel, context: int) -> None:
        super().__init__()
        self.model = model
        named = inspect.signature(model.forward).parameters
        self.last: Mapping[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in named else {}
        vocab = self._probed(type(model).__name__)
        self.config = Config(vocab, 0, 0, 0, 0, 0, 0, context)
        self.weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)

    @torch.no_grad()
    def _probed(self, title: str) -> int:
        """The size of the vocabulary; ModelError for a model whose logits depend on what comes after."""
        tokens = torch.arange(PROBE, device=self.model.device)[None]
        whole, part = self(tokens), self(tokens[:, : PROBE // 2])
        apart = float((whole[:, : PROBE // 2] - part).abs().max())
        if not apart <= (1e-3 if self.model.dtype == torch.float32 else 0.05) * float(whole.abs().max()):
            raise ModelError(f"{title} looks ahead: it reads in both directions and continues nothing.")
        return whole.shape[-1]

    def forward(self, tokens: Tensor, last: bool = False) -> Tensor:
        """Logits (batch, time, vocab) of tokens (batch, time), or (batch, 1, vocab) for the `last` ones."""
        logits = self.model(input_ids=tokens, use_cache=False, **(self.last if last else {})).logits
        return (logits[:, -1:] if last else logits).float()

    def logits(self, hidden: Tensor) -> Tensor:
        raise Unsupported("A model that is run whole shows no hidden states; ask engine.forward(tokens) for logits.")


class WholeEngine(Engine):
    """An engine that holds nothing and shares nothing: each row that is opened or fed is one pass over all of it."""

    model: Whole

    def __init__(self, model: Whole, tokenizer: Tokenizer, name: str) -> None:
        super().__init__(model, tokenizer, name=name)
        self.model = model

    def flops(self, evaluations: int, attended: int, heads: int) -> float:
        """Two for each position and weight of a matrix, embeddings included; attention and recurrence come on top."""
        return 2.0 * evaluations * self.model.weights

    def feed(self, lengths: Sequence[int]) -> tuple[list[Cost], Cost]:
        """One more token makes a row of `length` tokens anew."""
        return [self._pass(n, generated=1) for n in lengths], FREE

    def plan(self, sequences: Sequence[Sequence[int]]) -> Plan:
        rows = self.checked(sequences)
        lengths = np.array([len(tokens) for tokens in rows], np.int64)
        attended = lengths * (lengths + 1) // 2
        return Plan(tuple(rows), lengths, lengths * 0, lengths * 0, attended, (), self.cache.version)

    def price(self, plan: Plan) -> tuple[list[Cost], Cost]:
        """What opening `plan` costs each row; its logits are in it."""
        return [self._pass(len(tokens), prompt=len(tokens)) for tokens in plan.sequences], FREE

    def _pass(self, length: int, prompt: int = 0, generated: int = 0) -> Cost:
        work, attended = self.flops(length, 0, heads=1), length * (length + 1) // 2
        return Cost(prompt=prompt, generated=generated, evaluations=length, attended=attended, flops=work, calls=1)

    @torch.inference_mode()
    def open(self, plan: Plan) -> WholeRows:  # type: ignore[override]
        self.counters.prefilled += int(plan.prefill.sum())
        return WholeRows(self, plan)

    def gather(self, arrange: Arrange | None = None) -> WholeRows:  # type: ignore[override]
        return WholeRows(self, self.plan([]))

    @torch.inference_mode()
    def forward(
        self, tokens: Tensor, mask: Tensor | None = None, positions: Tensor | None = None, hidden: bool = False
    ) -> Tensor:
        if mask is not None or positions is not None or hidden:
            raise Unsupported("A model that is run whole takes no mask or positions and shows no hidden states.")
        return self._compute(tokens)

    def _compute(self, tokens: Tensor, last: bool = False) -> Tensor:
        """The only place that calls the model, so that counts are true."""
        self.counters.passes += 1
        self.counters.positions += tokens.numel()
        return self.model(tokens.to(self.like.device), last)

    def after(self, tokens: Sequence[int]) -> Tensor:
        """Next-token logits (vocab,) of one sequence."""
        return self._compute(torch.tensor([list(tokens)]), last=True)[0, 0]


class WholeRows:
    """Rows being continued, with the faces of `Decoding` and `Running`; nothing of them is held."""

    bytes = 0

    def __init__(self, engine: WholeEngine, plan: Plan) -> None:
        self.engine = engine
        self.tokens = [list(tokens) for tokens in plan.sequences]
        self.live = np.ones(len(self.tokens), bool)
        self.next = [engine.after(tokens) for tokens in plan.sequences]
        self.slots = Slots(engine.like, engine.counters)  # stays empty: there are no keys to lay out

    def __len__(self) -> int:
        return len(self.tokens)

    def logits(self, rows: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """(len(rows), vocab): next-token logits of `rows`, by default of all."""
        return torch.stack([self.next[row] for row in (range(len(self)) if rows is None else rows)])

    def pinned(self) -> set[Segment]:
        """Nothing is cached."""
        return set()

    def needs(self, sequences: Sequence[Tokens]) -> int:
        """Nothing is held."""
        return 0

    @torch.inference_mode()
    def join(self, sequences: Sequence[Tokens], most: float = np.inf) -> list[int]:
        """Numbers of new rows, a pass each."""
        rows = []
        for tokens in sequences:
            free = np.flatnonzero(~self.live)
            row = int(free[0]) if len(free) else len(self)
            self.live = np.pad(self.live, (0, int(row == len(self))))
            self.tokens[row : row + 1], self.next[row : row + 1] = [list(tokens)], [self.engine.after(tokens)]
            self.live[row] = True
            rows.append(row)
        return rows

    def leave(self, rows: Sequence[int], keep: bool = True) -> None:
        """These rows are gone."""
        self.drop(rows)

    @torch.inference_mode()
    def append(
        self,
        tokens: Sequence[int],
        rows: Sequence[int] | np.ndarray | None = None,
        units: Sequence[Unit] = (),
        most: float = np.inf,
    ) -> list[Path]:
        """Feeds one token to each of `rows` (by default every live one) and all that was before it.

        Raises UsageError for a dropped or repeated row, a count that differs, or a row whose context is full.
        """
        chosen = np.flatnonzero(self.live) if rows is None else np.asarray(rows, np.int64)
        if units or len(chosen) != len(tokens) or len(np.unique(chosen)) != len(chosen) or not self.live[chosen].all():
            raise UsageError(f"append(tokens, rows) takes one token a live row; got {len(tokens)}, {len(chosen)}.")
        context = self.engine.config.context
        if any(len(self.tokens[row]) >= context for row in chosen.tolist()):
            raise UsageError(f"The context of {context} tokens is full; drop() rows that reach it.")
        for row, token in zip(chosen.tolist(), tokens, strict=True):
            self.tokens[row].append(int(token))
            self.next[row] = self.engine.after(self.tokens[row])
        return []

    def drop(self, rows: Sequence[int] | np.ndarray) -> None:
        """These rows take no more tokens."""
        self.live[np.asarray(rows, dtype=np.int64)] = False

    def close(self, keep: bool = True) -> None:
        """Nothing is held, so nothing is given back."""
        self.live[:] = False

    def __enter__(self) -> WholeRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
