"""Problems of induction: lists before and after a hidden rule, and lists of which only the rule's reader knows the end.

Two rules that do the same are the same rule: what a rule does to a fixed set of lists decides whether it is for
training, for choosing settings or for the final test, so that no rule is met again under another name.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from anystep.errors import UsageError
from anystep.tasks.chains import SPLITS, split_of
from anystep.tasks.rules.asking import DIRECT, WIDTH, asked, outputs_of, rule_of
from anystep.tasks.rules.meaning import KNOWN, OPERATIONS, Digits, Operation, Rule, Type, parse, written
from anystep.tasks.task import Task

SEEN, UNSEEN = 5, 3
LENGTH = 4  # digits of every list that a rule is shown on
LEVELS = {1: 0.35, 2: 0.65}  # operations of a rule, and how often
GENERATION = {"unit": "completion", "end": (".",), "max_tokens": 32, "at_cap": "failed", "chat": False}
_LISTS = Random("rules")
PROBES = tuple(tuple(_LISTS.randrange(10) for _ in range(LENGTH)) for _ in range(24))
_TAKING: dict[Type, list[Operation]] = {t: [o for o in OPERATIONS if o.takes == t] for t in ("list", "digit")}

Example = tuple[Digits, Digits]


@dataclass(frozen=True)
class Problem:
    """A hidden rule with examples of what it does: `seen` are shown, of `unseen` the first of each pair alone."""

    rule: Rule
    level: int
    seen: tuple[Example, ...]
    unseen: tuple[Example, ...]

    @property
    def prompt(self) -> str:
        """The request for a rule."""
        return asked(self.seen)

    @property
    def direct(self) -> str:
        """The request for what becomes of the unseen lists."""
        return asked(self.seen, [x for x, _ in self.unseen], DIRECT)


@functools.lru_cache(50_000)
def behaviour(rule: Rule) -> str:
    """What a rule does to the probes: equal for rules that do the same."""
    return " ".join(written(rule.apply(x)) for x in PROBES)


def draw_rule(rng: Random, level: int, split: str) -> Rule:
    """A rule of `level` operations, each of which matters: without any one of them it would do something else."""
    while True:
        rule = _any_rule(rng, level)
        does = behaviour(rule)
        if split_of(does) == split and len(set(does.split())) > 6 and _needed(rule, does):
            return rule


def _any_rule(rng: Random, level: int) -> Rule:
    texts: list[str] = []
    kind: Type = "list"
    for _ in range(level):
        operation = rng.choice(_TAKING[kind])
        texts.append(rng.choice(operation.texts))
        kind = operation.gives
    return Rule(tuple(texts))


def _needed(rule: Rule, does: str) -> bool:
    shorter = [parse(",".join(o for j, o in enumerate(rule.operations) if j != i)) for i in range(len(rule.operations))]
    same = [behaviour(Rule(()))] + [behaviour(s) for s in shorter if s is not None]
    return does not in same


def problems(split: str, rng: Random) -> Iterator[Problem]:
    """Endless problems of one split; their rules may repeat, their lists do not within a problem."""
    while True:
        level = rng.choices(list(LEVELS), list(LEVELS.values()))[0]
        problem = _problem(rng, draw_rule(rng, level, split), level)
        if problem is not None:
            yield problem


def _problem(rng: Random, rule: Rule, level: int) -> Problem | None:
    """A rule with examples; None for one that makes too little of most lists."""
    examples: dict[Digits, Digits] = {}
    for _ in range(60):
        x = tuple(rng.randrange(10) for _ in range(LENGTH))
        y = rule.apply(x)
        if y is not None and len(y) <= WIDTH and (y or rng.random() < 0.3):
            examples[x] = y
        if len(examples) == SEEN + UNSEEN:
            pairs = tuple(examples.items())
            return Problem(rule, level, pairs[:SEEN], pairs[SEEN:])
    return None


def mistaken(rule: Rule, rng: Random) -> Rule:
    """A rule that someone might have tried where `rule` was right: an operation other, missing or added, or all other.

    It does something else than `rule` does.
    """
    while True:
        texts = list(rule.operations)
        at, kind = rng.randrange(len(texts)), rng.randrange(5)
        other = rng.choice(_any_rule(rng, 2).operations)
        alike = [t for t in KNOWN[texts[at]].texts if t != texts[at]]
        if kind == 0 and alike:
            texts[at] = rng.choice(alike)
        elif kind == 1 and len(texts) > 1:
            del texts[at]
        elif kind == 2:
            texts.insert(rng.randrange(len(texts) + 1), other)
        elif kind == 3:
            texts[at] = other
        else:
            texts = list(_any_rule(rng, rng.choice((1, 2, 3))).operations)
        tried = parse(",".join(texts))
        if tried is not None and behaviour(tried) != behaviour(rule):
            return tried


def perturbed(problem: Problem, share: float, rng: Random) -> Problem:
    """The problem with each shown output, by chance `share`, one digit wrong."""
    return Problem(
        problem.rule,
        problem.level,
        tuple((x, _wrong(y, rng) if rng.random() < share else y) for x, y in problem.seen),
        problem.unseen,
    )


def _wrong(y: Digits, rng: Random) -> Digits:
    if not y:
        return (rng.randrange(10),)
    at = rng.randrange(len(y))
    return (*y[:at], (y[at] + rng.randrange(1, 10)) % 10, *y[at + 1 :])


def task(problem: Problem) -> Task:
    """The problem as a task: a model's text is a rule, its answer what the interpreter says that the rule makes of the
    unseen lists, its score the share of them that are right.

    meta: `problem` itself, for rewards that read its seen examples.
    """
    inputs, right = [x for x, _ in problem.unseen], [y for _, y in problem.unseen]

    def extract(text: str) -> str | None:
        rule = rule_of(text)
        return None if rule is None else ";".join(written(rule.apply(x)) for x in inputs)

    def score(text: str) -> float:
        rule = rule_of(text)
        return 0.0 if rule is None else sum(rule.apply(x) == y for x, y in problem.unseen) / len(right)

    return _task(problem, problem.prompt, str(problem.rule), extract, score)


def direct(problem: Problem) -> Task:
    """The same problem without a rule: shown the unseen lists too, a model writes what becomes of them."""
    right = [y for _, y in problem.unseen]

    def extract(text: str) -> str | None:
        found = outputs_of(text)
        return None if found is None else ";".join(map(written, found))

    def score(text: str) -> float:
        found = outputs_of(text) or []
        return sum(a == b for a, b in zip(found, right, strict=False)) / len(right)

    return _task(problem, problem.direct, ";".join(map(written, right)), extract, score)


def _task(problem: Problem, prompt: str, reference: str, extract, score) -> Task:  # type: ignore[no-untyped-def]
    meta = {"problem": problem}
    return Task(problem.prompt, "rules", prompt, reference, extract, score, None, dict(GENERATION), problem.level, meta)


def rules(n: int, split: str = "test", seed: int = 0) -> list[Task]:
    """`n` distinct problems of a split as tasks. UsageError for an unknown split or no problems."""
    return [task(p) for p in drawn(n, split, seed)]


def drawn(n: int, split: str = "test", seed: int = 0, each: int = 6) -> list[Problem]:
    """`n` problems of a split, at most `each` of one rule. UsageError for more than the split has rules for."""
    if split not in SPLITS:
        raise UsageError(f"rules(n, split='test'): split is one of {', '.join(SPLITS)}, got {split!r}")
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise UsageError(f"rules(n=50): n is a whole number, 1 or more, got {n!r}")
    found: dict[str, Problem] = {}
    of: Counter[str] = Counter()
    for problem in islice(problems(split, Random(f"{split}:{seed}")), 60 * n + 200):
        does = behaviour(problem.rule)
        if of[does] < each and problem.prompt not in found:
            of[does] += 1
            found[problem.prompt] = problem
        if len(found) == n:
            return list(found.values())
    raise UsageError(f"rules(n={n}): the {split} split has only about {len(found)} such problems, {each} a rule")
