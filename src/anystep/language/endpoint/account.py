"""What one request has been paid for so far, and what it turns out to have cost."""

from __future__ import annotations

from collections.abc import Sequence

from anystep.language.endpoint.attempt import Attempt
from anystep.language.endpoint.deltas import WHOLE
from anystep.language.endpoint.trouble import Trouble
from anystep.language.endpoint.usage import Prices, Usage
from anystep.ledger import FREE, Cost, Limit


class Account:
    """Payments of one attempt, each before the work it is for, or on arrival; settled once it is over.

    places: the rows of the batch that share it; the first pays for the prompt.
    """

    def __init__(self, limit: Limit, places: Sequence[int], prices: Prices) -> None:
        self.limit, self.places, self.prices, self.expected = limit, list(places), prices, 0
        self.paid, self.counted = FREE, 0
        self.usage: Usage | None = None
        self.reports: list[Usage] = []
        self.riding: dict[int, Usage] = {}

    def open(self, expected: int) -> bool:
        """Pays for sending: a call, and the prompt's tokens as they are expected."""
        self.expected = expected
        cost = self.prices.cost(prompt=self.expected) + Cost(calls=1)
        if not self.limit.pay(self.places, [cost, *([FREE] * (len(self.places) - 1))]).all():
            return False
        self.paid += cost
        return True

    def piece(self, place: int, tokens: int) -> bool:
        """Pays for tokens that have come, unless the server has reported them before."""
        self.counted += tokens
        return self._pay(place, self.prices.cost(generated=self._ahead()))

    def _ahead(self) -> int:
        """Tokens that were counted, or reported, beyond those paid for."""
        reported = 0 if self.usage is None else self.usage.generated
        return max(self.counted, reported) - self.paid.generated

    def missed(self, tokens: int) -> None:
        """Tokens that have come when there was nobody left to pay for them; `settle` charges them."""
        self.counted += tokens

    def report(self, usage: Usage, choice: int) -> bool:
        """Takes in the server's own figures so far, which may be ahead of what was counted.

        With several choices, servers differ: one report of the whole, one a choice at the end (llama.cpp's chats), or
        one that comes with each choice (its completions).
        """
        if len(self.places) == 1:
            self.reports = [usage]
        elif choice == WHOLE:
            self.reports.append(usage)
        else:
            self.riding[choice] = usage
        told = self.reports or list(self.riding.values())
        self.usage = Usage(max(u.prompt for u in told), sum(u.generated for u in told), max(u.cached for u in told))
        uncached = self.usage.prompt - self.usage.cached
        more = self.prices.cost(uncached - self.paid.prompt, self._ahead(), self.usage.cached - self.paid.cached)
        return self._pay(self.places[0], more)

    def _pay(self, place: int, cost: Cost) -> bool:
        """Pays for what has come; what cannot be paid for is charged, for it was made; what was too much comes back."""
        if cost == FREE:
            return True
        granted = cost.tokens > 0 and bool(self.limit.pay([place], [cost])[0])
        if not granted:
            self.limit.charge(cost, place)
        self.paid += cost
        return granted or cost.tokens <= 0

    def settle(self, attempt: Attempt, trouble: Trouble | None) -> None:
        """Charges the difference between what the attempt cost and what was paid for it."""
        difference = self._true(attempt, trouble) + self.paid * -1
        if difference != FREE:
            self.limit.charge(difference, self.places[0])

    def _true(self, attempt: Attempt, trouble: Trouble | None) -> Cost:
        """Exact where the server reported it; else counted, and said to be estimated. A request that never left cost
        nothing, one that was refused by a status a call."""
        call, guess = Cost(calls=1), Cost(estimated=True)
        if not attempt.sent:
            return FREE
        if not attempt.answered and trouble is not None and trouble.status is not None:
            return call
        if self.usage is None:
            return call + self.prices.cost(self.expected, self.counted) + guess
        missing = max(0, self.counted - self.usage.generated)  # a piece has a token at least
        one = len(self.places) == 1 or attempt.streamed  # llama.cpp reports one choice of several, not streamed
        sure = attempt.whole and one and not missing
        return call + self.prices.of(self.usage) + self.prices.cost(generated=missing) + (FREE if sure else guess)
