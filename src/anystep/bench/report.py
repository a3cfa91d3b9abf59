"""What a comparison found: every trial, a point for each method and n, and what each method buys at equal cost."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from anystep.bench.trial import Trial, encodable, shortened
from anystep.calibrate.interval import UNKNOWN, Interval, level, paired_difference
from anystep.errors import UsageError
from anystep.tasks.task import Task

SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """One method at one n, over all items and seeds. Costs are means a run, with all that was paid.

    gain: accuracy minus greedy's on the items both have a score of, None for greedy itself. unscored: runs whose score
    is NaN; they are left out of accuracy. failed: runs without an answer. stopped: how many runs ended for what reason.
    """

    label: str
    n: int
    method: str
    greedy: bool
    oracle: bool
    items: int
    runs: int
    accuracy: Interval
    gain: Interval | None
    tokens: float
    generated: float
    calls: float
    evaluations: float
    unscored: int
    failed: int
    failed_states: int
    estimated: bool
    stopped: dict[str, int]
    money: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Item:
    """One problem as a report shows it: what was asked and what was right, each cut where it is long."""

    id: str
    question: str
    reference: str = ""

    @classmethod
    def of(cls, task: Task) -> Item:
        asked = task.meta.get("question", task.prompt)
        if not isinstance(asked, str):
            asked = json.dumps(asked, ensure_ascii=False)
        return cls(task.id, encodable(shortened(asked)), encodable(shortened(task.reference)))


@dataclass(frozen=True)
class AtBudget:
    """What each method buys for `budget` a problem on average: its largest affordable point, or None."""

    budget: float
    best: dict[str, Point | None]


@dataclass(frozen=True)
class Report:
    """A comparison's trials and what they were run on. `points` and `equal_cost(points)` are computed from them.

    complete: False where it was cancelled before all had ended. items: the problems. notes: what was wrong with the
    data, by line. command: what brings it about again.
    """

    trials: tuple[Trial, ...]
    labels: tuple[str, ...]
    greedy: str = "greedy"
    oracles: tuple[str, ...] = ()
    title: str = ""
    model: str = ""
    task: str = ""
    seeds: tuple[int, ...] = (0,)
    budget: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    complete: bool = True
    date: str = ""
    hardware: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    items: tuple[Item, ...] = ()
    notes: tuple[str, ...] = ()
    command: str = ""

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """One a (method, n) that has a trial, in the order of the labels."""
        base = self._group(self.greedy, 1)
        groups = [(label, n) for label in self.labels for n in sorted({t.n for t in self.trials if t.label == label})]
        return tuple(self._point(label, n, base) for label, n in groups)

    def difference(self, ours: Point, theirs: Point) -> Interval:
        """Accuracy of one point minus another's on the items both have a score of, with its paired interval."""
        a, b = (_by_item(self._group(p.label, p.n)) for p in (ours, theirs))
        shared = [item for item in a if item in b]
        return paired_difference([a[i] for i in shared], [b[i] for i in shared]) if shared else UNKNOWN

    def _group(self, label: str, n: int) -> list[Trial]:
        return [t for t in self.trials if t.label == label and t.n == n]

    def _point(self, label: str, n: int, base: list[Trial]) -> Point:
        trials = self._group(label, n)
        ours, theirs = _by_item(trials), _by_item(base)
        shared = [item for item in ours if item in theirs]
        gain = paired_difference([ours[i] for i in shared], [theirs[i] for i in shared]) if shared else UNKNOWN
        ran = [t for t in trials if t.stopped_because != "not run"]
        return Point(
            label=label,
            n=n,
            method=next((t.method for t in ran), ""),
            greedy=label == self.greedy,
            oracle=label in self.oracles,
            items=len(ours),
            runs=len(trials),
            accuracy=level(list(ours.values())),
            gain=None if label == self.greedy else gain,
            tokens=_mean([t.cost.tokens for t in ran]),
            generated=_mean([t.cost.generated for t in ran]),
            calls=_mean([t.cost.calls for t in ran]),
            evaluations=_mean([t.cost.evaluations for t in ran]),
            unscored=sum(math.isnan(t.score) for t in trials),
            failed=sum(t.failed for t in trials),
            failed_states=sum(t.failed_states for t in trials),
            estimated=any(t.cost.estimated for t in ran),
            stopped=dict(sorted(Counter(t.stopped_because for t in trials).items())),
            money=_mean([t.cost.money for t in ran]),
            seconds=_mean([t.cost.seconds for t in ran]),
        )

    def record(self) -> dict[str, Any]:
        """As strict JSON can hold it: what is not a number is null."""
        meta = {f: getattr(self, f) for f in _META}
        points = [_plain(asdict(p)) for p in self.points]
        table = [
            {"budget": row.budget, "n": {k: p.n if p else None for k, p in row.best.items()}}
            for row in equal_cost(self.points)
        ]
        trials = [t.record() for t in self.trials]
        about = {"command": self.command, "notes": list(self.notes), "items": [asdict(item) for item in self.items]}
        return {"schema": SCHEMA, **meta, **about, "points": points, "equal_cost": table, "trials": trials}

    def to_json(self) -> str:
        return json.dumps(self.record(), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote; its points are computed anew. UsageError for anything else."""
        try:
            record = json.loads(text)
            trials = tuple(Trial.from_record(t) for t in record["trials"])
            meta: dict[str, Any] = {f: record[f] for f in _META}
            meta.update({f: tuple(record[f]) for f in ("labels", "oracles", "seeds")})
            meta["items"] = tuple(Item(**item) for item in record.get("items", ()))
            meta["notes"], meta["command"] = tuple(record.get("notes", ())), record.get("command", "")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"this is no report of a comparison ({error}); give what compare wrote.") from None
        if record.get("schema") != SCHEMA:
            raise UsageError(f"this report has schema {record.get('schema')!r}; this version reads schema {SCHEMA}.")
        return cls(trials=trials, **meta)


_META = (
    "title",
    "model",
    "task",
    "labels",
    "greedy",
    "oracles",
    "seeds",
    "budget",
    "seconds",
    "complete",
    "date",
    "hardware",
    "versions",
)


def equal_cost(
    points: Sequence[Point], budgets: Sequence[float] | None = None, by: str = "tokens"
) -> tuple[AtBudget, ...]:
    """For each budget, every method's largest n whose mean true cost fits into it.

    budgets: the mean cost of a problem; by default, for every n, what the dearest method costs there, rounded up to two
    digits, so that all can afford that n. by: the figure of a point that is the cost, tokens, money, calls or seconds.
    """
    measured = [p for p in points if math.isfinite(getattr(p, by))]
    if budgets is None:
        grown = [p for p in measured if not p.greedy]
        rungs = sorted({p.n for p in grown})
        budgets = sorted({_round_up(max(getattr(p, by) for p in grown if p.n == n)) for n in rungs})
    labels = list(dict.fromkeys(p.label for p in points))
    table = []
    for budget in budgets:
        fits = {label: [p for p in measured if p.label == label and getattr(p, by) <= budget] for label in labels}
        best = {label: max(ps, key=lambda p: p.n) if ps else None for label, ps in fits.items()}
        table.append(AtBudget(float(budget), best))
    return tuple(table)


def _round_up(x: float) -> float:
    if x <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(x)) - 1)
    return math.ceil(round(x / unit, 9)) * unit


def _by_item(trials: Sequence[Trial]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for t in trials:
        found.setdefault(t.item, []).append(t.score)
    return found


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values)) if values else math.nan


def _plain(value: Any) -> Any:
    """The same with NaN and infinities as null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
