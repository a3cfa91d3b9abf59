"""Problems of numbered premises with the chains that solve them, and the tasks made of them.

A story of 3 to 8 steps: counts that follow from one another, one of which is asked for, and statements that are true
but not needed, some of them about the people in the story. All counts stay within 1 to 50.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from anystep.errors import UsageError
from anystep.tasks._draw import check_count, check_split, rng, split_of
from anystep.tasks.premises import check
from anystep.tasks.premises.meaning import PEOPLE, THINGS, Meaning, Style, apply, write
from anystep.tasks.task import Task

LEVELS = {1: (3, 4), 2: (5, 6), 3: (7, 8)}  # steps, the answer included
LIMIT = 50
GENERATION = {"unit": "step", "stop": "\n", "max_tokens": 200, "at_cap": "failed", "chat": False}
Step = tuple[tuple[int, ...], Meaning]  # what it cites, and what it says


@dataclass(frozen=True)
class Problem:
    """Premises in order, the question last; the chain that solves it, step i numbered len(premises) + 1 + i."""

    premises: tuple[Meaning, ...]
    chain: tuple[Step, ...]
    level: int
    things: str = "apples"

    @property
    def key(self) -> str:
        """The same for the same problem; it decides the split."""
        return self.prompt("compact")

    @property
    def answer(self) -> str:
        return str(self.chain[-1][1].value)

    def prompt(self, style: Style = "compact") -> str:
        told = [write(p, style, self.things) for p in self.premises]
        if style == "compact":
            return ";".join(f"#{i}{text}" for i, text in enumerate(told, 1))
        return "\n".join(f"#{i}. {text}" for i, text in enumerate(told, 1))

    def text(self, chain: tuple[Step, ...] | None = None, style: Style = "compact") -> str:
        """A chain for this problem as a model writes it, by default the one that solves it."""
        first = len(self.premises) + 1
        rows = enumerate(self.chain if chain is None else chain, first)
        lines = [numbered(i, cites, write(said, style, self.things), style) for i, (cites, said) in rows]
        return "\n".join(lines) + ("." if style == "compact" else "\n")


def numbered(number: int, cites: tuple[int, ...], text: str, style: Style = "compact") -> str:
    """A step's line: `#7(#1#2)b=12+4=16`, or `#7. (by #1 #2) Bob has 12 + 4 = 16 apples.`"""
    if style == "compact":
        return f"#{number}({''.join(f'#{c}' for c in cites)}){text}"
    return f"#{number}. (by {' '.join(f'#{c}' for c in cites)}) {text}"


def draw(r: Random, level: int) -> Problem:
    """A problem at a level of 1 to 3."""
    while True:
        problem = _try(r, level)
        if problem is not None:
            return problem


def _try(r: Random, level: int) -> Problem | None:
    """A problem, or None where the story ran out of room."""
    people = r.sample(list(PEOPLE), len(PEOPLE))
    counts: dict[str, int] = {}
    told, order = list[Meaning](), list[Meaning]()

    def give(who: str) -> None:
        counts[who] = r.randint(2, 20)
        told.append(Meaning("given", who, value=counts[who]))

    give(last := people.pop())
    for _ in range(r.choice(LEVELS[level]) - 1):
        others = [who for who in counts if who != last]
        if r.random() < 0.25 and (not others or r.random() < 0.5):
            give(people.pop())
            others = [who for who in counts if who != last]
        if len(people) < 4:  # of whom some are kept for what is not needed
            return None
        new = people.pop()
        relation = _relation(r, new, last, counts, others)
        if relation is None:
            return None
        order.append(relation)
        told.append(relation)
        last = new
    for _ in range(r.choice((2, 3))):  # true, and not needed: told anywhere among the others
        if r.random() < 0.5:
            give(people.pop())
        else:
            relation = _relation(r, people.pop(), r.choice([w for w in counts if w != last]), counts, [])
            if relation is None:
                continue
            told.append(relation)
        told.insert(r.randrange(len(told)), told.pop())
    told.append(Meaning("asked", last))
    return Problem(tuple(told), _solved(told, order, last, counts), level, r.choice(THINGS))


