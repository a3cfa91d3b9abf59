"""The one contract of a masked model: given a sequence with some sites hidden, which symbol stands at each of them?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from anystep.diffusion.denoiser import NULL, weights_of
from anystep.errors import UsageError


class Predictor(ABC):
    """Log-probabilities of the symbols at hidden sites, each site by itself.

    length: sites of a row. symbols: they are numbered from 0, and the number `mask` (which is `symbols`) hides a site.
    classes: how many conditions there are, numbered from 0; 0 for a model that takes none. dtype, device: of what it
    answers. A wrapper keeps what it wraps as `model`; what computes numbers itself does it in `forward`, where a hook
    counts the rows.
    """

    name: str = "predictor"
    length: int
    symbols: int
    classes: int = 0
    dtype: torch.dtype = torch.float32
    device: torch.device = torch.device("cpu")

    @property
    def mask(self) -> int:
        return self.symbols

    @abstractmethod
    def __call__(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """(n, length, symbols) log-probabilities. tokens: (n, length) int64, `mask` where hidden. condition: (n,)
        int64, -1 where there is none. Each row depends on itself alone; what it says of sites that are not hidden is
        never read."""

    def evaluations(self) -> int:
        """How many rows of a network one row of a call takes: 1, and 2 where guidance asks twice."""
        return 1

    def calls(self, n: int) -> int:
        """How many batched calls of a network a call with n rows takes."""
        return int(n > 0)

    def flops(self) -> float:
        """Floating-point operations of one row of the network, 0 where they are not known."""
        return 0.0

    def settings(self) -> str:
        """What decides its answers, as text: two with equal settings answer alike."""
        return self.name

    def answers(self, tokens: Tensor) -> tuple[Hashable, ...]:
        """What finished rows say, for votes and display."""
        return tuple(tuple(row) for row in tokens.tolist())

    def texts(self, tokens: Tensor) -> tuple[str, ...]:
        """Rows as text, for display."""
        return tuple(" ".join(map(str, row)) for row in tokens.tolist())


class NetworkPredictor(Predictor):
    """A torch module as a predictor: module(tokens, condition) says logits (n, length, symbols).

    module: takes tokens (n, length) int64 in 0..symbols, `symbols` hiding a site, and condition (n,) int64 in
    -1..classes-1. alphabet: a character a symbol, for texts. most: rows a call at most. least: rows a call at least,
    filled with copies, so that a row's result does not depend on how many there are. Raises UsageError for an alphabet
    of another size.
    """

    def __init__(
        self,
        module: nn.Module,
        length: int,
        symbols: int,
        classes: int = 0,
        name: str = "masked-network",
        alphabet: str = "",
        most: int = 256,
        least: int = 4,
    ) -> None:
        if alphabet and len(alphabet) != symbols:
            raise UsageError(f"alphabet={alphabet!r}: one character for each of {symbols} symbols, or '' for numbers.")
        first = next(module.parameters())
        self.module, self.length, self.symbols, self.classes = (
            module.eval().requires_grad_(False),
            length,
            symbols,
            classes,
        )
        self.name, self.alphabet, self.most, self.least = name, alphabet, most, least
        self.dtype, self.device = first.dtype, first.device

    def __call__(self, tokens: Tensor, condition: Tensor) -> Tensor:
        parts = zip(tokens.split(self.most), condition.split(self.most), strict=True)
        logits = torch.cat([self.forward(*part) for part in parts])
        if logits.shape != (*tokens.shape, self.symbols):
            raise UsageError(
                f"NetworkPredictor({self.name}): the module answers {tuple(logits.shape[1:])} a row where "
                f"{(tokens.shape[1], self.symbols)} is asked, length and symbols."
            )
        return logits.log_softmax(-1)

    @cached_property
    def _weights(self) -> str:
        return weights_of(self.module.state_dict())

    def settings(self) -> str:
        return f"{self.name} (weights {self._weights})"

    def calls(self, n: int) -> int:
        return -(-n // self.most)

    def flops(self) -> float:
        """Two operations a weight and site: attention over these short rows is left out."""
        return 2.0 * self.length * sum(p.numel() for p in self.module.parameters())

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """The module's logits, row by row."""
        n = len(tokens)
        if n < self.least:
            fill = torch.arange(self.least, device=tokens.device) % n
            tokens, condition = tokens[fill], condition[fill]
        logits: Tensor = self.module(tokens, condition)
        return logits[:n]

    def texts(self, tokens: Tensor) -> tuple[str, ...]:
        if not self.alphabet:
            return super().texts(tokens)
        return tuple("".join((self.alphabet + "_")[i] for i in row) for row in tokens.tolist())


class ClassifierFree(Predictor):
    """Classifier-free guidance on logits: null + scale (class - null), normalised again site by site.

    Preserves nothing for scales other than 1 (the conditional model) and 0 (the unconditional one). Two evaluations a
    row. scale: a real number; MaskGIT's descendants write 1 + w. Raises UsageError for a predictor without classes.

    Source: Ho and Salimans (2021) for diffusion; for masked tokens Chang et al., "Muse" (ICML 2023).
    """

    def __init__(self, model: Predictor, scale: float) -> None:
        if not model.classes:
            raise UsageError(f"{model.name} takes no condition, so there is nothing to guide to; use one with classes.")
        if not np.isfinite(scale):
            raise UsageError(f"ClassifierFree(scale={scale!r}): a finite number, 1.0 for the conditional model itself.")
        self.model, self.scale, self.name = model, float(scale), f"{model.name}-cfg"
        self.length, self.symbols, self.classes = model.length, model.symbols, model.classes
        self.dtype, self.device = model.dtype, model.device

    def __call__(self, tokens: Tensor, condition: Tensor) -> Tensor:
        if self.scale == 1.0:
            return self.model(tokens, condition)
        n = len(tokens)
        said = self.model(torch.cat([tokens, tokens]), torch.cat([condition, torch.full_like(condition, NULL)]))
        given, free = said[:n], said[n:]
        # A symbol that either rules out stays out, where infinities would cancel to no number.
        guided = torch.where(torch.isinf(given) | torch.isinf(free), given + free, free + self.scale * (given - free))
        return guided.log_softmax(-1)

    def evaluations(self) -> int:
        return self.model.evaluations() * (1 if self.scale == 1.0 else 2)

    def calls(self, n: int) -> int:
        return self.model.calls(n if self.scale == 1.0 else 2 * n)

    def flops(self) -> float:
        return self.model.flops()

    def settings(self) -> str:
        return f"classifier_free(scale={self.scale}) of {self.model.settings()}"

    def answers(self, tokens: Tensor) -> tuple[Hashable, ...]:
        return self.model.answers(tokens)

    def texts(self, tokens: Tensor) -> tuple[str, ...]:
        return self.model.texts(tokens)
