"""What does a verifier let pass? False positives by kind of error, what it misses, how it ranks, what a check costs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anystep.calibrate.interval import UNKNOWN, Interval, bootstrap_mean, wilson
from anystep.calibrate.reliability import Floor, Groups, auroc, auroc_within, reliability
from anystep.errors import UsageError
from anystep.ledger import FREE, Budget, Cost, Ledger, Limit
from anystep.process import Floats, Reward
from anystep.tasks.planted import Planted

BATCH = 256


@dataclass(frozen=True)
class Written:
    """States that are a prompt and a text each, for rewards that read text alone (`language.Sequences` has tokens)."""

    pairs: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def take(self, index: NDArray[np.int64]) -> Self:
        return type(self)(tuple(self.pairs[i] for i in np.asarray(index).tolist()))

    def join(self, *others: Written) -> Self:
        every: tuple[Written, ...] = (self, *others)
        return type(self)(tuple(pair for states in every for pair in states.pairs))

    def prompts(self) -> tuple[str, ...]:
        return tuple(prompt for prompt, _ in self.pairs)

    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self.pairs)


def states_of(pairs: Iterable[tuple[str, str]], tokenizer: Any = None) -> Any:
    """States for a reward from (prompt, text) pairs: `language.Sequences` where a tokenizer is given, such as
    `engine.tokenizer`, else states that hold text alone.

    A prompt is taken as it is: put it through the chat template first, `tokenizer.chat(messages)`.
    """
    pairs = tuple(pairs)
    if tokenizer is None:
        return Written(pairs)
    from anystep.language.engine.tokenizer import begun
    from anystep.language.states import Sequences

    prompts = [tuple(begun(tokenizer, prompt)) for prompt, _ in pairs]
    tokens = tuple(p + tuple(tokenizer.encode(text)) for p, (_, text) in zip(prompts, pairs, strict=True))
    return Sequences(tokens, tuple(len(p) for p in prompts), tokenizer)


@dataclass(frozen=True)
class Verdicts:
    """How a verifier's verdicts fared against labels, an item passing where its score is at least `threshold`.

    false_positives: the share of wrong items that passed; by_kind: the same for each kind of error. false_negatives:
    the share of right items that did not. within: mean AUROC among items of one problem. ece, plugin and floor: see
    `reliability`; NaN where scores are no probabilities. cost and seconds (of processor time): of one check.
    unscored: items without a score, which pass nothing and stand in no figure.
    """

    name: str
    threshold: float
    right: int
    wrong: int
    unscored: int
    false_positives: Interval
    by_kind: dict[str, tuple[int, Interval]]
    false_negatives: Interval
    auroc: Interval
    within: Interval
    ece: Interval
    plugin: float
    floor: Floor
    cost: dict[str, float]
    seconds: float
    scores: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def __str__(self) -> str:
        head = f"{self.name}: {self.wrong} wrong and {self.right} right texts, passed at {self.threshold:g} or more"
        per = ", ".join(f"{value:g} {what}" for what, value in self.cost.items() if value) or "nothing"
        rows = [("wrong ones passed", self.wrong, self.false_positives)]
        rows += [(f"  {kind}", n, share) for kind, (n, share) in self.by_kind.items()]
        rows += [("right ones refused", self.right, self.false_negatives)]
        rows += [("AUROC", self.right + self.wrong, self.auroc), ("  within a problem", 0, self.within)]
        rows += [(f"ECE (by chance {self.floor.mean:.3f})", self.right + self.wrong, self.ece)]
        lines = [f"  {what:28} {n or '':>6}  {figure}" for what, n, figure in rows]
        lines.append(f"  a check costs {per} and {self.seconds * 1e3:.2f} ms of one core")
        return "\n".join([head, *lines, *([f"  {self.unscored} had no score"] if self.unscored else [])])

    def as_dict(self) -> dict[str, Any]:
        """As plain data for JSON, without the scores; what is not known is None."""
        record = asdict(self)
        del record["scores"]
        record["by_kind"] = {kind: {"n": n, **asdict(share)} for kind, (n, share) in self.by_kind.items()}
        return _known(record)

    def json(self) -> str:
        return json.dumps(self.as_dict(), indent=2, allow_nan=False)


def verdicts(
    reward: Reward | Sequence[Reward],
    states: Any,
    labels: ArrayLike,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    problems: Groups | None = None,
    name: str | None = None,
    budget: Budget | None = None,
    bins: int = 15,
) -> Verdicts:
    """Score labelled states and say what passed.

    reward: one, or one a state (`[verify.equations(question) for question in questions]`). labels: (n,) 1 for right, 0
    for wrong. groups: the kind of error of each state; those of right ones are not read. problems: what each state is
    an answer to, by default its prompt. budget: what scoring may spend in all; what it refused stays unscored.
    """
    many = [reward] * len(states) if isinstance(reward, Reward) else list(reward)
    if len(many) != len(states) or not many:
        raise UsageError(f"verdicts: {len(many)} rewards for {len(states)} states; give one, or one a state.")
    values, cost, seconds = scored(many, states, budget)
    own = states.prompts() if problems is None else problems
    first = many[0]
    bounded = first.range[0] >= 0 and first.range[1] <= 1
    return judged(name or first.name, values, labels, threshold, groups, own, cost, seconds, bins if bounded else 0)


def scored(rewards: Sequence[Reward], states: Any, budget: Budget | None = None) -> tuple[Floats, Cost, float]:
    """Every state's score by its own reward, what all of it cost, and the seconds of this process's processor time.

    Equal rewards score their states together, 256 at a time, after dropping what they have cached: the cost is that of
    checking these states and nothing before.
    """
    values, ledger = np.full(len(states), np.nan), Ledger(budget or Budget(), reserve=0.0)
    rows: dict[Reward, list[int]] = {}
    for row, reward in enumerate(rewards):
        rows.setdefault(reward, []).append(row)
    began = time.process_time()
    for reward, own in rows.items():
        reward.source().forget()
        for at in range(0, len(own), BATCH):
            some = np.array(own[at : at + BATCH], dtype=np.int64)
            values[some] = reward(states.take(some), Limit(ledger, reward.name)).values
    return values, sum(ledger.by.values(), FREE), time.process_time() - began


def judged(
    name: str,
    scores: ArrayLike,
    labels: ArrayLike,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    problems: Groups | None = None,
    cost: Cost = FREE,
    seconds: float = math.nan,
    bins: int = 15,
) -> Verdicts:
    """The verdicts of scores that are there already; `bins=0` for scores that are no probabilities."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    own = np.array(range(len(x)) if problems is None else _numbered(problems), dtype=np.int64)
    if not (len(x) == len(y) == len(own)) or (groups is not None and len(groups) != len(x)):
        raise UsageError(f"verdicts: {len(x)} scores, {len(y)} labels: give one label, kind and problem a state.")
    if not np.isin(y, (0.0, 1.0)).all():
        raise UsageError(f"verdicts: labels are 0 or 1, wrong or right; got {y[~np.isin(y, (0.0, 1.0))][0]}.")
    there = ~np.isnan(x)
    good, bad, passed = there & (y > 0), there & (y == 0), x >= threshold
    kinds = np.array(["wrong"] * len(x) if groups is None else list(groups), dtype=object)
    by_kind = {k: _row(passed, own, bad & (kinds == k)) for k in dict.fromkeys(kinds[bad].tolist())}
    sound = reliability(x, y, bins, groups=own.tolist()) if bins and there.any() else None
    n = max(1, len(x))
    paid = {"tokens": cost.tokens, "evaluations": cost.evaluations, "flops": cost.flops, "calls": cost.calls}
    return Verdicts(
        name=name,
        threshold=threshold,
        right=int(good.sum()),
        wrong=int(bad.sum()),
        unscored=int((~there).sum()),
        false_positives=share(passed[bad], own[bad]),
        by_kind={} if groups is None else by_kind,
        false_negatives=share(~passed[good], own[good]),
        auroc=auroc(x, y, own.tolist()),
        within=auroc_within(x, y, own.tolist()),
        ece=sound.ece if sound else UNKNOWN,
        plugin=sound.plugin if sound else math.nan,
        floor=sound.floor if sound else Floor(math.nan, math.nan),
        cost={what: float(f"{value / n:.4g}") for what, value in paid.items()},
        seconds=seconds / n,
        scores=tuple(x.tolist()),
    )