def _relation(r: Random, new: str, of: str, counts: dict[str, int], others: list[str]) -> Meaning | None:
    """How the count of `new` follows from that of `of`, and sometimes another's; None if no count fits."""
    have = counts[of]
    sums = [other for other in others if have + counts[other] <= LIMIT]
    if sums and r.random() < 0.3:
        other = r.choice(sums)
        counts[new] = have + counts[other]
        return Meaning("relation", new, of, "+", other)
    most = {"+": min(9, LIMIT - have), "-": min(9, have - 1), "*": min(5, LIMIT // have)}
    fits = [operator for operator, n in most.items() if n >= 2]
    if not fits:
        return None
    operator = r.choice(fits)
    by = r.randint(2, most[operator])
    counts[new] = apply(have, operator, by)
    return Meaning("relation", new, of, operator, by)


def _solved(told: list[Meaning], order: list[Meaning], asked: str, counts: dict[str, int]) -> tuple[Step, ...]:
    """The steps in order, each citing where its numbers stand and then the relation."""
    at = {m.subject: i for i, m in enumerate(told, 1) if m.kind == "given"}
    steps: list[Step] = []
    for relation in order:
        left, right = (counts[t] if isinstance(t, str) else t for t in (relation.left, relation.right))
        sources = [at[t] for t in (relation.left, relation.right) if isinstance(t, str)]
        value = apply(left, relation.operator, right)
        said = Meaning("worked", relation.subject, left, relation.operator, right, value)
        steps.append(((*sources, told.index(relation) + 1), said))
        at[relation.subject] = len(told) + len(steps)
    steps.append(((at[asked], len(told)), Meaning("answer", value=counts[asked])))
    return tuple(steps)


def problems(split: str, seed: int, level: int | None = None) -> Iterator[Problem]:
    """Distinct problems of one split, without end."""
    seen: set[str] = set()
    index = 0
    while True:
        r = rng("premises", seed, split, level, index)
        index += 1
        problem = draw(r, level or r.choice(list(LEVELS)))
        if split_of("premises", problem.key) == split and problem.key not in seen:
            seen.add(problem.key)
            yield problem


_SYSTEM = (
    "Solve the problem step by step. Number each step, say in brackets which statements it follows from, and use "
    "nothing else. The last step says what the answer is."
)


def _shots() -> tuple[Problem, ...]:
    """Two worked problems, which are in no split's tasks: their people have more than 50 of everything."""
    first = (Meaning("given", "k", value=64), Meaning("relation", "l", "k", "+", 5), Meaning("given", "g", value=61))
    one = (*first, Meaning("asked", "l"))
    chain = (((1, 2), Meaning("worked", "l", 64, "+", 5, 69)), ((5, 4), Meaning("answer", value=69)))
    given = (Meaning("relation", "h", "i", "-", 8), Meaning("given", "i", value=70), Meaning("given", "j", value=31))
    two = (*given, Meaning("relation", "f", "h", "+", "j"), Meaning("asked", "f"))
    steps = (
        ((2, 1), Meaning("worked", "h", 70, "-", 8, 62)),
        ((6, 3, 4), Meaning("worked", "f", 62, "+", 31, 93)),
        ((7, 5), Meaning("answer", value=93)),
    )
    return Problem(one, chain, 1, "cups"), Problem(two, steps, 1, "keys")


def messages(problem: Problem) -> tuple[dict[str, str], ...]:
    """The problem in sentences for an instructed model, after two worked ones."""
    told = [{"role": "system", "content": _SYSTEM}]
    for shot in _shots():
        told += [{"role": "user", "content": shot.prompt("natural")}]
        told += [{"role": "assistant", "content": shot.text(style="natural").strip()}]
    return (*told, {"role": "user", "content": problem.prompt("natural")})


def task(problem: Problem, style: Style = "compact") -> Task:
    """The problem as a task: scored by its answer, its steps checked given what they cite."""
    prompt = problem.prompt(style)
    compact = style == "compact"
    return Task(
        id=f"premises/{problem.key}",
        family=f"premises/{style}",
        prompt=prompt if compact else messages(problem),
        reference=problem.answer,
        extract=check.answer,
        score=partial(_score, problem.answer),
        steps=partial(check.steps, prompt),
        level=problem.level,
        generation=dict(GENERATION) if compact else {**GENERATION, "chat": True, "max_tokens": 320},
        meta={"problem": problem, "premises": prompt, "chain": problem.text(style=style)},
    )


def _score(reference: str, text: str) -> float:
    return float(check.answer(text) == reference)


def premises(
    n: int, *, split: str = "test", seed: int = 0, level: int | None = None, style: Style = "compact"
) -> list[Task]:
    """`n` distinct problems of numbered premises, for models that number their steps and cite what each follows from.

    level: 1 takes 3 or 4 steps, 2 takes 5 or 6, 3 takes 7 or 8; None mixes them. style: "compact" for a model that
    knows the characters of ChainLM, "natural" for one that knows English. `score` is 1 where the last step gives the
    right answer, however it was reached; `steps` says which steps follow from what they cite, up to the first that does
    not. `Task.meta` holds the `problem`, its numbered `premises` and a right `chain`.
    """
    call = f'premises({n!r}, split="test", level=1, style="compact")'
    check_count(n, call)
    check_split(split, call)
    if level is not None and level not in LEVELS:
        raise UsageError(f"level={level!r} does not exist: write {call}, with level one of {tuple(LEVELS)} or None")
    if style not in ("compact", "natural"):
        raise UsageError(f'style={style!r} does not exist: write {call}, with style "compact" or "natural"')
    source = problems(split, seed, level)
    return [task(next(source), style) for _ in range(n)]
