"""A request's account: paid as it goes, corrected by what the server says, and never twice."""

from __future__ import annotations

import pytest

from anystep.language.endpoint import Endpoint, Prices
from anystep.language.endpoint.account import Account
from anystep.language.endpoint.attempt import Attempt
from anystep.language.endpoint.deltas import WHOLE
from anystep.language.endpoint.meter import FIRST, PART, Meter
from anystep.language.endpoint.trouble import Trouble, refusal
from anystep.language.endpoint.usage import Usage, possible
from anystep.ledger import Budget, Cost, Ledger, Limit

PRICES = Prices(prompt=1e6, generated=2e6, cached=0.5e6)  # one, two and a half for a token


def opened(budget: Budget | None = None, expected: int = 10, places: tuple[int, ...] = (0,)) -> tuple[Account, Limit]:
    limit = Limit(Ledger(budget or Budget(), reserve=0.0), "test")
    account = Account(limit, places, PRICES)
    assert account.open(expected)
    return account, limit


def ended(**said: bool) -> Attempt:
    attempt = Attempt(Endpoint("http://127.0.0.1:9/v1#m"), None)  # type: ignore[arg-type]
    attempt.sent = attempt.answered = attempt.streamed = attempt.whole = True
    for name, value in said.items():
        setattr(attempt, name, value)
    return attempt


def test_a_report_that_is_ahead_of_the_pieces_is_paid_once() -> None:
    account, limit = opened()
    account.piece(0, 1)
    account.report(Usage(8, 3, cached=2), 0)
    assert limit.used == Cost(prompt=6, cached=2, generated=3, calls=1, money=6 + 1 + 6)
    for _ in range(2):
        account.piece(0, 1)
    account.report(Usage(8, 4, cached=2), 0)
    account.piece(0, 1)
    account.settle(ended(), None)
    assert limit.used == Cost(prompt=6, cached=2, generated=4, calls=1, money=6 + 1 + 8)


def test_what_was_expected_too_high_comes_back() -> None:
    account, limit = opened(expected=1000)
    account.piece(0, 2)
    account.report(Usage(5, 2), WHOLE)
    assert limit.used.prompt == 5
    account.settle(ended(), None)
    assert limit.used == Cost(prompt=5, generated=2, calls=1, money=9)


def test_choices_add_up_however_they_are_reported() -> None:
    for reports in (
        [(Usage(5, 6), WHOLE)],
        [(Usage(5, 2), WHOLE), (Usage(5, 4), WHOLE)],
        [(Usage(5, 2), 0), (Usage(5, 4), 1)],
    ):
        account, limit = opened(places=(0, 1))
        account.piece(0, 2)
        account.piece(1, 4)
        for usage, choice in reports:
            account.report(usage, choice)
        account.settle(ended(), None)
        assert limit.used == Cost(prompt=5, generated=6, calls=1, money=17)


@pytest.mark.parametrize(
    ("said", "trouble", "cost"),
    [
        ({"sent": False, "answered": False, "whole": False}, Trouble("cancelled"), Cost()),
        ({"answered": False, "whole": False}, refusal(429, "slow down"), Cost(calls=1)),
        ({"answered": False, "whole": False}, Trouble("silence"), Cost(calls=1, prompt=10, money=10, estimated=True)),
        ({"whole": False}, Trouble("broken"), Cost(calls=1, prompt=10, money=10, estimated=True)),
        ({}, None, Cost(calls=1, prompt=10, money=10, estimated=True)),
    ],
)  # fmt: skip
def test_a_request_without_a_report_costs_what_is_known_of_it(
    said: dict[str, bool], trouble: Trouble, cost: Cost
) -> None:
    account, limit = opened()
    account.settle(ended(**said), trouble)
    assert limit.used == cost


def test_fewer_tokens_than_pieces_are_not_believed() -> None:
    account, limit = opened()
    account.report(Usage(5, 1), 0)
    account.piece(0, 4)
    account.settle(ended(), None)
    assert limit.used.generated == 4 and limit.used.estimated


def test_what_has_come_is_charged_though_it_cannot_be_paid() -> None:
    account, limit = opened(Budget(generated=3))
    assert account.piece(0, 3) and not account.piece(0, 2)
    assert limit.used.generated == 5 and limit.ledger.spent.generated == 5


def test_a_report_must_be_possible() -> None:
    assert possible(Usage(10, 5), sent=20, received=5, cap=8)
    for usage in (Usage(0, 5), Usage(10**6, 5), Usage(10, 4), Usage(10, 10**4)):
        assert not possible(usage, sent=20, received=5, cap=8)


def test_a_meter_learns_from_reports() -> None:
    meter, long = Meter(), "word " * 100
    assert meter.estimate(long) == -(-500 * int(FIRST * 100) // 100)
    meter.learn(long, "", 120)
    assert meter.estimate(long) == 120 and meter.estimate(long, "So", 7) == 127
    assert meter.estimate("word " * 50) == 60  # the rate so far
    picture = ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:..."}}]},)
    assert PART <= meter.estimate(picture) <= PART + 1