def share(passed: ArrayLike, problems: ArrayLike) -> Interval:
    """The share of items that passed, with its 95% interval: Wilson's where every problem has one item.

    Several items of one problem are not independent: then it is the bootstrap over problems, or where all items agree,
    which would leave it no width, Wilson's over the number of problems.
    """
    x, own = np.asarray(passed, dtype=bool), np.asarray(problems)
    single = len(np.unique(own)) == len(x)
    if single or len(x) == 0:
        return wilson(int(x.sum()), len(x))
    _, at = np.unique(own, return_inverse=True)
    size, hits = np.bincount(at), np.bincount(at, x)
    if x.all() or not x.any():
        rate = wilson(len(size) if x.all() else 0, len(size))
        return Interval(float(x.mean()), rate.low, rate.high)
    if (size == size[0]).all():
        return bootstrap_mean(hits / size)
    pick = np.random.default_rng(0).integers(0, len(size), (2_000, len(size)))
    low, high = np.quantile(hits[pick].sum(1) / size[pick].sum(1), [0.025, 0.975])
    return Interval(float(x.mean()), float(low), float(high))


def on_planted(
    reward: Reward | Sequence[Reward],
    cases: Sequence[Planted],
    tokenizer: Any = None,
    threshold: float = 0.5,
    prompts: Sequence[str] | None = None,
    name: str | None = None,
    budget: Budget | None = None,
    answers: bool = False,
) -> Verdicts:
    """`verdicts` on planted errors (`tasks.planted.planted`), by kind.

    tokenizer and prompts: see `states_of`; the prompt of a chat task is its last message where none is given. answers:
    label by the answer alone, so that a right answer by a wrong way counts as right.
    """
    from anystep.verify.asked import asked_by  # verify's own imports load a model's engine, and bench imports this room

    told = [asked_by(case.task) for case in cases] if prompts is None else prompts
    states = states_of(zip(told, (case.text for case in cases), strict=True), tokenizer)
    labels = [float(case.answer if answers else case.right) for case in cases]
    kinds = [case.kind for case in cases]
    return verdicts(reward, states, labels, threshold, kinds, [case.task.id for case in cases], name, budget)


def _row(passed: NDArray[np.bool_], own: NDArray[np.int64], rows: NDArray[np.bool_]) -> tuple[int, Interval]:
    return int(rows.sum()), share(passed[rows], own[rows])


def _numbered(problems: Groups) -> list[int]:
    known: dict[Hashable, int] = {}
    return [known.setdefault(p, len(known)) for p in problems]


def _known(value: Any) -> Any:
    """NaN, and what holds it, as None: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _known(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
