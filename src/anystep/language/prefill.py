"""Pay for the positions that some sequences lack in the cache, then compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from anystep.language.engine.cache import Tokens, common
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.plan import Plan
from anystep.ledger import FREE, Cost, Limit
from anystep.process import Floats


def paid(
    engine: Engine,
    sequences: Sequence[Tokens],
    limit: Limit,
    each: Cost | Sequence[Cost] = FREE,
    drawn: Sequence[int] | None = None,
    rows: NDArray[np.int64] | None = None,
    calls: bool = True,
) -> tuple[NDArray[np.int64], Plan | None]:
    """The rows that could pay for what they lack and for `each`, and the plan of that, or None.

    A position that several rows share is paid by the first of them; when that one is refused, by the next. drawn: how
    long each row was when its reader drew a token for it last, 0 where it never did: that token was paid for then, so
    that feeding it is an evaluation and no prompt token; all else that is read is prompt. rows: the rows' places in the
    limit's call, when the sequences are only some of them. calls: whether the plan's passes are paid for too.
    """
    left = np.arange(len(sequences))
    places = left if rows is None else rows
    more = [each] * len(sequences) if isinstance(each, Cost) else each
    owing: dict[int, Cost] | None = None
    while len(left):
        plan = engine.plan([sequences[row] for row in left.tolist()])
        prices, once = engine.price(plan)
        if drawn is not None:
            known = [len(sequences[row]) - p.prompt for row, p in zip(left.tolist(), prices, strict=True)]
            own = [p.prompt > 0 and k < drawn[row] for row, p, k in zip(left.tolist(), prices, known, strict=True)]
            prices = [replace(p, prompt=p.prompt - o) for p, o in zip(prices, own, strict=True)]
        if owing is None:
            due = [price + more[row] for price, row in zip(prices, left.tolist(), strict=True)]
            granted = limit.pay(places[left], due, once=once if calls else FREE)
        else:  # some were refused: what they would have paid for falls to others
            due = [_minus(price, owing[row]) for price, row in zip(prices, left.tolist(), strict=True)]
            granted = limit.pay(places[left], due)
        owing = dict(zip(left.tolist(), prices, strict=True))
        if granted.all():
            return left, plan
        left = left[granted]
    return left, None


def opened(
    engine: Engine,
    sequences: Sequence[Tokens],
    limit: Limit,
    each: Cost = FREE,
    drawn: Sequence[int] | None = None,
    rows: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], Decoding | None]:
    """As `paid`, with the rows' session in place of its plan."""
    left, plan = paid(engine, sequences, limit, each, drawn, rows)
    return left, None if plan is None else engine.open(plan)


def read_each(
    engine: Engine,
    sequences: Sequence[Tokens],
    rows: NDArray[np.int64],
    limit: Limit,
    read: Callable[[Tensor, int], float],
    each: Cost = FREE,
    drawn: Sequence[int] | None = None,
) -> Floats:
    """`read(states, i)` of every sequence i whose reading could be paid for, from its hidden states (time, dim); NaN of
    the others. Portion by portion; rows: the sequences' places in the limit's call; each, drawn: as in `paid`."""
    values = np.full(len(sequences), np.nan)
    with engine.lock:
        for some in portions(engine, sequences):
            own = None if drawn is None else [drawn[i] for i in some.tolist()]
            paid_for, session = opened(engine, [sequences[i] for i in some.tolist()], limit, each, own, rows[some])
            if session is not None:
                with session:
                    for place, i in enumerate(some[paid_for].tolist()):
                        values[i] = read(session.states(place), i)
    return values


def portions(engine: Engine, sequences: Sequence[Tokens]) -> Iterator[NDArray[np.int64]]:
    """Indices of `sequences`, in order, as many together as the engine's `live_bytes` have room for.

    What a sequence shares with the one before it is counted once.
    """
    first, held, size = 0, 0, engine.bytes_per_position
    for i, tokens in enumerate(sequences):
        more = len(tokens) * size
        new = more if i == first else more - common(sequences[i - 1], tokens) * size
        if i > first and held + new > engine.live_bytes:
            yield np.arange(first, i)
            first, held, new = i, 0, more
        held += new
    if first < len(sequences):
        yield np.arange(first, len(sequences))


def _minus(one: Cost, other: Cost) -> Cost:
    """What `one` costs beyond `other`, which was paid for the same row under a plan that let it pay less."""
    return Cost(
        prompt=one.prompt - other.prompt,
        cached=one.cached - other.cached,
        evaluations=one.evaluations - other.evaluations,
        attended=one.attended - other.attended,
        flops=one.flops - other.flops,
    )
