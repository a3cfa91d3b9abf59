"""One run of one method on one item: what it answered, how it was scored, and what it truly cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from anystep.answer import AllFailed
from anystep.ledger import Cost
from anystep.process import Status
from anystep.run import Run
from anystep.tasks.task import Task

UNRUN = ("not run", "error")  # what such a trial stopped because of says nothing of its method
LONGEST = 4_000  # characters of an output that are kept


@dataclass(frozen=True)
class Trial:
    """What one run came to.

    score: the task's, in [0, 1]; NaN where the item could not be scored or could not be run. A run that ends without
    an answer hands its scorer an empty text, so leaving hard items unanswered wins nothing; `failed` says so too, and
    `error` why. stopped_because: the run's own reason, or "failed" (all states did), "error" (it could not go on), "not
    run" (it could not begin). cost: all that was paid, rewards included. states: started, finished and failed ones.
    text: the chosen output, its middle left out where it is long.
    """

    label: str
    n: int
    method: str
    item: str
    seed: int
    score: float
    cost: Cost
    stopped_because: str
    answer: str | None = None
    failed: bool = False
    error: str = ""
    started: int = 0
    finished: int = 0
    failed_states: int = 0
    text: str | None = None

    @property
    def key(self) -> tuple[str, int, str, int]:
        """What tells it from all others of a comparison: label, n, item and seed."""
        return self.label, self.n, self.item, self.seed

    def record(self) -> dict[str, Any]:
        """As strict JSON can hold it; an unscored item's score is null."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**found, "score": None if math.isnan(self.score) else self.score, "cost": asdict(self.cost)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Trial:
        """The trial that `record` wrote."""
        score = math.nan if record["score"] is None else float(record["score"])
        return cls(**{**record, "score": score, "cost": Cost(**record["cost"])})


def trial_of(run: Run, label: str, n: int, task: Task, seed: int) -> Trial:
    """What a run came to, once it has ended."""
    if run.error is not None and not isinstance(run.error, AllFailed):
        return broken(label, n, task, seed, str(run.error), run.spent)
    answer, family = run.answer, run.books.family
    text = None if answer is None else answer.text
    score = task.score("" if text is None else text)
    unscored = getattr(score, "why", "")  # a NaN that says why
    return Trial(
        label=label,
        n=n,
        method=repr(run.method),
        item=task.id,
        seed=seed,
        score=float(score),
        cost=rounded(run.spent),
        stopped_because="failed" if answer is None else answer.stopped_because,
        answer=None if answer is None or answer.value is None else encodable(str(answer.value)),
        failed=text is None and not (answer is not None and answer.abstained),
        error=encodable(_why(run) or unscored),
        started=run.books.started,
        finished=run.finished,
        failed_states=sum(status == Status.FAILED for status in family.status),
        text=None if text is None else encodable(shortened(text)),
    )


def _why(run: Run) -> str:
    return next(iter(run.books.family.errors.values()), "") if run.error is None else str(run.error)


def not_run(label: str, n: int, task: Task, seed: int, error: str) -> Trial:
    """The trial of an item that could not be run at all, such as a prompt longer than the context."""
    return Trial(label, n, "", task.id, seed, math.nan, Cost(), "not run", failed=True, error=encodable(error))


def broken(label: str, n: int, task: Task, seed: int, error: str, cost: Cost) -> Trial:
    """The trial of a run that an error ended: it says nothing of its method, so it has no score."""
    return Trial(label, n, "", task.id, seed, math.nan, rounded(cost), "error", failed=True, error=encodable(error))


def rounded(cost: Cost) -> Cost:
    """A cost whose sums of floats do not tell in what order they were added, as replies come in any."""
    return replace(cost, money=float(f"{cost.money:.12g}"), flops=float(f"{cost.flops:.12g}"))


def shortened(text: str) -> str:
    """A text of at most LONGEST characters, its middle left out."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST // 2]}\n[... {len(text) - LONGEST:,} characters ...]\n{text[-LONGEST // 2 :]}"


def encodable(text: str) -> str:
    """The text without lone surrogates, which no file can hold."""
    return text.encode(errors="replace").decode()
