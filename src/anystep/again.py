"""What a refusal left of a call, and the whole reply once that is done: how a closed run is taken up again.

A step that was cut keeps its key and its position, so a reply made whole is the one that was never refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anystep.calls import Call, Reply
from anystep.ledger import Limit
from anystep.process import Scored, Status, Stepped


def remaining(call: Call, reply: Reply) -> Call | None:
    """What is still to do of a call that came back with `reply`; None where nothing was refused."""
    limit = Limit(call.limit.ledger, call.limit.purpose)
    if isinstance(reply, Scored):
        rows = np.flatnonzero(np.isnan(reply.values))
        return replace(call, limit=limit, states=call.states.take(rows)) if len(rows) else None
    rows = np.flatnonzero(_cut(reply))
    until = call.until
    if isinstance(until, int):
        until -= int((reply.status == Status.DONE).sum())
        if until <= 0:
            return None  # the race was over: it is the others that are cut
    if len(rows) == 0:
        return None
    match call.verb:
        case "start" | "fuse":
            return replace(call, limit=limit, keys=call.keys[rows])
        case "expand":
            parents = _parents(reply)[rows]
            keys = call.keys.reshape(len(call.states), call.k)[parents].ravel()
            return replace(call, limit=limit, states=call.states.take(parents), keys=keys)
    return replace(call, limit=limit, states=reply.states.take(rows), keys=call.keys[rows], until=until)


def whole(call: Call, reply: Reply, rest: Call, done: Reply) -> Reply:
    """`reply` with `done`, the reply to its rest, in the places that were left; at the cost of the rest."""
    if isinstance(reply, Scored) and isinstance(done, Scored):
        values = reply.values.copy()
        values[np.isnan(values)] = done.values
        return Scored(values, done.cost)
    assert isinstance(reply, Stepped) and isinstance(done, Stepped)
    cut = _cut(reply)
    left, rows = np.flatnonzero(~cut), np.flatnonzero(cut)
    if call.verb == "expand":
        parents = np.concatenate([_parents(reply)[left], _parents(reply)[rows][_parents(done)]])
        order = np.argsort(parents, kind="stable")
    else:
        parents, order = None, np.argsort(np.concatenate([left, rows]), kind="stable")

    def joined(one: Any, other: Any) -> Any:
        return np.concatenate([one[left], other])[order]

    before = rows if call.verb == "step" else None  # a step that goes on adds to what it had come to
    place = {int(at): i for i, at in enumerate(order.tolist())}
    errors = {place[i]: reply.errors[int(row)] for i, row in enumerate(left.tolist()) if int(row) in reply.errors}
    errors |= {place[len(left) + int(row)]: text for row, text in done.errors.items()}
    return Stepped(
        states=reply.states.take(left).join(done.states).take(order),
        status=joined(reply.status, done.status),
        logp=joined(reply.logp, done.logp + (0 if before is None else reply.logp[before])),
        logw=joined(reply.logw, done.logw + (0 if before is None else reply.logw[before])),
        cost=done.cost,
        cut=joined(cut, _cut(done)),
        errors=errors,
        parent=None if parents is None else parents[order],
    )


def _cut(reply: Stepped) -> NDArray[np.bool_]:
    return np.zeros(len(reply.status), dtype=bool) if reply.cut is None else reply.cut


def _parents(reply: Stepped) -> NDArray[np.int64]:
    assert reply.parent is not None
    return reply.parent
