"""How much to draft: as much as has paid, and never so much that a row costs a tenth more than without.

Passes are priced by a straight line: a pass over m positions costs (1 - slope) + slope * m, a pass over one being the
unit. Each row keeps two books by that price: what plain decoding would have taken for the tokens it has, and what it
took. A draft that could lift the second over (1 + slack) times the first is not made, so the bound holds whatever
becomes of the drafts. Within it, nodes are chosen by what they are expected to bring: a tree is grown, likeliest node
first, while tokens per price still rise. Acceptance is learnt for each kind of guess, and slowly forgotten, so that
what was given up is tried again now and then. All of it is counts: no clock is read, and a row's books are its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from anystep.errors import UsageError
from anystep.language.accelerate.drafts import Draft, Want
from anystep.language.accelerate.verify import Verdict

DOUBT = 2.0  # trials that a drafter's own estimate counts for
MEMORY = 0.97  # of what was learnt, a round
HALF = 0.5  # the chance of a guess of which nothing is known
LEVEL = -1  # kind under which it is learnt whether any of a node's children is accepted


@dataclass(frozen=True)
class Thrift:
    """slope: what one more position adds to a pass over one position; 0.06 for SmolLM2 in fp16 on one core, more where
    products are faster than memory. slack: how much more than plain decoding a row may ever cost, as a share. most:
    nodes a draft has at most. crowd: how many rows share a pass; None takes the rows of each pass, and then costs
    (never tokens) depend on company. fixed: None, or how many nodes to draft always, whatever comes of it."""

    slope: float = 0.1
    slack: float = 0.1
    most: int = 32
    crowd: int | None = None
    fixed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.slope <= 1 or not 0 <= self.slack < math.inf:
            raise UsageError(f"Thrift(slope={self.slope!r}, slack={self.slack!r}): 0 to 1, and 0 or more, as in 0.1.")
        if self.most < 0 or (self.crowd is not None and self.crowd < 1) or (self.fixed is not None and self.fixed < 0):
            raise UsageError(f"{self!r}: most and fixed count nodes, crowd counts rows, at least one.")


@dataclass
class Books:
    """One row's account, in passes of the target over one position."""

    thrift: Thrift
    level: float = 0.0  # what one level of drafting takes
    earned: float = 0.0  # what plain decoding would have taken
    spent: float = 0.0
    learnt: dict[int, tuple[float, float]] = field(default_factory=dict)  # kind -> accepted, tried
    drafted: int = 0  # levels, this round

    def unit(self, rows: int) -> float:
        """A row's share of a pass in which `rows` rows feed one position each."""
        return (1 - self.thrift.slope) / (self.thrift.crowd or rows) + self.thrift.slope

    def credit(self, rows: int) -> float:
        """What a draft of the coming round may cost: the round brings one token at least."""
        unit = self.unit(rows)
        return (1 + self.thrift.slack) * (self.earned + unit) - (self.spent + unit)

    def chance(self, kind: int, prior: float = HALF) -> float:
        accepted, tried = self.learnt.get(kind, (0.0, 0.0))
        return (DOUBT * prior + accepted) / (DOUBT + tried)

    def want(self, rows: int, depth: int) -> Want:
        """How much to ask the drafter for, when at most `depth` more guesses are of use."""
        self.drafted = 0
        if self.thrift.fixed is not None:
            return Want(self.thrift.fixed, min(depth, self.thrift.fixed))
        credit, slope = self.credit(rows), self.thrift.slope
        nodes = self.thrift.most if slope == 0 else min(self.thrift.most, int(credit / slope + 1e-9))
        if self.level == 0:
            return Want(nodes, min(depth, nodes))
        price = self._level(rows) + slope  # of one more level with one node
        best, at, value, run = 1 / self.unit(rows), 0, 1.0, 1.0
        for d in range(1, min(depth, nodes, int(credit / price + 1e-9)) + 1):
            run *= self.chance(LEVEL)
            value += run
            if value / (self.unit(rows) + d * price) > best:
                best, at = value / (self.unit(rows) + d * price), d
        return Want(int((credit - at * self._level(rows)) / slope + 1e-9) if slope and at else nodes * (at > 0), at)

    def _level(self, rows: int) -> float:
        return self.level * self.unit(rows)

    def select(self, draft: Draft, rows: int) -> list[int]:
        """The nodes worth showing, in order, of a draft that has kinds."""
        tree = draft.tree
        self.drafted = int(tree.depths.max(initial=-1)) + 1 if self.level else 0
        if self.thrift.fixed is not None:
            return list(range(min(len(draft), self.thrift.fixed)))
        kinds, sure = draft.kinds, [0.0] * len(draft)
        least: dict[tuple[int, bool], float] = {}  # drawn siblings come in their order: none before the one before it
        for node, parent in enumerate(tree.parents):
            each = self.chance(kinds[node], draft.chances[node] if draft.chances else HALF)
            if parent in draft.proposals:
                each = least[parent, True] = min(each, least.get((parent, True), 1.0))
            sure[node] = each * (sure[parent] if parent >= 0 else 1.0)
        credit = self.credit(rows) - self.drafted * self._level(rows)
        value, price, slope = 1.0, self.unit(rows) + self.drafted * self._level(rows), self.thrift.slope
        taken: list[int] = []
        for node in sorted(range(len(draft)), key=lambda node: (-sure[node], node)):
            used = slope * (len(taken) + 1)
            if len(taken) == self.thrift.most or used > credit + 1e-9 or sure[node] * price <= slope * value:
                break
            value, price = value + sure[node], price + slope
            taken.append(node)
        return sorted(taken)

    def told(self, draft: Draft, verdict: Verdict, shown: int, rows: int) -> None:
        """Enters a round: `shown` nodes were fed beside the row's last token."""
        self.spent += self.unit(rows) + shown * self.thrift.slope + self.drafted * self._level(rows)
        self.earned += self.unit(rows) * (len(verdict.nodes) + 1)
        self.learnt = {kind: (a * MEMORY, t * MEMORY) for kind, (a, t) in self.learnt.items()}
        met, kinds = {-1, *verdict.nodes}, draft.kinds
        for node, parent in enumerate(draft.tree.parents):
            if parent in met:
                self._enter(kinds[node], node in met)
        if self.drafted and not len(draft):  # what was drafted was not worth showing
            self._enter(LEVEL, False)
        for parent in met & set(draft.tree.parents):
            self._enter(LEVEL, any(draft.tree.parents[node] == parent for node in verdict.nodes))

    def _enter(self, kind: int, accepted: bool) -> None:
        before, tried = self.learnt.get(kind, (0.0, 0.0))
        self.learnt[kind] = before + accepted, tried + 1
