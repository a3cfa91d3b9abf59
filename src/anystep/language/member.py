"""A step whose rows share the passes of a running session with those of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anystep.language.going import Going, Told
from anystep.ledger import FREE, Cost
from anystep.process import Status, Stepped


@dataclass(eq=False)
class Member(Going):
    """One call of `step` as `Joined` performs it.

    A row waits to be opened (`waiting`), is on its way while what it lacks is computed (`coming`), or is in a session,
    where `place[row]` is its number; a session that has no more room sends it back to wait. Its last token is fed when
    the next one is wanted.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.waiting, self.coming, self.place = self.rows.tolist(), set[int](), dict[int, int]()
        self.owes = np.ones(len(self.rows), bool)  # whether the next token is still to be paid
        self.drawn: list[list[float]] = [[] for _ in self.waiting]  # log-probabilities of this call's tokens

    @property
    def done(self) -> bool:
        return not (self.waiting or self.coming or self.place)

    def owed(self, rows: Sequence[int]) -> list[Cost]:
        """What each row's next token costs beyond what the row lacks, where it has not been paid."""
        drawn = self.process.drawn(1)
        return [drawn if self.owes[row] else FREE for row in rows]

    def pay(self, rows: Sequence[int], each: Cost | Sequence[Cost] = FREE, once: Cost = FREE) -> list[int]:
        """Those of `rows` that could pay; the others are cut, and were they asked again they would go on."""
        granted = self.limit.pay(np.array(rows, np.int64), each, once=once).tolist()
        self.refuse([row for row, yes in zip(rows, granted, strict=True) if not yes])
        return [row for row, yes in zip(rows, granted, strict=True) if yes]

    def refuse(self, rows: Sequence[int]) -> None:
        self.cut[list(rows)] = True
        self.waiting = [row for row in self.waiting if not self.cut[row]]

    def take(
        self, rows: Sequence[int], tokens: Sequence[int], logp: Sequence[float], told: Sequence[Told] | None
    ) -> list[int]:
        """Enters the token that each of `rows` drew; those that need no more."""
        for row, mass in zip(rows, logp, strict=True):
            self.drawn[row].append(mass)
        self.owes[list(rows)] = True
        going = set(self._take(np.array(rows, np.int64), tokens, logp, told).tolist())
        return [row for row in rows if row not in going]

    def beaten(self) -> list[int]:
        """Of a race, the rows in a session that need not go on: enough have finished in as few tokens."""
        bar = self._bar()
        over = [row for row in self.place if len(self.drawn[row]) >= bar]
        self.cut[over] = True
        return over

    def _bar(self) -> float:
        """Of a race that is decided, after how many tokens; rows that still wait may make it fewer."""
        if isinstance(self.until, str):
            return np.inf
        done = sorted(len(self.drawn[row]) for row in np.flatnonzero(self.status == Status.DONE).tolist())
        return np.inf if len(done) < self.until else done[self.until - 1]

    def reply(self) -> Stepped:
        """Of a race, as if all rows had gone on side by side: what ran further than that is taken back."""
        bar = self._bar()
        for row, drawn in enumerate(self.drawn):
            if len(drawn) > bar:
                back = int(bar)
                self.tokens[row] = self.tokens[row][: back - len(drawn)]
                self.logp[row], self.status[row], self.cut[row] = sum(drawn[:back]), Status.LIVE, True
                self.errors.pop(row, None)
        return self._reply()
