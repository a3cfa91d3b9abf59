"""What follows from notes on a chain, whatever verdict they give: labels from their evidence.

A note's evidence can speak against its line where its own verdict does not. It does so where the operations, worked out
anew, come to another result than the line states; where the line goes on from another than the one before; where it
stands for other lines of the reference than those whose turn it is (arithmetic and lists have one way); where a number
is used that is not noted as left; where the target is not among what is noted as in reach; and where the chain ends
before it should. All of it compares texts: nothing is computed here, so evidence that is wrong misleads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from anystep.tasks.chains.family import Verdict, split
from anystep.tasks.chains.merged import Line, lines
from anystep.tasks.chains.notes import Note


def concluded(prompt: str, reference: str | None, chain: str, notes: Sequence[Note | None]) -> list[Note | None]:
    """The notes with verdicts that their evidence allows: a line is wrong where its note says so or its evidence does,
    and behind a wrong one all are. Without a reference alignments are not weighed."""
    own, ends = lines(prompt, chain), [last for _, last in split(chain)]
    weighed = len(split(reference)) if reference is not None and prompt[0] != "C" else None
    found: list[Note | None] = []
    used, wrong = 0, False
    for number, line, last, one in zip(count(), own, ends, notes, strict=False):
        if one is None:
            found.append(None)
            continue
        before = notes[number - 1] if number else None
        verdict = one.verdict if one.verdict is not Verdict.RIGHT else _evidence(prompt, line, one, before, number)
        if verdict is Verdict.RIGHT and weighed is not None:
            mine = tuple(range(used, used + len(line.operations)))
            verdict = Verdict.ILLEGAL if one.aligned != mine else verdict
            used += len(mine)
            if verdict is Verdict.RIGHT and last != (used == weighed):
                verdict = Verdict.ENDING
        if verdict is Verdict.RIGHT and prompt[0] == "C" and last and one.left != ():
            verdict = Verdict.ENDING
        found.append(replace(one, verdict=Verdict.AFTER if wrong else verdict))
        wrong = wrong or verdict is not Verdict.RIGHT
    return found


def _evidence(prompt: str, line: Line, one: Note, before: Note | None, number: int) -> Verdict:
    """What a note's own fields say of its line."""
    if not line.operations or not one.values or one.values[-1] != line.said:
        return Verdict.FALSE
    if one.premise != number:
        return Verdict.ILLEGAL
    if prompt[0] != "C":
        return Verdict.RIGHT
    numbers = [operation[1:] for operation in line.operations]
    if before is None and number == 0:
        numbers, there = [line.left, *numbers], prompt[1:].partition(">")[0].split(" ")
    else:
        there = [] if before is None or before.left is None else [str(n) for n in before.left]
    for used in numbers:
        if used not in there:
            return Verdict.ILLEGAL
        there.remove(used)
    aim = prompt[:-1].partition(">")[2]
    if one.left == () and line.said != aim:
        return Verdict.DOOMED
    if one.reach is not None and aim not in [value[1:] for value in one.reach]:
        return Verdict.DOOMED
    return Verdict.RIGHT
