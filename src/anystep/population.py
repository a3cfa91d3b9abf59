"""A population is states and the books kept on them; a decision turns a weighted population into an answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.keys import Keys
from anystep.process import Floats, Status


@dataclass(frozen=True)
class Population:
    """States and the books kept on them, all (n,): what asks return, and what decisions decide on.

    logp: log-probability of the path so far. logw: accumulated log target over proposal. weights: what the procedure
    makes of them, summing to one. scores: the procedure's last verdict, NaN where there is none. answers: what each
    state says, filled in by the run for the decision; texts: its whole output, for a decision that reads `texts`.
    parent: after a step, the row that each came from in the population that was stepped.
    evidence: log of the normalising constant, where one was estimated; `flagged` says that it left failed states out.
    """

    states: Any
    key: Keys
    id: NDArray[np.int64]
    status: NDArray[np.int8]
    cut: NDArray[np.bool_]
    logp: Floats
    logw: Floats
    weights: Floats
    scores: Floats
    answers: tuple[Hashable, ...] | None = None
    texts: tuple[str, ...] | None = None
    parent: NDArray[np.int64] | None = None
    evidence: float | None = None
    flagged: bool = False

    def __len__(self) -> int:
        return len(self.id)

    @property
    def live(self) -> NDArray[np.bool_]:
        return np.asarray(self.status == Status.LIVE)

    @property
    def done(self) -> NDArray[np.bool_]:
        return np.asarray(self.status == Status.DONE)

    @property
    def failed(self) -> NDArray[np.bool_]:
        return np.asarray(self.status == Status.FAILED)

    def take(self, index: ArrayLike) -> Self:
        """Rows by index or by mask; the weights are renormalised."""
        rows = np.asarray(index)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        books = {f: getattr(self, f)[rows] for f in _BOOKS}
        answers = None if self.answers is None else tuple(self.answers[i] for i in rows)
        texts = None if self.texts is None else tuple(self.texts[i] for i in rows)
        parent = None if self.parent is None else self.parent[rows]
        taken = replace(self, states=self.states.take(rows), answers=answers, texts=texts, parent=parent, **books)
        return taken.weighed(books["weights"])

    def join(self, *others: Population) -> Self:
        """Populations side by side, with equal total weight a member; an evidence, being one's own, is dropped."""
        parts: list[Population] = [self, *(o for o in others if len(o))]
        books: dict[str, Any] = {f: np.concatenate([getattr(p, f) for p in parts]) for f in _BOOKS}
        weights = np.concatenate([p.weights * len(p) for p in parts])
        states, flagged = self.states.join(*(p.states for p in parts[1:])), any(p.flagged for p in parts)
        joined = replace(
            self, states=states, answers=None, texts=None, parent=None, evidence=None, flagged=flagged, **books
        )
        return joined.weighed(weights)

    def put(self, rows: ArrayLike, moved: Population) -> Population:
        """With `moved` in place of these rows (a mask), in its order and with its weights: what has become of some."""
        mask = np.asarray(rows, dtype=bool)
        order = np.argsort(np.concatenate([np.flatnonzero(~mask), np.flatnonzero(mask)]), kind="stable")
        parts = [part for part in (self.take(~mask), moved) if len(part)] or [self]
        return parts[0].join(*parts[1:]).take(order).weighed(self.weights)

    def distinct(self) -> Self:
        """Without the rows whose content an earlier row has, where the states can tell (`States.contents`); else all.

        A failed row is no copy of anything.
        """
        contents = getattr(self.states, "contents", None)
        if contents is None or len(self) < 2:
            return self
        first: dict[Any, int] = {}
        failed = self.failed
        rows = [row for row, said in enumerate(contents()) if failed[row] or first.setdefault(said, row) == row]
        return self if len(rows) == len(self) else self.take(rows)

    def weighed(self, weights: ArrayLike) -> Self:
        """With these weights, normalised; all zero stays all zero."""
        w = np.asarray(weights, dtype=np.float64)
        total = w.sum()
        return replace(self, weights=w / total if total > 0 else w)

    def scored(self, scores: ArrayLike) -> Self:
        return replace(self, scores=np.asarray(scores, dtype=np.float64))

    def reopened(self) -> Self:
        """With its finished states live again, for an editor to step."""
        return replace(self, status=np.where(self.done, np.int8(Status.LIVE), self.status))

    def going_on(self, rows: ArrayLike = True) -> Self:
        """With the live ones of these rows (a mask) going on under the keys they have, as if the next step were the
        rest of their last: stretch by stretch they come to what one step to the end would have come to."""
        return replace(self, cut=self.cut | (self.live & np.asarray(rows, dtype=bool)))


_BOOKS = ("key", "id", "status", "cut", "logp", "logw", "weights", "scores")


@dataclass(frozen=True)
class Verdict:
    """A decision: the chosen row (None where there is none to choose), and its support in [0, 1], not a confidence.

    confidence: the probability that the choice is right, from a decision that was calibrated (`calibrate.winner`).
    submitted: of a decision that may give several answers, their rows from the best on; `row` is the first of them.
    abstained: it declines to choose, and `row` is None though states have finished.
    """

    row: int | None
    support: float | None = None
    confidence: float | None = None
    submitted: tuple[int, ...] = ()
    abstained: bool = False


@dataclass(frozen=True)
class Decision:
    """Turns a weighted population into an answer. `scores` says that it reads rewards, so a run must have them paid;
    `texts` that it reads whole outputs; `mass` that it compares path probabilities, so a run refuses it a process whose
    log-probabilities are none; `plain` is the decision that this one only adds a confidence to, which holds for one
    method."""

    name: str
    function: Callable[[Population], Verdict]
    scores: bool = False
    plain: Decision | None = None
    texts: bool = False
    mass: bool = False

    def __call__(self, population: Population) -> Verdict:
        return self.function(population)

    def __repr__(self) -> str:
        return self.name
