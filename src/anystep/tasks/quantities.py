"""Small word problems in a compact notation, which a chain or a program solves: who has how many?

`Ca 16,b 7 more a,c 3 times b,all?` says that a has 36, b has 17 more than a, c 3 times what b has, and asks what they
have together. A chain answers in equations, `36+17=53`, `53*3=159`, ..., a program in assignments, `x=36+17`, `y=x*3`.
A clause may tell of the one that is known (`a 17 more b`, so b has 17 less), or of the first in place of the last. A
solution errs in two ways: an equation that is false (a slip), or a plan that is not the problem's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from random import Random
from typing import Any

from anystep.errors import UsageError
from anystep.tasks.chains.alphabet import CHAIN_END, PROMPT_END, STEP_END, Alphabet
from anystep.tasks.chains.draw import split_of
from anystep.tasks.chains.family import split
from anystep.tasks.task import Task

CHAIN, PROGRAM, TRANSLATE = "CPV"  # what a prompt begins with: solve by a chain, by a program; a chain's program
KINDS = ("more", "less", "times", "far", "all", "gap")  # of readings that can be mistaken; the first three are inverse
MOST = 99
NAMES = "abc"  # in the order in which they become known
VARIABLES = "xyzw"
GENERATION = {"unit": "step", "stop": STEP_END, "max_tokens": 56, "at_cap": "failed", "chat": False}
EQUATION = re.compile(r"(\d{1,4})([-+*/])(\d{1,4})=(\d{1,4})")
CLAUSE = re.compile(r"([abc]) (\d{1,2}) (more|less|times) ([abc])")
FIRST = re.compile(r"a (\d{1,2})")
_DIRECT = {"more": "+", "less": "-", "times": "*"}
_INVERSE = {"more": "-", "less": "+", "times": "/"}


@dataclass(frozen=True)
class Clause:
    """`subject` has `amount` more or less than `other`, or that many times as much."""

    subject: str
    amount: int
    word: str
    other: str

    def __str__(self) -> str:
        return f"{self.subject} {self.amount} {self.word} {self.other}"


@dataclass(frozen=True)
class Quantities:
    """One problem: how many a has, a clause that tells of b, one that tells of c, and what is asked: `all` together,
    the `gap` between a and c, or what `c` has. Its text decides its split."""

    amount: int
    clauses: tuple[Clause, Clause]
    asked: str

    def __str__(self) -> str:
        return ",".join([f"a {self.amount}", *map(str, self.clauses), self.asked + PROMPT_END])

    @property
    def kinds(self) -> frozenset[str]:
        """The readings in it that can be mistaken."""
        found = {self.asked} & set(KINDS)
        for new, clause in zip("bc", self.clauses, strict=True):
            if clause.subject != new:
                found.add(clause.word)
        if "a" in (self.clauses[1].subject, self.clauses[1].other):
            found.add("far")
        return frozenset(found)


Ref = tuple[str, int]  # ("n", a number that is told) or ("v", the index of an earlier step)
Step = tuple[Ref, str, Ref]


def plan(problem: Quantities, mistaken: frozenset[str] = frozenset()) -> list[Step]:
    """The steps that solve the problem, or those of a reader who mistakes these kinds of readings."""
    steps: list[Step] = []
    where: dict[str, Ref] = {"a": ("n", problem.amount)}
    for new, clause in zip("bc", problem.clauses, strict=True):
        inverse = clause.subject != new
        base = clause.subject if inverse else clause.other
        if new == "c" and "far" in mistaken:
            base = "b"
        signs = _INVERSE if inverse and clause.word not in mistaken else _DIRECT
        steps.append((where[base], signs[clause.word], ("n", clause.amount)))
        where[new] = ("v", len(steps) - 1)
    first, second, last = (where[name] for name in NAMES)
    if problem.asked == "gap" and "gap" in mistaken:
        return [*steps, (first, "+", last)]
    if problem.asked == "gap":
        return [*steps, (last, "-", first) if _values(steps)[1] >= problem.amount else (first, "-", last)]
    if problem.asked == "all" and "all" in mistaken:
        return [*steps, (second, "+", last)]
    if problem.asked == "all":
        return [*steps, (first, "+", second), (("v", len(steps)), "+", last)]
    return steps


def _values(steps: list[Step]) -> list[Fraction]:
    values: list[Fraction] = []
    for left, sign, right in steps:
        a, b = (values[at] if kind == "v" else Fraction(at) for kind, at in (left, right))
        values.append(apply(a, sign, b))
    return values


def apply(a: Fraction, sign: str, b: Fraction) -> Fraction:
    """The value of one step; division by zero gives -1, which no quantity is."""
    if sign == "/":
        return a / b if b else Fraction(-1)
    return a + b if sign == "+" else a - b if sign == "-" else a * b


def fits(steps: list[Step]) -> bool:
    """Whether all values are whole and within 1..99."""
    return all(value.denominator == 1 and 1 <= value <= MOST for value in _values(steps))


def chain_of(steps: list[Step]) -> str:
    """The plan as equations."""
    values, lines = _values(steps), []
    for (left, sign, right), value in zip(steps, values, strict=True):
        a, b = (values[at] if kind == "v" else at for kind, at in (left, right))
        lines.append(f"{a}{sign}{b}={value}")
    return STEP_END.join(lines) + CHAIN_END


def program_of(steps: list[Step]) -> str:
    """The plan as assignments to x, y, z, w; its last variable is the answer."""
    lines = []
    for i, (left, sign, right) in enumerate(steps):
        a, b = (VARIABLES[at] if kind == "v" else str(at) for kind, at in (left, right))
        lines.append(f"{VARIABLES[i]}={a}{sign}{b}")
    return STEP_END.join(lines) + CHAIN_END


def steps_of(chain: str) -> list[tuple[Step, int]] | None:
    """A chain's finished steps, each with the result it states; None where one is no equation, or there are too many.

    An operand that is what an earlier step stated refers to that step (the latest one), so that a plan can be followed
    without its slips.
    """
    found: list[tuple[Step, int]] = []
    for text, _ in split(chain):
        match = EQUATION.fullmatch(text)
        if match is None or len(found) == len(VARIABLES):
            return None
        values = [value for _, value in found]
        refs: list[Ref] = []
        for operand in (int(match[1]), int(match[3])):
            back = [i for i, value in enumerate(values) if value == operand]
            refs.append(("v", back[-1]) if back else ("n", operand))
        found.append(((refs[0], match[2], refs[1]), int(match[4])))
    return found


@dataclass(frozen=True)
class Judged:
    """What is so of a chain: the answer it states, whether that is right, whether every equation holds, and whether
    its plan, followed without slips, comes to the right answer. Unfinished or unreadable chains have no answer."""

    answer: int | None
    right: bool
    holds: bool
    planned: bool

    @property
    def kind(self) -> str:
        """`right` in all respects, `lucky` (a right answer by a wrong step), or what is wrong: `slip`, `plan`, `both`;
        `garbled` where there is no answer."""
        if self.answer is None:
            return "garbled"
        if self.right:
            return "right" if self.holds and self.planned else "lucky"
        return {(False, True): "slip", (True, False): "plan", (False, False): "both"}.get(
            (self.holds, self.planned), "garbled"
        )


def judge(prompt: str, chain: str) -> Judged:
    """The exact checker: what is so of a chain for a problem."""
    truth = solution(read(prompt))
    found = steps_of(chain)
    if CHAIN_END not in chain or not found:
        return Judged(None, False, False, False)
    values = _values([step for step, _ in found])
    holds, said = True, list[Fraction]()
    for (left, sign, right), result in found:
        a, b = (said[at] if kind == "v" else Fraction(at) for kind, at in (left, right))
        holds &= apply(a, sign, b) == result
        said.append(Fraction(result))
    answer = found[-1][1]
    return Judged(answer, answer == truth, holds, values[-1] == truth)


def solution(problem: Quantities) -> int:
    return int(_values(plan(problem))[-1])


def read(prompt: str) -> Quantities:
    """The problem of a prompt, with or without the letter that says how to solve it; UsageError for another text."""
    body = prompt[1:] if prompt[:1] in (CHAIN, PROGRAM) else prompt
    told = body.removesuffix(PROMPT_END).split(",")
    first, clauses = FIRST.fullmatch(told[0]), [CLAUSE.fullmatch(part) for part in told[1:3]]
    if first and len(told) == 4 and told[3] in ("all", "gap", "c") and clauses[0] and clauses[1]:
        one, two = (Clause(c[1], int(c[2]), c[3], c[4]) for c in clauses if c)
        if {one.subject, one.other} == {"a", "b"} and {two.subject, two.other} in ({"a", "c"}, {"b", "c"}):
            problem = Quantities(int(first[1]), (one, two), told[3])
            if str(problem) == body:
                return problem
    raise UsageError(f"a problem of quantities reads 'Ca 16,b 7 more a,c 3 times b,all?', got {prompt!r}")


def draw(rng: Random) -> Quantities:
    """A problem whose values are all whole and within 1..99."""
    while True:
        values, clauses = [rng.randrange(6, 25)], list[Clause]()
        for i in (1, 2):
            word, inverse = rng.choice(("more", "less", "times")), rng.random() < 1 / 3
            base = 0 if i == 2 and rng.random() < 1 / 3 else i - 1
            amounts = [n for n in (2, 3) if not inverse or values[base] % n == 0] or [7]
            amount = rng.choice(amounts) if word == "times" else rng.randrange(2, 10)
            sign = (_INVERSE if inverse else _DIRECT)[word]
            values.append(int(apply(Fraction(values[base]), sign, Fraction(amount))))
            pair = (NAMES[base], NAMES[i]) if inverse else (NAMES[i], NAMES[base])
            clauses.append(Clause(pair[0], amount, word, pair[1]))
        problem = Quantities(values[0], (clauses[0], clauses[1]), rng.choice(("all", "gap", "c")))
        if fits(plan(problem)):
            return problem


def problems(part: str, rng: Random) -> Iterator[Quantities]:
    """Endless problems of `train`, `dev` or `test`, told apart by a hash of the problem itself; they may repeat."""
    while True:
        problem = draw(rng)
        if split_of(str(problem)) == part:
            yield problem


def misread(problem: Quantities, shares: Mapping[str, float], rng: Random) -> list[Step]:
    """The plan of a book that mistakes each kind of reading in a share of its problems, if it can be written down."""
    mistaken = frozenset(kind for kind in KINDS if kind in problem.kinds and rng.random() < shares.get(kind, 0.0))
    steps = plan(problem, mistaken)
    return steps if fits(steps) else plan(problem)


def stated(steps: list[Step], false: Mapping[int, int], carried: bool = True) -> str:
    """The plan as a chain whose equation i is off by `false[i]`; what follows goes on from there, if it is carried."""
    values: list[int] = []
    lines = []
    for i, (left, sign, right) in enumerate(steps):
        a, b = (values[at] if kind == "v" else at for kind, at in (left, right))
        true = int(abs(apply(Fraction(a), sign, Fraction(b))))
        said = max(1, true + false[i]) if i in false else true
        values.append(said if carried else true)
        lines.append(f"{a}{sign}{b}={said}")
    return STEP_END.join(lines) + CHAIN_END


def planted(problem: Quantities, rng: Random) -> dict[str, str]:
    """A right chain and wrong ones by what is wrong with them, as far as the problem has room: `slip`, a false equation
    carried on to the answer; `plan`, a mistaken reading whose equations hold; `lucky`, a false equation and the right
    answer all the same."""
    steps, prompt = plan(problem), CHAIN + str(problem)
    off = {rng.randrange(len(steps)): rng.choice((-10, -2, -1, 1, 2, 10))}
    mistakes = [plan(problem, frozenset({kind})) for kind in sorted(problem.kinds)]
    chains = {
        "right": [chain_of(steps)],
        "slip": [stated(steps, off)],
        "plan": [chain_of(mistake) for mistake in mistakes if fits(mistake)],
        "lucky": [stated(steps, {rng.randrange(len(steps) - 1): rng.choice((-2, -1, 1, 2))}, carried=False)],
    }
    found = {kind: [c for c in some if judge(prompt, c).kind == kind] for kind, some in chains.items()}
    return {kind: rng.choice(some) for kind, some in found.items() if some}


def extract(chain: str) -> str | None:
    """The answer that a finished chain states."""
    found = steps_of(chain)
    return str(found[-1][1]) if CHAIN_END in chain and found else None


def score(prompt: str, chain: str) -> float:
    """1.0 where the answer is right, however it was reached."""
    return float(judge(prompt, chain).right)


def quantities(n: int, part: str = "test", seed: int = 0) -> list[Task]:
    """`n` distinct problems of a split as tasks, to be solved by chains. UsageError for a split that does not exist."""
    if part not in ("train", "dev", "test"):
        raise UsageError(f"quantities({n}, part={part!r}): the splits are train, dev and test.")
    found: dict[str, Quantities] = {}
    stream = problems(part, Random(seed))
    while len(found) < n:
        problem = next(stream)
        found.setdefault(str(problem), problem)
    return [_task(problem) for problem in found.values()]


def _task(problem: Quantities) -> Task:
    prompt, meta = CHAIN + str(problem), dict[str, Any](kinds=problem.kinds)
    return Task(
        id=str(problem),
        family="quantities",
        prompt=prompt,
        reference=str(solution(problem)),
        extract=extract,
        score=partial(score, prompt),
        generation=dict(GENERATION),
        meta=meta,
    )


def alphabet() -> Alphabet:
    """The characters of prompts, chains and programs."""
    return Alphabet()
