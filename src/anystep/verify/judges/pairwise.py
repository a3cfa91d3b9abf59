"""Two candidates side by side, in both orders: a judge's taste for a place cancels.

Source: Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (NeurIPS 2023), for comparing in both
orders; Wang et al., "Large Language Models are not Fair Evaluators" (ACL 2024), for how much the place decides.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.ledger import Cost, Ledger, Limit, Rows
from anystep.process import Floats, Reward, Scored
from anystep.verify.judges.asking import Asked, asked
from anystep.verify.judges.given import Ask, quoted, shown
from anystep.verify.judges.pointwise import BEGUN, KEPT, RUBRIC, THINKS, distinct, too_long, warn_missing
from anystep.verify.judges.scale import Scale
from anystep.verify.judges.strengths import bradley_terry

TWO = Scale(("A", "B"), (1.0, 0.0))
THREE = Scale(("A", "B", "C"), (1.0, 0.0, 0.5))
WHICH = "Which answer is better?"
LEAST = 1e-12  # what a preference is kept from 0 and 1 by, before it becomes log-odds

Match = tuple[str, str, str]  # question, the answer shown first, the one shown second


@dataclass(frozen=True)
class Comparisons:
    """n comparisons, each made in both orders.

    values: (n,) how far the first candidate is preferred, in [0, 1], 1/2 for a tie; NaN where there is none. ahead:
    (n, 2) the same by each order alone: the first candidate shown first, and shown second. unread: (n,) sampled
    verdicts that could not be read. errors: row to why there is none.
    """

    values: Floats
    ahead: Floats
    unread: NDArray[np.int64]
    cost: Cost
    errors: Mapping[int, str] = field(default_factory=dict)

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """Where the order decided: the place was preferred, and not the candidate."""
        return np.asarray((self.ahead[:, 0] - 0.5) * (self.ahead[:, 1] - 0.5) < 0)

    @property
    def flips(self) -> float:
        """The share of comparisons whose verdict turns with the order."""
        known = ~np.isnan(self.values)
        return float(self.flipped[known].mean()) if known.any() else float("nan")

    @property
    def first(self) -> float:
        """The mean preference for whichever is shown first; 1/2 without a bias for a place."""
        return float(np.nanmean([self.ahead[:, 0], 1 - self.ahead[:, 1]])) if len(self.values) else float("nan")


@dataclass(frozen=True)
class Ranking:
    """A round robin's outcome. strengths: (n,) in log-odds, of mean 0. order: the rows, the best first."""

    strengths: Floats
    order: NDArray[np.int64]
    comparisons: Comparisons


