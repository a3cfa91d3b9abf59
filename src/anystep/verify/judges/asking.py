"""How is a model asked? The same questions to a local engine and to a server: shares of labels, and sampled replies."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import FREE, Cost, JointLimit, Limit, Mask, Rows
from anystep.process import Floats
from anystep.verify.judges.given import Ask
from anystep.verify.judges.scale import Scale


@dataclass(frozen=True)
class Weighed:
    """The probability of each label as the reply's first token, (n, labels), NaN where it was not read. errors: row to
    why it could not be, in one line; a row that was refused by the budget has none."""

    mass: Floats
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Replies:
    """k sampled replies a row; None for a row of which one was refused, or failed (then `errors` says why)."""

    texts: tuple[tuple[str, ...] | None, ...]
    errors: Mapping[int, str] = field(default_factory=dict)


class Asked(Protocol):
    """A model that can be asked. `rows` are the asks' places in the limit's call, one each."""

    name: str
    own: Any  # the engine or the endpoint
    remote: bool
    chat: bool | None

    def weigh(self, asks: Sequence[Ask], begun: str, scale: Scale, limit: Limit, rows: Rows) -> Weighed:
        """Reads the label that the reply would begin with, without sampling. begun: what a model without a chat
        template is given of the reply, as `Verdict:`."""
        ...

    def say(
        self, asks: Sequence[Ask], begun: str, keys: Keys, temperature: float, most: int, limit: Limit, rows: Rows
    ) -> Replies:
        """Samples replies of up to `most` tokens, keys (n, k)."""
        ...

    def forget(self) -> None: ...


def quiet(limit: Limit, rows: Rows) -> Limit:
    """`limit` for these rows, whose watchers do not see what is written: a judge's words are no state's output."""
    part = limit.of(rows)
    return _QuietJoint(part) if isinstance(part, JointLimit) else _Quiet(part)


class _Quiet(Limit):
    def __init__(self, whole: Limit) -> None:
        super().__init__(whole.ledger, whole.purpose)
        self.whole = whole

    @property
    def used(self) -> Cost:
        return self.whole.used

    def pay(self, rows: Rows | Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> Mask:
        return self.whole.pay(rows, each, once)

    def charge(self, cost: Cost, row: int | None = None) -> None:
        self.whole.charge(cost, row)

    def of(self, rows: Rows | Sequence[int]) -> Limit:
        return _Quiet(self.whole.of(rows))

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        pass


class _QuietJoint(JointLimit):
    def __init__(self, whole: JointLimit) -> None:
        super().__init__(whole.limits, [0] * len(whole.limits))
        self.owner = whole.owner

    def of(self, rows: Rows | Sequence[int]) -> JointLimit:
        return _QuietJoint(super().of(rows))

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        pass


def asked(model: Any, name: str | None = None, chat: bool | None = None, role: str = "judge") -> Asked:
    """The model as something to ask: a name or path that `language.load` takes, a server's URL, an engine, an endpoint.

    name: what its costs are booked under, by default "<model>.<role>". chat: whether it is asked through a chat
    template, by default where it has one. Raises UsageError for what is none of these.
    """
    from anystep.language.endpoint import Endpoint

    model = _loaded(model) if isinstance(model, str) else model
    if isinstance(model, Endpoint):
        from anystep.verify.judges.remote import Remote

        return Remote(model, name or f"{model.name}.{role}", chat)
    from anystep.language.engine.engine import Engine
    from anystep.verify.judges.local import Local

    if not isinstance(model, Engine):
        raise UsageError(
            f"a judge is a model, not {model!r:.40}: verify.judge('smollm2-135m'), an engine of language.load, or a "
            "server's URL."
        )
    return Local(model, name or f"{model.name}.{role}", chat)


@functools.cache
def _loaded(name: str) -> Any:
    """The model of this name, once: judges of one name are equal, and share what they have read."""
    if name.startswith(("http://", "https://")):
        from anystep.language.endpoint import Endpoint

        return Endpoint(name)
    from anystep.language import load

    return load(name)
