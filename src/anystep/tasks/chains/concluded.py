"""What follows from notes on a chain: labels from their evidence, and from their verdicts where evidence is silent.

A note's evidence speaks against its line where the operations, worked out anew, come to another result than the line
states; where the line that it goes on from ends on another value than it starts from, or is not the one before; where
it stands for lines of the reference that do something else, or whose turn it is not (arithmetic and lists have one
way); where a number is used that is not left; where the target is not among what is noted as in reach; and where the
chain ends too early. All of it compares texts: nothing is computed here, so evidence that is wrong misleads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from anystep.tasks.chains.family import Verdict, split
from anystep.tasks.chains.merged import Line, lines
from anystep.tasks.chains.notes import Note


def concluded(prompt: str, reference: str | None, chain: str, notes: Sequence[Note | None]) -> list[Note | None]:
    """The notes with verdicts that their evidence allows; behind a wrong line all are wrong.

    A note's own verdict stands where evidence is silent: in countdown while two numbers are left, or where it does not
    say what the last can reach. Without a reference alignments are not weighed.
    """
    weigh = _countdown if prompt[0] == "C" else _in_turn
    verdicts = weigh(prompt, reference, lines(prompt, chain), [last for _, last in split(chain)], notes)
    found, wrong = list[Note | None](), False
    for one, verdict in zip(notes, verdicts, strict=True):
        found.append(one and replace(one, verdict=Verdict.AFTER if wrong else verdict))
        wrong = wrong or (one is not None and verdict is not Verdict.RIGHT)
    return found


def _in_turn(
    prompt: str, reference: str | None, own: Sequence[Line], ends: Sequence[bool], notes: Sequence[Note | None]
) -> list[Verdict]:
    """Arithmetic and lists: one operation after the other, as the reference has them."""
    theirs = None if reference is None else [line.operations[0] for line in lines(prompt, reference)]
    found, used = list[Verdict](), 0
    for number, (line, last, one) in enumerate(zip(own, ends, notes, strict=True)):
        verdict = Verdict.RIGHT if one is None else _worked(prompt, own, number, one)
        if one is not None and verdict is Verdict.RIGHT and theirs is not None:
            turn = tuple(range(used, used + len(line.operations)))
            if one.aligned != turn or tuple(theirs[used : used + len(turn)]) != one.operations:
                verdict = Verdict.ILLEGAL
            elif last != (turn[-1] == len(theirs) - 1):
                verdict = Verdict.ENDING
        used += len(line.operations)
        found.append(verdict)
    return found


def _countdown(
    prompt: str, reference: str | None, own: Sequence[Line], ends: Sequence[bool], notes: Sequence[Note | None]
) -> list[Verdict]:
    """Countdown: each number once, and the target in reach."""
    numbers, _, aim = prompt[1:-1].partition(">")
    left, found = numbers.split(" "), list[Verdict]()
    for number, (line, last, one) in enumerate(zip(own, ends, notes, strict=True)):
        verdict = Verdict.RIGHT if one is None else _worked(prompt, own, number, one)
        for used in [*([line.left] if number == 0 else []), *(operation[1:] for operation in line.operations)]:
            if used in left:
                left.remove(used)
            elif verdict is Verdict.RIGHT:
                verdict = Verdict.ILLEGAL
        if one is not None and verdict is Verdict.RIGHT:
            if not left:
                verdict = Verdict.RIGHT if line.said == aim and last else Verdict.ENDING
            elif last:
                verdict = Verdict.ENDING
            elif len(left) == 1 and one.reach is not None:
                verdict = Verdict.RIGHT if aim in [value[1:] for value in one.reach] else Verdict.DOOMED
            else:
                verdict = one.verdict
        found.append(verdict)
    return found


def _worked(prompt: str, own: Sequence[Line], number: int, one: Note) -> Verdict:
    """What a note says of its line alone: its result, and what it goes on from."""
    line = own[number]
    if not line.operations or one.operations != line.operations or one.values[-1] != line.said:
        return Verdict.FALSE
    before = own[number - 1].said if number else None
    if number == 0 and prompt[0] == "A":
        before = prompt[1:].partition("+")[0].partition("-")[0].partition("*")[0]
    starts = one.start if before is None else before
    return Verdict.RIGHT if one.premise == number and one.start == starts else Verdict.ILLEGAL
