"""Does a step follow from what it cites, and from that alone? The exact checker of steps, and of whole chains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum

from anystep.tasks.premises.meaning import Meaning, Term, apply, read
from anystep.tasks.premises.program import Statement, premises, statements


class Fault(IntEnum):
    """What is wrong with a step, NONE for a right one; the first that holds, in the order of `judge`."""

    NONE = 0
    RESULT = 1  # what it states is not what its own equation gives
    RULE = 2  # it works out something else than the relation it cites
    OPERAND = 3  # it takes a number that no cited statement gives for this place
    UNCITED = 4  # what it would follow from is not among what it cites
    NOWHERE = 5  # it cites a statement that is not there, or has no number of its own, or one that is taken
    UNREADABLE = 6


def judge(step: Statement, known: Mapping[int, Statement]) -> Fault:
    """What is wrong with one step, given the statements it cites and nothing else. known: those before it, by number.

    More citations than needed are no fault. Where cited statements differ on a count, any of them will do.
    """
    if step.number is None or step.number in known or not known.keys() >= set(step.cites):
        return Fault.NOWHERE
    said = read(step.text)
    if said is None or said.kind in ("relation", "asked"):
        return Fault.UNREADABLE
    return follows(said, [read(known[number].text) for number in step.cites])


def follows(said: Meaning, cited: Iterable[Meaning | None]) -> Fault:
    """What keeps `said` (worked, given or an answer) from following from the cited statements."""
    counts: dict[str, set[int]] = {}
    relations, asked = list[Meaning](), list[str]()
    for one in cited:
        if one is not None and one.kind in ("given", "worked"):
            counts.setdefault(one.subject, set()).add(one.value)
        elif one is not None and one.kind == "relation":
            relations.append(one)
        elif one is not None and one.kind == "asked":
            asked.append(one.subject)
    if said.kind == "answer":
        sources = [counts[who] for who in asked if who in counts]
        return Fault.UNCITED if not sources else Fault.NONE if any(said.value in s for s in sources) else Fault.RESULT
    if said.kind == "given" and said.value in counts.get(said.subject, ()):
        return Fault.NONE
    about = [r for r in relations if r.subject == said.subject]
    faults = [_by(said, relation, counts) for relation in about]
    return min(faults, default=Fault.UNCITED)


def _by(said: Meaning, relation: Meaning, counts: Mapping[str, set[int]]) -> Fault:
    """The same for one relation."""
    left, right = _values(relation.left, counts), _values(relation.right, counts)
    if said.kind == "given":
        results = {apply(a, relation.operator, b) for a in left for b in right}
        return Fault.UNCITED if not results else Fault.NONE if said.value in results else Fault.RESULT
    true = apply(int(said.left), said.operator, int(said.right)) == said.value
    a, b = int(said.left), int(said.right)
    if not left or not right:
        return Fault.UNCITED
    if said.operator != relation.operator:
        return Fault.RULE
    placed = (a in left and b in right) or (said.operator != "-" and b in left and a in right)
    return Fault.OPERAND if not placed else Fault.NONE if true else Fault.RESULT


def _values(term: Term, counts: Mapping[str, set[int]]) -> set[int]:
    return {term} if isinstance(term, int) else counts.get(term, set())


def faults(prompt: str, chain: str) -> tuple[Fault, ...]:
    """One verdict for each step of `chain`, each given only what it cites: a step that follows from a wrong one that it
    cites is right. What cannot be read says nothing, and steps that cite it fail."""
    known, found = premises(prompt), []
    for step in statements(chain):
        found.append(judge(step, known))
        if step.number is not None:
            known.setdefault(step.number, step)
    return tuple(found)


def steps(prompt: str, chain: str) -> tuple[bool, ...]:
    """One label a step: True while right, False from the first error on."""
    labels: list[bool] = []
    for fault in faults(prompt, chain):
        labels.append(fault is Fault.NONE and all(labels[-1:]))
    return tuple(labels)


def answer(chain: str) -> str | None:
    """The number that the last statement of a chain answers with; None where it gives none."""
    last = statements(chain)[-1:]
    said = read(last[0].text) if last else None
    return str(said.value) if said is not None and said.kind == "answer" else None
