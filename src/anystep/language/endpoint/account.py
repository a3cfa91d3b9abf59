"""What one request has been paid for so far, and what it turns out to have cost."""

from __future__ import annotations

from collections.abc import Sequence

from anystep.language.endpoint.attempt import Attempt
from anystep.language.endpoint.trouble import Trouble
from anystep.language.endpoint.usage import Prices, Usage
from anystep.ledger import FREE, Cost, Limit


class Account:
    """Payments of one attempt, each before the work it is for, or on arrival; settled once it is over.

    places: the rows of the batch that share it; the first pays for the prompt. expected: the prompt's tokens.
    """

    def __init__(self, limit: Limit, places: Sequence[int], prices: Prices, expected: int) -> None:
        self.limit, self.places, self.prices, self.expected = limit, list(places), prices, expected
        self.paid, self.counted = FREE, 0
        self.usage: Usage | None = None

    def open(self) -> bool:
        """Pays for sending: a call and the prompt."""
        cost = self.prices.cost(prompt=self.expected) + Cost(calls=1)
        if not self.limit.pay(self.places, [cost, *([FREE] * (len(self.places) - 1))]).all():
            return False
        self.paid += cost
        return True

    def piece(self, place: int, tokens: int) -> bool:
        """Pays for tokens that have come. Those that cannot be paid for are charged: they were made."""
        cost = self.prices.cost(generated=tokens)
        granted = bool(self.limit.pay([place], [cost])[0])
        if not granted:
            self.limit.charge(cost, place)
        self.paid += cost
        self.counted += tokens
        return granted

    def report(self, usage: Usage) -> bool:
        """Takes in the server's own figures so far, which may be ahead of what was counted."""
        self.usage = usage
        ahead = usage.generated - self.counted
        return self.piece(self.places[0], ahead) if ahead > 0 else True

    def settle(self, attempt: Attempt, trouble: Trouble | None) -> None:
        """Charges the difference between what the attempt cost and what was paid for it."""
        difference = self._true(attempt, trouble) + self.paid * -1
        if difference != FREE:
            self.limit.charge(difference, self.places[0])

    def _true(self, attempt: Attempt, trouble: Trouble | None) -> Cost:
        """Exact where the server reported it; else counted, and said to be estimated. A request that never left cost
        nothing, one that was refused by a status a call."""
        call = Cost(calls=1)
        if not attempt.sent:
            return FREE
        if not attempt.answered and trouble is not None and trouble.status is not None:
            return call
        if self.usage is None:
            return call + self.prices.cost(self.expected, self.counted) + Cost(estimated=True)
        usage = self.usage
        cost = call + self.prices.cost(usage.prompt - usage.cached, max(usage.generated, 0), usage.cached)
        return cost if attempt.whole else cost + Cost(estimated=True)
