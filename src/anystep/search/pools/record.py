"""Sample and score what a pool lacks, keeping the payments: the samples are those of a run of `search.sample(n)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anystep import keys as lineage
from anystep.calls import Call
from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys
from anystep.ledger import FREE, Cost, Ledger
from anystep.process import Floats, Process, Reward, Scored, Status, Stepped
from anystep.search.pools.bill import Bill, Meter, Paid, less, sorted_out
from anystep.search.pools.block import Block, whole


def roots(seed: int, first: int, n: int) -> Keys:
    """The keys that a run of this seed gives its starts."""
    return lineage.roots(seed, (0,), np.arange(first, first + n))


def stepped(keys: Keys, name: str) -> Keys:
    """The keys of the one step that each start takes to its end, by the process of this name."""
    return lineage.children(keys, lineage.named(name), 0)


def sampled(process: Process, keys: Keys, bill: Bill, ledger: Ledger) -> tuple[Block, Any, Bill]:
    """The samples of these keys as a block, their states, and the pool's prices with what this block adds to them.

    Where the budget refuses, the block ends before the first sample that has not. The process's cache is dropped first,
    so that what samples share is paid once a block, and is told from what each of them pays.
    """
    process.forget()
    limit = Meter(ledger, process.name)
    begun = Call("start", process, limit, keys=keys).perform()
    assert isinstance(begun, Stepped)
    started = sorted_out(limit.events, len(keys))
    limit = Meter(ledger, process.name)
    live = np.flatnonzero(begun.status == Status.LIVE)
    moved = begun
    if len(live):
        reply = Call("step", process, limit, begun.states.take(live), stepped(keys[live], process.name), "done")
        moved = _put(begun, live, reply.perform())
    bill, each = _priced(bill, sorted_out(limit.events, len(live)), started)
    payments: list[list[Cost]] = [[] for _ in keys]
    for row, prices in zip(live.tolist(), each, strict=True):
        payments[row] = prices
    costs = tuple(sum(prices, FREE) for prices in started.each)
    block = Block(
        born=begun.status.astype(np.int8),
        status=moved.status.astype(np.int8),
        errors=dict(moved.errors),
        answers=process.answers(moved.states),
        texts=process.texts(moved.states),
        logp=moved.logp,
        logw=moved.logw,
        payments=np.array([len(prices) for prices in payments], np.int64),
        own={row: tuple(p) for row, p in enumerate(payments) if tuple(p) != bill.each[: len(p)]},
        begun=costs if any(c != FREE for c in costs) else None,
    )
    n = whole(moved.status, moved.cut)
    return block.first(n), moved.states.take(np.arange(n)), bill


def _put(begun: Stepped, live: Any, reply: Any) -> Stepped:
    """The starts, with what has become of those that were stepped."""
    assert isinstance(reply, Stepped)
    n = len(begun.status)
    still = np.setdiff1d(np.arange(n), live)
    order = np.argsort(np.concatenate([still, live]), kind="stable")
    states = begun.states.take(still).join(reply.states).take(order) if len(still) else reply.states
    status, logp, logw, cut = begun.status.copy(), begun.logp.copy(), begun.logw.copy(), np.zeros(n, bool)
    status[live], logp[live], logw[live] = reply.status, logp[live] + reply.logp, logw[live] + reply.logw
    cut[live] = False if reply.cut is None else reply.cut
    errors = dict(begun.errors) | {int(live[row]): text for row, text in reply.errors.items()}
    return replace(begun, states=states, status=status, logp=logp, logw=logw, cut=cut, errors=errors)


def _priced(bill: Bill, paid: Paid, started: Paid) -> tuple[Bill, list[list[Cost]]]:
    """The prices that the samples have in common, and each one's payments without what it paid for them all."""
    each = [list(prices) for prices in paid.each]
    if not bill.each:
        others = {prices[0] for prices in each[1:] if prices}
        shared = for_all(each[0][0], others.pop()) if len(others) == 1 and each[0] else FREE
        bill = replace(bill, shared=shared, together=paid.together, start=started.together + sum(started.once, FREE))
        common = list(each[1]) if len(each) > 1 else []
    else:
        common = list(bill.each)
    if each and each[0] and bill.shared != FREE and (not common or each[0][0] == common[0] + bill.shared):
        each[0][0] = less(each[0][0], bill.shared)
    for prices in each:
        common += prices[len(common) :]
    once = (*bill.once, *paid.once[len(bill.once) :])
    return replace(bill, each=tuple(common), once=once), each


def for_all(first: Cost, other: Cost) -> Cost:
    """What the first sample paid more than every other, if it can be for them all: reading, which the others found in a
    cache, and no token of its own."""
    more = less(first, other)
    return more if more.generated == 0 and more.prompt >= 0 else FREE


def scored(reward: Reward, states: Any, status: Any, ledger: Ledger) -> tuple[Floats, list[Cost]] | None:
    """A reward's values of samples and what each paid beyond those before it; None where the budget refused."""
    values, costs = np.full(len(status), np.nan), [FREE] * len(status)
    rows = np.flatnonzero(status != Status.FAILED)  # a failed state has no content to score
    if len(rows):
        limit = Meter(ledger, reward.name)
        reply = Call("score", reward, limit, states.take(rows)).perform()
        assert isinstance(reply, Scored)
        if ledger.refused:
            return None
        values[rows] = reply.values
        for row, prices in zip(rows.tolist(), sorted_out(limit.events, len(rows)).each, strict=True):
            costs[row] = sum(prices, FREE)
    return values, costs


def alone(reward: Reward, states: Any, status: Any, ledger: Ledger) -> Cost | None:
    """What scoring these samples costs by themselves, nothing of them having been read; None where it was refused."""
    rows = np.flatnonzero(status != Status.FAILED)
    if not len(rows):
        return FREE
    reward.forget()
    limit = Meter(ledger, reward.name)
    Call("score", reward, limit, states.take(rows)).perform()
    return None if ledger.refused else limit.used


def dumped(process: Process, states: Any) -> bytes | None:
    """The states as bytes, None where the process cannot write them."""
    try:
        return process.dump(states)
    except Unsupported:
        return None


def labelled(rewards: Mapping[str, Reward] | Sequence[Reward] | Reward) -> dict[str, Reward]:
    """Rewards by label: the caller's, else their names. UsageError for what is no reward, or two of one name."""
    if isinstance(rewards, Reward):
        rewards = [rewards]
    values = list(rewards.values() if isinstance(rewards, Mapping) else rewards)
    if not all(isinstance(reward, Reward) for reward in values):
        raise UsageError(f"record(rewards={rewards!r:.60}): rewards, as in rewards={{'length': anystep.reward(len)}}.")
    labels = list(rewards) if isinstance(rewards, Mapping) else [reward.source().name for reward in values]
    if len(set(labels)) < len(labels) or any("\n" in label for label in labels):
        raise UsageError(
            f"record(rewards=...) has the labels {labels}: give each its own, as in rewards={{'a': one, 'b': other}}."
        )
    return {label: reward.source() for label, reward in zip(labels, values, strict=True)}
