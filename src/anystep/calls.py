"""Which calls answer an ask, and what their replies mean: the books of one run.

`Books.prepare(ask)` gives the calls to perform and a function from their replies to what the procedure gets back. It
assigns keys by lineage, ids and parents, pays each reward once a state, and remembers the finished states.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import AnystepError, Unsupported, UsageError
from anystep.keys import Keys
from anystep.ledger import Ledger, Limit
from anystep.population import Population
from anystep.procedure import All, Ask, Draw, Read, Score, Start, Step
from anystep.process import Floats, Process, Reward, Scored, Stepped, Until

Reply = Stepped | Scored


class ContractError(AnystepError):
    """A process or reward broke its contract: a cost that differs from what it paid, or rows that are missing."""


Verb = Literal["start", "step", "expand", "fuse", "score"]


@dataclass(frozen=True)
class Asked:
    """What a reply answered: its verb, the name of who was asked, and the family's ids of the states it was about."""

    verb: Verb
    by: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Call:
    """One piece of work for a process or a reward, to be performed by a driver, alone or merged with others."""

    verb: Verb
    by: Any
    limit: Limit
    states: Any = None
    keys: Keys = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    until: Until = "step"
    k: int = 1
    of: Hashable = None  # for a score: what its states have in common, for only their own kind can join them
    ids: tuple[int, ...] = ()  # of its states, in the family

    @property
    def asked(self) -> Asked:
        return Asked(self.verb, self.by.name, self.ids)

    def perform(self) -> Reply:
        match self.verb:
            case "start":
                return self._checked(self.by.start(self.keys, self.limit))
            case "step":
                return self._checked(self.by.step(self.states, self.keys, self.limit, self.until))
            case "expand":
                return self._checked(self.by.expand(self.states, self.k, self.keys, self.limit))
            case "fuse":
                return self._checked(self.by.fuse(self.states, self.keys, self.limit))
            case "score":
                return self._checked(self.by(self.states, self.limit))

    def warm(self, reply: Reply) -> None:
        """Have this call's process or reward cache what answering had left there, after a replay of `reply`."""
        if isinstance(reply, Scored):  # what was refused was not computed
            self.by.warm(self.states.take(np.flatnonzero(~np.isnan(reply.values))))
        else:
            self.by.warm(reply.states)

    def _checked(self, reply: Reply) -> Reply:
        if not reply.cost.same(self.limit.used):
            raise ContractError(
                f"{self.by.name} declared {reply.cost} for {self.verb} but paid {self.limit.used}; declare limit.used."
            )
        if not self.fits(reply):
            raise ContractError(
                f"{self.by.name} returned {self._rows(reply)} rows for {self._due()} in {self.verb}; return one a row, "
                "failed ones included, and from expand 1 to k of every parent, in order."
            )
        return reply

    def fits(self, reply: Reply) -> bool:
        """Whether a reply has the rows that this call is due."""
        if isinstance(reply, Scored) != (self.verb == "score"):
            return False
        if isinstance(reply, Scored) or self.verb != "expand":
            return self._rows(reply) == self._due() and getattr(reply, "parent", None) is None
        each = np.bincount(reply.parent, minlength=self._due()) if reply.parent is not None else np.zeros(0)
        ordered = reply.parent is not None and bool((np.diff(reply.parent) >= 0).all())
        return ordered and len(each) == self._due() and bool((each >= 1).all() and (each <= self.k).all())

    def _rows(self, reply: Reply) -> int:
        return len(reply.values) if isinstance(reply, Scored) else len(reply.status)

    def _due(self) -> int:
        """How many rows it has, or parents in an expansion."""
        return len(self.keys) if self.verb in ("start", "fuse") else len(self.states)


@dataclass
class Family:
    """Every state of a run: its parents (several after a fusion), who made it, its status, and its verdicts."""

    parents: list[tuple[int, ...]] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    scores: dict[tuple[Reward, int], float] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.parents)

    def leaves(self) -> list[int]:
        """The states that no other state was made from."""
        inner = {parent for parents in self.parents for parent in parents}
        return [node for node in range(len(self)) if node not in inner]

    def ancestors(self, node: int) -> list[int]:
        """The line of first parents from a root to `node`."""
        line = [node]
        while self.parents[line[-1]]:
            line.append(self.parents[line[-1]][0])
        return line[::-1]


