"""The effect of doing something, from the observed joint alone, where the diagram allows it.

Variables that hidden causes join (a c-component) form one comb: a process that takes in what its variables depend on
and gives them out one after another, with gaps in between where the rest of the diagram plugs in. The observed joint is
the combs plugged together, and with full support they come back from it uniquely (comb disintegration):

    comb(v_1, ..., v_k | the rest) = product of P(v_i | everything before v_i)

Surgery takes the comb of what is done apart. Whether the piece that is needed can be had from its comb is decided on
the diagram, never on the data, from which any joint disintegrates. The decision is complete: it is the identification
algorithm of Tian and Pearl (2002) and Shpitser and Pearl (2006), whose smallest case is the front door.

Source: Jacobs, Kissinger and Zanasi, Causal inference by string diagram surgery, FoSSaCS 2019 (arXiv 1811.08338).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from anystep.bayes.causal.channels import Array, conditional
from anystep.bayes.causal.diagrams import StringDiagram, causal_graph
from anystep.bayes.causal.graphs import Pairs, Parents, ancestors, components, in_order, projected, separated, within
from anystep.errors import UsageError


class NotIdentifiable(UsageError):
    """No comb of the diagram gives the effect: two models with the same observed joint have different ones.

    joined: the variables that hidden causes join; `piece`: the part of them that cannot be had alone.
    """

    def __init__(self, query: str, joined: Sequence[str], piece: Sequence[str]) -> None:
        self.joined, self.piece = tuple(joined), tuple(piece)
        super().__init__(
            f"{query} is not identifiable: hidden causes join {{{', '.join(joined)}}} into one comb, all upstream of "
            f"{{{', '.join(piece)}}}, which cannot be taken out; observe a hidden cause or a variable in between."
        )


def comb_disintegration(
    joint: Array, names: Sequence[str], parts: Sequence[Sequence[str]], shared: Pairs = frozenset()
) -> list[Array]:
    """The combs of a joint, one for each part: arrays that broadcast against it and multiply to it.

    joint: one axis a variable, an order in which causes come first, all entries positive. parts: a partition of names.
    shared: pairs with a hidden common cause; raises UsageError if one is torn apart, for then the combs mean nothing in
    the diagram, though any joint has them. Each comb sums to one over its variables taken from the last to the first.
    """
    if sorted(v for part in parts for v in part) != sorted(names) or np.ndim(joint) != len(names):
        raise UsageError("comb_disintegration(joint, ('A', 'B', 'C'), [('A', 'C'), ('B',)]): an axis and a part each.")
    torn = [sorted(pair) for pair in shared if not any(pair <= set(part) for part in parts)]
    if torn:
        raise UsageError(f"{torn[0]} share a hidden cause: put them into one part, or the combs are not the diagram's.")
    names = tuple(names)
    whole = Observed(names, names)
    return [Comb(whole, tuple(v for v in names if v in part)).table(np.asarray(joint)) for part in parts]


@dataclass(frozen=True)
class Observed:
    """The joint of some of the observed variables; `axes` are all of them."""

    axes: tuple[str, ...]
    over: tuple[str, ...]  # causes first

    def table(self, joint: Array) -> Array:
        return _summed(joint, self.axes, set(self.axes) - set(self.over))

    def ratio(self, v: str, before: Sequence[str]) -> str:
        return f"P({v}|{','.join(before)})" if before else f"P({v})"

    def __str__(self) -> str:
        return f"P({','.join(self.over)})"


@dataclass(frozen=True)
class Comb:
    """The comb of `part`, some of the variables of a larger one."""

    whole: Observed | Summed
    part: tuple[str, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return self.whole.axes

    @property
    def over(self) -> tuple[str, ...]:
        return self.part

    def table(self, joint: Array) -> Array:
        whole = self.whole.table(joint)
        return np.asarray(prod(self._factor(whole, v) for v in self.part))

    def _factor(self, whole: Array, v: str) -> Array:
        """P(v | what is before it), in the larger comb."""
        order = self.whole.over
        upto = _summed(whole, self.axes, order[order.index(v) + 1 :])
        below = _summed(upto, self.axes, [v])
        if not np.all(below > 0):
            raise UsageError(f"What is before {v} has mass 0 somewhere: the joint must be positive everywhere.")
        return np.asarray(upto / below)

    def __str__(self) -> str:
        order = self.whole.over
        return " ".join(self.whole.ratio(v, order[: order.index(v)]) for v in self.part)


@dataclass(frozen=True)
class Summed:
    """A comb with some of its last variables discarded: what is left is a comb again."""

    whole: Comb
    over: tuple[str, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        return self.whole.axes

    def table(self, joint: Array) -> Array:
        return _summed(self.whole.table(joint), self.axes, set(self.whole.over) - set(self.over))

    def ratio(self, v: str, before: Sequence[str]) -> str:
        later = self.whole.over
        kept = {*before, v}
        upper, lower = ([w for w in later if w not in some] for some in (kept, set(before)))
        return f"{_sum(upper)}{self.whole}]/{_sum(lower)}{self.whole}]"

    def __str__(self) -> str:
        gone = [v for v in self.whole.over if v not in self.over]
        return f"{_sum(gone)}{self.whole}]" if gone else str(self.whole)


@dataclass(frozen=True)
class Identified:
    """P(of | given, do(do)) as a function of the observed joint: call it with one, print it to read the formula."""

    observed: tuple[str, ...]
    do: tuple[str, ...]
    given: tuple[str, ...]
    of: tuple[str, ...]
    over: Observed
    pieces: tuple[Comb | Summed, ...]
    acting: tuple[str, ...]  # what is acted on: `do`, and conditions that might as well be done

    def __call__(self, joint: Any) -> Array:
        """joint: a positive table with one axis for each of `observed`, in that order. Returns (*do, *given, *of).

        Equal to the effect in any model of the diagram that has this joint, up to rounding. Raises UsageError for
        another shape and for conditions of mass 0.
        """
        joint = np.asarray(joint)
        if joint.ndim != len(self.observed):
            raise UsageError(f"The joint has {joint.ndim} axes; it needs one each for {', '.join(self.observed)}.")
        effect = prod((piece.table(joint) for piece in self.pieces), start=np.ones((1,) * joint.ndim, dtype=int))
        beside = [v for v in self.over.over if v not in {*self.inner, *self.acting}]
        if beside:  # the effect is the same for all values of these; an average is less noisy than a pick
            weight = _summed(self.over.table(joint), self.observed, set(self.observed) - set(beside))
            effect = _summed(effect * weight, self.observed, beside)
        wanted = [*self.do, *self.given, *self.of]
        effect = _summed(effect, self.observed, set(self.observed) - set(wanted))
        sizes = [n if v in wanted else 1 for v, n in zip(self.observed, joint.shape, strict=True)]
        at = [self.observed.index(v) for v in [*wanted, *(v for v in self.observed if v not in wanted)]]
        table = np.broadcast_to(effect, sizes).transpose(at).reshape([joint.shape[k] for k in at[: len(wanted)]])
        return conditional(table, len(self.do) + len(self.given))

    @cached_property
    def inner(self) -> tuple[str, ...]:
        """The variables that the pieces are about."""
        return tuple(v for piece in self.pieces for v in piece.over)

    def __str__(self) -> str:
        gone = [v for v in self.over.over if v in self.inner and v not in {*self.of, *self.given}]
        body = " ".join(str(piece) for piece in self.pieces)
        scale = " (over its sum)" if set(self.given) & set(self.inner) else ""
        return (
            f"{_query(self.do, self.of, self.given)} = {_sum(gone)}{body}]{scale}"
            if gone
            else (f"{_query(self.do, self.of, self.given)} = {body}{scale}")
        )


def identify(
    diagram: StringDiagram, do: str | Sequence[str], of: str | Sequence[str], given: str | Sequence[str] = ()
) -> Identified:
    """P(of | given, do(do)) from the observed joint, if the diagram determines it.

    diagram: a causal model (`StringDiagram.of_graph`); the variables that go out are observed. Raises NotIdentifiable,
    with the comb that is in the way, exactly if two positive models of the diagram agree on the joint and differ in the
    effect; UsageError for a diagram that is no causal model and for names that do not go out or stand twice.
    """
    do, of, given = (tuple([names] if isinstance(names, str) else names) for names in (do, of, given))
    parents = causal_graph(diagram)
    observed = diagram.cod
    named = [*do, *of, *given]
    if not of or len(set(named)) < len(named) or not set(named) <= set(observed):
        raise UsageError(f"identify(diagram, do='X', of='Y'): different observed names, of {', '.join(observed)}.")
    acting, seen = _acted(parents, set(do), set(of), set(given))
    wanted = set(of) | seen
    order = [v for v in in_order(parents) if v in observed]
    arrows, shared = projected(parents, order)
    above = ancestors(arrows, wanted)
    arrows, order = within(arrows, above), [v for v in order if v in above]
    joint = Observed(observed, tuple(order))
    inner = ancestors(within(arrows, set(order) - acting), wanted)
    combs = components(order, shared)
    pieces = []
    for piece in components([v for v in order if v in inner], shared):
        (whole,) = [c for c in combs if set(piece) <= set(c)]
        pieces.append(_taken(arrows, shared, _kept(order, piece), Comb(joint, _kept(order, whole)), (do, of, given)))
    return Identified(observed, do, given, of, joint, tuple(pieces), tuple(acting))


def _taken(arrows: Parents, shared: Pairs, piece: tuple[str, ...], comb: Comb, query: Any) -> Comb | Summed:
    """The comb of `piece` out of a larger one, by discarding what is not upstream of it and disintegrating the rest."""
    above = ancestors(within(arrows, comb.over), piece)
    kept = _kept(comb.over, above)
    if len(kept) == len(piece):
        return comb if kept == comb.over else Summed(comb, kept)
    if kept == comb.over:
        raise NotIdentifiable(_query(*query), kept, piece)
    (joined,) = [c for c in components(kept, shared) if set(piece) <= set(c)]
    return _taken(arrows, shared, piece, Comb(Summed(comb, kept), _kept(kept, joined)), query)


def _acted(parents: Parents, do: set[str], of: set[str], given: set[str]) -> tuple[set[str], set[str]]:
    """What is done and seen, once every condition that might as well have been done is done (do-calculus, rule 2)."""
    acting, seen, again = set(do), set(given), True
    while again:
        again = False
        for z in sorted(seen):
            surgery = {v: () if v in acting else tuple(p for p in some if p != z) for v, some in parents.items()}
            if separated(surgery, of, {z}, acting | (seen - {z})):
                acting, seen, again = acting | {z}, seen - {z}, True
    return acting, seen


def _kept(order: Sequence[str], some: Any) -> tuple[str, ...]:
    return tuple(v for v in order if v in some)


def _summed(table: Array, axes: Sequence[str], gone: Any) -> Array:
    """The table summed over variables, whose axes stay, of length one."""
    return np.asarray(table.sum(axis=tuple(axes.index(v) for v in gone), keepdims=True))


def _sum(gone: Sequence[str]) -> str:
    return f"sum_{{{','.join(gone)}}} [" if gone else "["


def _query(do: Sequence[str], of: Sequence[str], given: Sequence[str]) -> str:
    acts = [f"do({','.join(do)})"] if do else []
    after = ", ".join([*given, *acts])
    return f"P({','.join(of)}|{after})" if after else f"P({','.join(of)})"
