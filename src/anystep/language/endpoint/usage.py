"""What a request cost: the server's own figures where they can be believed, and prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anystep.errors import UsageError
from anystep.ledger import Cost


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in any one currency: `Prices(prompt=0.15, generated=0.60, cached=0.075)`.

    cached: of prompt tokens that the server found in its cache; as `prompt` where left out. Reasoning tokens are
    generated ones. Raises UsageError for a negative or non-numeric price.
    """

    prompt: float = 0.0
    generated: float = 0.0
    cached: float | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "generated", "cached"):
            price = getattr(self, name)
            number = isinstance(price, (int, float)) and not isinstance(price, bool) and 0 <= price < float("inf")
            if not number and not (name == "cached" and price is None):
                raise UsageError(f"Prices({name}={price!r}): money for a million tokens, as Prices(prompt=0.15, ...).")

    @classmethod
    def read(cls, text: str) -> Prices:
        """From "PROMPT,GENERATED" or "PROMPT,GENERATED,CACHED". Raises UsageError."""
        try:
            figures = [float(part) for part in text.split(",")]
        except ValueError:
            figures = []
        if len(figures) not in (2, 3):
            raise UsageError(f"prices {text[:40]!r}: give money for a million tokens, as 0.15,0.60 or 0.15,0.60,0.075.")
        return cls(*figures)

    def cost(self, prompt: int = 0, generated: int = 0, cached: int = 0) -> Cost:
        """These tokens with what they are worth. Cached ones are shown, free in tokens, and cost their own price."""
        found = self.prompt if self.cached is None else self.cached
        money = (prompt * self.prompt + generated * self.generated + cached * found) / 1e6
        return Cost(prompt=prompt, cached=cached, generated=generated, money=money)

    def of(self, usage: Usage) -> Cost:
        """What a report of usage is worth."""
        return self.cost(usage.prompt - usage.cached, usage.generated, usage.cached)


NO_PRICES = Prices()


@dataclass(frozen=True)
class Usage:
    """A server's report of one request. prompt: all of it, the cached tokens included."""

    prompt: int
    generated: int
    cached: int = 0
    reasoning: int = 0


def usage_of(found: Any) -> Usage | None:
    """The `usage` object of a reply; None where it is missing, no object, or holds what is no count of tokens."""
    if not isinstance(found, Mapping):
        return None
    prompt, generated = _count(found.get("prompt_tokens")), _count(found.get("completion_tokens"))
    if prompt is None or generated is None:
        return None
    cached = _detail(found, "prompt_tokens_details", "cached_tokens")
    reasoning = _detail(found, "completion_tokens_details", "reasoning_tokens")
    return Usage(prompt, generated, min(cached, prompt), min(reasoning, generated))


def _detail(found: Mapping[str, Any], group: str, name: str) -> int:
    inside = found.get(group)
    return (_count(inside.get(name)) or 0) if isinstance(inside, Mapping) else 0


def _count(found: Any) -> int | None:
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 50 else None


def possible(usage: Usage, sent: int, received: int, cap: int) -> bool:
    """Whether figures can be those of a request of `sent` bytes that may generate `cap` tokens and brought at least
    `received`. A token has a byte at least, but for what a server's template adds around the messages."""
    return 0 < usage.prompt <= sent + 65_536 and received <= usage.generated <= max(cap, received) + 64
