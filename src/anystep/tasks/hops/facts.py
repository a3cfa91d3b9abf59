"""A base of short texts that can be searched by words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

Words = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Found:
    """A text of the base and how well it fits, as a share of what a text with all of the query's words would have."""

    text: str
    fits: float


@dataclass(frozen=True)
class Facts:
    """Texts, ranked for a query by Okapi BM25. words: what a text is looked up by.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the inverse
    document frequency of Lucene, which is never negative.
    """

    texts: tuple[str, ...]
    words: Words
    k1: float = 1.2
    b: float = 0.75

    @cached_property
    def _counts(self) -> list[Counter[str]]:
        return [Counter(self.words(text)) for text in self.texts]

    @cached_property
    def _rarity(self) -> dict[str, float]:
        seen = Counter(word for count in self._counts for word in count)
        n = len(self.texts)
        return {word: math.log(1 + (n - k + 0.5) / (k + 0.5)) for word, k in seen.items()}

    @cached_property
    def _mean(self) -> float:
        return sum(count.total() for count in self._counts) / max(len(self.texts), 1)

    def search(self, query: str, k: int = 1) -> list[Found]:
        """The k texts that fit best, best first, of equal ones the earlier; none that has no word of the query."""
        asked = Counter(self.words(query))
        most = sum(times * self._rarity.get(word, 0.0) * (self.k1 + 1) for word, times in asked.items())
        worth = [self._score(count, asked) for count in self._counts]
        order = sorted(range(len(worth)), key=lambda i: -worth[i])[:k]
        return [Found(self.texts[i], min(1.0, worth[i] / most)) for i in order if worth[i] > 0]

    def _score(self, count: Counter[str], asked: Counter[str]) -> float:
        norm = self.k1 * (1 - self.b + self.b * count.total() / self._mean)
        found = ((times * self._rarity[word], count[word]) for word, times in asked.items() if word in count)
        return sum(rare * (self.k1 + 1) * have / (have + norm) for rare, have in found)