Prepared = tuple[list[Call], Callable[[Sequence[Reply]], Any]]


class Books:
    """What a run knows: its family, its finished states, and how many children and starts each key has had."""

    def __init__(self, process: Process, ledger: Ledger, seed: int, reward: Reward | None) -> None:
        self.process, self.ledger, self.seed = process, ledger, seed
        self.family = Family()
        self.finished: dict[int, Population] = {}
        self.latest: Population | None = None  # the last population stepped, for an answer when none has finished
        self.reward = reward  # the last one asked for, else the method's first
        self.started = 0
        self._siblings: dict[tuple[int, str], int] = {}
        self._starts: dict[tuple[int, ...], int] = {}
        self._draws: dict[tuple[int, ...], int] = {}

    def prepare(self, ask: Ask) -> Prepared:
        match ask:
            case All(asks):
                parts = [self.prepare(a) for a in asks]

                def absorb(replies: Sequence[Reply]) -> list[Any]:
                    supply = iter(replies)
                    return [take([next(supply) for _ in calls]) for calls, take in parts]

                return [c for calls, _ in parts for c in calls], absorb
            case Draw(n, path):
                first = self._draws.get(path, 0)
                self._draws[path] = first + n
                drawn = lineage.uniforms(lineage.roots(self.seed, (*path, 1), np.arange(first, first + n)))
                return [], lambda _: drawn
            case Read(population):
                states = population.states
                said = replace(population, answers=self.process.answers(states), texts=self.process.texts(states))
                return [], lambda _: said
            case Start():
                return self._start(ask)
            case Step():
                return self._step(ask)
            case Score():
                return self._score(ask)
        raise UsageError(
            f"A procedure yielded {ask!r}; yield Start, Step, Score, Read, Draw or All, or use "
            "`yield from step(population)`."
        )

    def _start(self, ask: Start) -> Prepared:
        by, first = ask.by or self.process, self._starts.get(ask.path, 0)
        n = 1 if ask.distinct and by.expands else ask.n
        self._starts[ask.path] = first + n
        keys = lineage.roots(self.seed, (*ask.path, 0), np.arange(first, first + n))
        mothers: tuple[int, ...] = () if ask.parents is None else tuple(ask.parents.id.tolist())
        if ask.parents is None:
            self.started += n
            call = Call("start", by, Limit(self.ledger, by.name), keys=keys)
        else:
            call = Call("fuse", by, Limit(self.ledger, by.name), ask.parents.states, keys, ids=mothers)
        zeros = np.zeros(n)
        return [call], lambda replies: self._enter(replies[0], keys, [mothers for _ in range(n)], by.name, zeros, zeros)

    def _step(self, ask: Step) -> Prepared:
        old, by = ask.population, ask.by or self.process
        live = np.flatnonzero(old.live)
        until = ask.until if isinstance(ask.until, str) else int(ask.until) - int(old.done.sum())
        if len(live) == 0 or (isinstance(until, int) and until <= 0):
            return [], lambda _: replace(old, parent=np.arange(len(old)))
        self._permit(ask, by)
        expand = by.expands and ask.branch > 1 and not ask.drawn
        single = old.cut[live]  # a cut step goes on as the one child it was
        if ask.branch > 1:
            single = single | by.forced(old.states.take(live))
        copies = np.where(single & (not expand), 1, ask.branch)
        moving = np.repeat(live, copies)
        keys = self._keys(old, moving, by, old.cut & (not expand))
        rows = live if expand else moving
        call = Call(
            "expand" if expand else "step",
            by,
            Limit(self.ledger, by.name),
            old.states.take(rows),
            keys,
            until,
            ask.branch,
            ids=tuple(old.id[rows].tolist()),
        )

        def absorb(replies: Sequence[Reply]) -> Population:
            reply = replies[0]
            assert isinstance(reply, Stepped)
            if reply.parent is None:
                mine, own = moving, keys
            else:
                ordinal = np.arange(len(reply.parent)) - np.searchsorted(reply.parent, reply.parent)
                mine, own = live[reply.parent], keys[reply.parent * ask.branch + ordinal]
            parents: list[tuple[int, ...]] = [(i,) for i in old.id[mine].tolist()]
            new = self._enter(reply, own, parents, by.name, old.logp[mine], old.logw[mine], ask.draft)
            still = np.flatnonzero(~old.live)
            order = np.argsort(np.concatenate([still, mine]), kind="stable")
            weights = np.concatenate(
                [old.weights[still], old.weights[mine] / np.bincount(mine, minlength=len(old))[mine]]
            )
            joined = old.take(still).join(new) if len(still) else new
            taken = joined.weighed(weights).take(order)
            self.latest = replace(taken, parent=np.concatenate([still, mine])[order])
            return self.latest

        return [call], absorb

    def _permit(self, ask: Step, by: Process) -> None:
        if ask.branch > 1 and not by.branches:
            raise Unsupported(
                f"{by.name} is deterministic: {ask.branch} children of a state would be one; use branch=1, more starts."
            )
        if ask.until != "step" and by.horizon is None:
            raise Unsupported(
                f"{by.name} is endless: until={ask.until!r} never comes; bound it with search.truncate({by.name}, n)."
            )

    def _keys(self, old: Population, moving: NDArray[np.int64], by: Process, cut: NDArray[np.bool_]) -> Keys:
        """One key a child; a state whose step was cut goes on with its own."""
        ordinals = np.zeros(len(moving), dtype=np.uint64)
        for j, row in enumerate(moving.tolist()):
            if not cut[row]:
                slot = (int(old.id[row]), by.name)
                ordinals[j] = self._siblings.get(slot, 0)
                self._siblings[slot] = int(ordinals[j]) + 1
        fresh = lineage.children(old.key[moving], lineage.named(by.name), ordinals)
        return np.where(cut[moving], old.key[moving], fresh)

    def _score(self, ask: Score) -> Prepared:
        by, scores = ask.by.source(), self.family.scores
        self.reward = ask.by
        unscored = [(row, i) for row, i in enumerate(ask.population.id.tolist()) if (by, i) not in scores]
        failed = ask.population.failed  # a failed state has no content to score
        first = {i: row for row, i in reversed(unscored) if not failed[row]}
        ids, rows = list(first)[::-1], list(first.values())[::-1]
        scores.update({(by, i): np.nan for i in ids})  # reserved, so that asks performed together pay once
        states, limit = ask.population.states, Limit(self.ledger, by.name)
        of = self.process.merges()
        calls = [Call("score", by, limit, states.take(np.array(rows)), of=of, ids=tuple(ids))] if ids else []

        def absorb(replies: Sequence[Reply]) -> Floats:
            for reply in replies:
                assert isinstance(reply, Scored)
                scores.update({(by, i): float(v) for i, v in zip(ids, reply.values, strict=True)})
                if self.ledger.refused:  # unpaid is not unscorable: it may be asked again
                    for i in ids:
                        if np.isnan(scores[by, i]):
                            del scores[by, i]
            return self.verdicts(ask.population, ask.by)

        return calls, absorb

    def verdicts(self, population: Population, by: Reward) -> Floats:
        """What is known of a reward's values, NaN where nothing is."""
        source = by.source()
        return by.read(np.array([self.family.scores.get((source, i), np.nan) for i in population.id.tolist()]))

    def _enter(
        self,
        reply: Reply,
        keys: Keys,
        parents: list[tuple[int, ...]],
        by: str,
        logp: Floats,
        logw: Floats,
        draft: bool = False,
    ) -> Population:
        """Write new states into the family and remember the finished ones."""
        assert isinstance(reply, Stepped)
        n, first = len(reply.status), len(self.family)
        self.family.parents += parents
        self.family.by += [by] * n
        self.family.status += reply.status.tolist()
        self.family.errors.update({first + row: text for row, text in reply.errors.items()})
        population = Population(
            states=reply.states,
            key=keys,
            id=np.arange(first, first + n),
            status=np.asarray(reply.status, dtype=np.int8),
            cut=np.zeros(n, dtype=bool) if reply.cut is None else reply.cut,
            logp=logp + reply.logp,
            logw=logw + reply.logw,
            weights=np.full(n, 1 / max(n, 1)),
            scores=np.full(n, np.nan),
        )
        self.family.logp += population.logp.tolist()
        for row in np.flatnonzero(population.done & (not draft)).tolist():
            self.finished[first + row] = population.take([row])
        self.latest = population if self.latest is None else self.latest
        return population