@dataclass(frozen=True, kw_only=True)
class Pairwise:
    """A language model that compares two candidates; see `pairwise`."""

    name: str
    rubric: str
    closing: str
    scale: Scale
    samples: int
    temperature: float
    max_tokens: int
    longest: int
    identity: int = field(repr=False)
    asked: Asked = field(compare=False, repr=False)
    kept: OrderedDict[Match, tuple[float, int]] = field(default_factory=OrderedDict, compare=False, repr=False)

    def of(self, question: str, pairs: Sequence[tuple[str, str]], limit: Limit | None = None) -> Comparisons:
        """Compares each pair, in both orders; without a limit at whatever it costs."""
        limit = limit or Limit(Ledger(), self.name)
        return self.compared([(question, *pair) for pair in pairs], limit, np.arange(len(pairs)))

    def tournament(
        self, question: str, candidates: Sequence[str], limit: Limit | None = None, prior: float = 0.1
    ) -> Ranking:
        """Everyone against everyone: n (n - 1) readings for n candidates, and the strengths that explain them best.

        prior: as in `bradley_terry`. Comparisons that the limit refused, or that failed, are left out.
        """
        pairs = list(combinations(range(len(candidates)), 2))
        found = self.of(question, [(candidates[i], candidates[j]) for i, j in pairs], limit)
        wins = np.zeros((len(candidates), len(candidates)))
        for (i, j), value in zip(pairs, found.values.tolist(), strict=True):
            if not np.isnan(value):
                wins[i, j], wins[j, i] = value, 1 - value
        strengths = bradley_terry(wins, prior)
        return Ranking(strengths, np.argsort(-strengths, kind="stable"), found)

    def against(self, references: Any, question: str | None = None) -> WinRate:
        """The reward of beating these: texts, or states, whose texts they are then."""
        texts = references.texts() if hasattr(references, "texts") else references
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not len(texts):
            raise UsageError("pairwise(model).against(references): one or more answers as texts, or states.")
        return WinRate(name=self.name, judge=self, references=tuple(texts), question=question)

    def compared(self, triples: Sequence[tuple[str, str, str]], limit: Limit, rows: Rows) -> Comparisons:
        """Comparisons of (question, first, second); `rows` are their places in the limit's call."""
        matches = [m for q, a, b in triples for m in ((q, a, b), (q, b, a))]
        places, n = np.repeat(rows, 2), len(matches)
        errors = {i: too_long(m, self.longest) for i, m in enumerate(matches) if max(map(len, m)) > self.longest}
        alike = {i for i, (_, a, b) in enumerate(matches) if a == b}
        groups = distinct(matches, limit.of(places))
        new = [g for g in groups if g[0] not in alike and g[0] not in errors and matches[g[0]] not in self.kept]
        if new:
            heads = [g[0] for g in new]
            read, failed = self._read([matches[i] for i in heads], limit, places[heads])
            self.kept.update(read)
            errors |= {row: line for i, line in failed.items() for row in new[i]}
        ahead, unread = np.full(n, np.nan), np.zeros(n, np.int64)
        for i, match in enumerate(matches):
            ahead[i], unread[i] = (0.5, 0) if i in alike else self.kept.get(match, (np.nan, 0))
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        both = np.stack([ahead[::2], 1 - ahead[1::2]], -1)
        lines = {i // 2: line for i, line in sorted(errors.items(), reverse=True)}
        return Comparisons(self._fair(both), both, unread[::2] + unread[1::2], limit.used, lines)

    def _fair(self, both: Floats) -> Floats:
        """What both orders say together. Read off probabilities, log-odds are averaged: what the model adds for a place
        cancels. Of sampled verdicts, which may all agree, the shares are."""
        if self.samples:
            return np.asarray(both.mean(-1))
        p = np.clip(both, LEAST, 1 - LEAST)
        return np.asarray(1 / (1 + np.exp(-(np.log(p) - np.log1p(-p)).mean(-1))))

    def _read(
        self, matches: list[Match], limit: Limit, rows: Rows
    ) -> tuple[dict[Match, tuple[float, int]], dict[int, str]]:
        """How far the answer shown first is preferred, and why others could not be read."""
        asks = [self.ask(*match) for match in matches]
        if not self.samples:
            weighed = self.asked.weigh(asks, BEGUN, self.scale, limit, rows)
            grades = self.scale.expected(weighed.mass)
            read = {match: (float(g), 0) for match, g in zip(matches, grades, strict=True) if not np.isnan(g)}
            return read, dict(weighed.errors)
        content = [lineage.named("\0".join([self.name, self.rubric, *map(shown, match)])) for match in matches]
        keys = np.stack([lineage.children([key], lineage.named("verdict"), np.arange(self.samples)) for key in content])
        replies = self.asked.say(asks, THINKS, keys, self.temperature, self.max_tokens, limit, rows)
        return self.scale.means(matches, replies.texts, replies.errors)

    def ask(self, question: str, first: str, second: str) -> Ask:
        """What the model is shown."""
        meaning = " where C says that they are equally good" if len(self.scale.labels) == 3 else ""
        how = f"Reply with {self.scale.named()} only{meaning and ','}{meaning}."
        if self.samples:
            how = f"Think it over in a few sentences, then end with one line: '{BEGUN}' and {self.scale.named()}"
            how += f"{meaning}."
        head = (f"{self.rubric}\n\nQuestion:\n", *quoted(question), "\n\nAnswer A:\n", *quoted(first))
        return (*head, "\n\nAnswer B:\n", *quoted(second), f"\n\n{self.closing} {how}")

    def forget(self) -> None:
        self.kept.clear()
        self.asked.forget()


@dataclass(frozen=True, kw_only=True)
class WinRate(Reward):
    """How often a candidate is preferred to some references, in [0, 1]: a function of the state, for they are fixed.

    A reward must say the same of a state whatever stands beside it, so candidates cannot be compared with each other
    inside one; and decisions are free, so they cannot ask a judge. What can be paid for is a score: against references
    known beforehand, or in a procedure's middle against the population itself, `score(population,
    judge.against(population.states))`, which is a round robin.

    A candidate equal to a reference ties with it at no cost. NaN where any of its comparisons is missing.
    """

    name: str
    judge: Pairwise
    references: tuple[str, ...]
    question: str | None = None

    def __call__(self, states: Any, limit: Limit) -> Scored:
        texts, k = states.texts(), len(self.references)
        questions = states.prompts() if self.question is None else (self.question,) * len(texts)
        triples = [(q, text, other) for q, text in zip(questions, texts, strict=True) for other in self.references]
        found = self.judge.compared(triples, limit, np.repeat(np.arange(len(texts)), k))
        warn_missing(self.name, {row // k: line for row, line in found.errors.items()}, len(texts))
        return Scored(found.values.reshape(len(texts), k).mean(-1), found.cost)

    def forget(self) -> None:
        self.judge.forget()

    def warm(self, states: Any) -> None:
        if not self.judge.asked.remote:
            self(states, Limit(Ledger(), self.name))


def pairwise(
    model: Any,
    rubric: str = RUBRIC,
    *,
    ties: bool = False,
    closing: str = WHICH,
    samples: int = 0,
    temperature: float = 0.7,
    max_tokens: int = 256,
    longest: int = 20_000,
    chat: bool | None = None,
    name: str | None = None,
) -> Pairwise:
    """A language model that says which of two candidates is better, asked in both orders.

    Preserves nothing. The two orders' log-odds are averaged, so a bias that adds the same to whichever is shown first
    cancels exactly; `flips` and `first` report how much there was. One that depends on the texts does not cancel.

    ties: offer a third label, for equally good. The other arguments are those of `judge`, and so are the treatment of
    untrusted text, NaN and memory. A comparison costs two readings. `.of(question, pairs)` compares,
    `.tournament(question, candidates)` ranks by Bradley-Terry strengths, and `.against(references)` is a reward for
    every procedure.
    """
    from anystep.verify.judges.pointwise import check

    check("pairwise", rubric, None, samples, temperature, max_tokens, longest)
    to_ask = asked(model, name, chat)
    return Pairwise(
        name=to_ask.name,
        rubric=rubric,
        closing=closing,
        scale=THREE if ties else TWO,
        samples=samples,
        temperature=float(temperature),
        max_tokens=max_tokens,
        longest=longest,
        identity=id(to_ask.own),
        asked=to_ask,
    )


def win_rate(judge: Any, references: Any, question: str | None = None) -> WinRate:
    """The share of `references` (texts, or states) that a candidate beats by a pairwise judge, as a reward in [0, 1].

    judge: `pairwise(model)`, or what makes one. question: by default each state's own prompt.
    """
    return (judge if isinstance(judge, Pairwise) else pairwise(judge)).against(references, question)
