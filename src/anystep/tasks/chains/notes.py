"""Step-by-step notes on a candidate chain beside a reference chain, exact, and the language they are written in.

A note says what a candidate's line builds on, works its operations out anew, repeats what the line says, names the
lines of the reference that it stands for (none, one or several), and gives the verdict. Written out, line 2 of
`A48-2-9?` worked as `46-9=36` reads `1:46-9=37/36b!f`: it goes on from line 1; 46-9 is 37 and the line says 36; it is
line b of the reference; it is wrong, because false. A line that merges two reads `0:48-2=46-9=37/37abV`. In countdown
the numbers that are left follow, what the last of them can reach, and the target: `0:9*4=36/36<1+37-35*36>37aV`. The
fields are those of SPARE (Rizvi et al., 2025), in ChainLM's 64 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from anystep.tasks.chains.alphabet import CHAIN_END, STEP_END
from anystep.tasks.chains.arithmetic import OPERATORS, apply
from anystep.tasks.chains.draw import family_of
from anystep.tasks.chains.family import Verdict, split
from anystep.tasks.chains.merged import Line, judge, lines

LETTERS = "abcdefg"  # of the reference's lines; none of them is an instruction of the lists
FAMILIES = "ACL"  # paths have no operations to be worked out
MARKS = dict(zip(("V", "!f", "!i", "!d", "!e", "!a"), Verdict, strict=True))
MARK_OF = {verdict: mark for mark, verdict in MARKS.items()}
BESIDE, BEGIN = "|", "#"
UNKNOWN = "_"
FORM = re.compile(
    r"([\d_]):(\d*)((?:[-+*]\d+=(?:\d+|_))*|(?:[rsxlih](?:\d+|_))*)(?:/(\d+))?"
    r"(?:<([\d ]*)((?:[-+*]\d+)*)(?:>(\d+))?)?([a-g]*)(V|![fidea])"
)
DONE = re.compile(r"([-+*]\d+)=(\d+|_)|([rsxlih])(\d+|_)")


@dataclass(frozen=True)
class Note:
    """What is noted of one line of a candidate.

    premise: the line whose result it goes on from, 0 for the problem, None where there is none. start: the value or
    list that it starts from. operations: `-9` or `r`. values: what each of them gives, worked out anew; None where it
    leaves 0..99. said: the result that the line states. aligned: places of the reference's lines, from 0. left:
    countdown's numbers that are left, and reach: what each operation with the last of them gives, `+37`; None where
    neither is noted. aim: countdown's target, noted where at most one number is left.
    """

    premise: int | None
    start: str
    operations: tuple[str, ...]
    values: tuple[str | None, ...]
    aligned: tuple[int, ...]
    verdict: Verdict
    left: tuple[int, ...] | None = None
    reach: tuple[str, ...] | None = None
    said: str = ""
    aim: str | None = None


def note(prompt: str, reference: str, chain: str) -> list[Note]:
    """The true notes on a finished chain: labels by the exact checker, alignments by operation."""
    verdicts, own = judge(prompt, chain), lines(prompt, chain)
    aligned = align(prompt, reference, chain)
    found = []
    for at, (line, verdict) in enumerate(zip(own, verdicts, strict=True)):
        one = Note(
            _premise(prompt, own, at), line.left, line.operations, line.values, aligned[at], verdict, said=line.said
        )
        if prompt[0] == "C" and verdict in (Verdict.RIGHT, Verdict.DOOMED, Verdict.ENDING):
            left = _left(prompt, own[: at + 1])
            one = replace(one, left=left, reach=_reach(line.said, left) if left and len(left) == 1 else None)
            one = replace(one, aim=prompt[:-1].partition(">")[2] if left is not None and len(left) < 2 else None)
        found.append(one)
    return found


def _premise(prompt: str, own: Sequence[Line], at: int) -> int | None:
    line = own[at]
    if not line.operations:
        return None
    if at == 0 or (prompt[0] == "L" and own[at - 1].said):
        return at if prompt[0] == "L" else _start(prompt, line)
    earlier = [i for i in range(at) if own[i].said == line.left]
    return earlier[-1] + 1 if earlier else _start(prompt, line)


def _start(prompt: str, line: Line) -> int | None:
    """0 where the line goes on from the problem itself."""
    if prompt[0] == "C":
        return 0 if line.left in re.findall(r"\d+", prompt.partition(">")[0]) else None
    return 0 if re.match(r"A(\d+)", prompt)[1] == line.left else None  # type: ignore[index]


def _left(prompt: str, own: Sequence[Line]) -> tuple[int, ...] | None:
    """Countdown's numbers that these lines have left; None where one was used that was not there."""
    left = sorted(map(int, re.findall(r"\d+", prompt.partition(">")[0])))
    for used in (own[0].left, *(operation[1:] for line in own for operation in line.operations)):
        if int(used) not in left:
            return None
        left.remove(int(used))
    return tuple(left)


def _reach(said: str, left: tuple[int, ...]) -> tuple[str, ...]:
    values = {operator: apply(int(said), operator, left[0]) for operator in OPERATORS}
    return tuple(f"{operator}{value}" for operator, value in values.items() if value is not None)


def align(prompt: str, reference: str, chain: str) -> list[tuple[int, ...]]:
    """For each line of `chain` the reference's lines with the same operations, each used at most once.

    In countdown the first operation of either may stand in either order; elsewhere an operation is its sign and its
    number, or its instruction. A line that takes another way is aligned with nothing.
    """
    free = [(place, line) for place, line in enumerate(lines(prompt, reference))]
    found = []
    for at, line in enumerate(lines(prompt, chain)):
        mine = []
        for i, operation in enumerate(line.operations):
            opening = line.left if prompt[0] == "C" and at == i == 0 else None
            same = (place for place, one in free if _same(one, place, operation, opening))
            place = next(same, None)
            if place is not None:
                mine.append(place)
                free = [pair for pair in free if pair[0] != place]
        found.append(tuple(sorted(mine)))
    return found


def _same(one: Line, place: int, operation: str, opening: str | None) -> bool:
    """Whether a reference line does this operation; `opening`: the number a countdown's first operation is done to."""
    if one.operations[:1] == (operation,):
        return True
    turned = operation[0] in "+*" and opening is not None and place == 0
    return turned and (one.left, one.operations[0]) == (operation[1:], f"{operation[0]}{opening}")


def asked(prompt: str, reference: str | None, chain: str) -> str:
    """What an annotator reads: the problem, the reference's lines lettered, the candidate's numbered."""
    shown = [f"{LETTERS[i]}{text}" for i, (text, _) in enumerate(split(reference))] if reference else []
    numbered = [f"{i}:{text}" for i, (text, _) in enumerate(split(chain), 1)]
    stop = CHAIN_END if CHAIN_END in chain else ""
    return prompt + STEP_END.join(shown) + BESIDE + STEP_END.join(numbered) + stop + BEGIN


def write(notes: Sequence[Note], explained: bool = True) -> str:
    """The notes as text, a line each; not `explained`, verdicts alone."""
    out = []
    for one in notes:
        text = ""
        if explained:
            equal = "" if one.operations and one.operations[0].isalpha() else "="
            text = f"{UNKNOWN if one.premise is None else one.premise}:{one.start}"
            for operation, value in zip(one.operations, one.values, strict=True):
                text += f"{operation}{equal}{UNKNOWN if value is None else value}"
            text += f"/{one.said}" if one.said else ""
            if one.left is not None:
                text += "<" + " ".join(map(str, one.left))
            text += "".join(one.reach or ()) + (f">{one.aim}" if one.aim else "")
            text += "".join(LETTERS[i] for i in one.aligned)
        out.append(text + MARK_OF[one.verdict])
    return STEP_END.join(out) + CHAIN_END


def read(text: str, steps: int) -> list[Note | None]:
    """The notes on a chain of `steps` lines as an annotator wrote them; None where a line is missing or unreadable.

    The n-th line is taken for the n-th step's; what follows the full stop is dropped, and so are lines beyond the last
    step. Where only verdicts were asked for, the other fields are empty.
    """
    found = [_note(line) for line in text.partition(CHAIN_END)[0].split(STEP_END)[:steps]]
    return found + [None] * (steps - len(found))


def _note(line: str) -> Note | None:
    if line in MARKS:
        return Note(None, "", (), (), (), MARKS[line])
    match = FORM.fullmatch(line)
    if match is None:
        return None
    done = [(a or c, b or d) for a, b, c, d in DONE.findall(match[3])]
    return Note(
        premise=None if match[1] == UNKNOWN else int(match[1]),
        start=match[2],
        operations=tuple(operation for operation, _ in done),
        values=tuple(None if value == UNKNOWN else value for _, value in done),
        said=match[4] or "",
        left=None if match[5] is None else tuple(map(int, match[5].split())),
        reach=tuple(re.findall(r"[-+*]\d+", match[6])) if match[6] else None,
        aim=match[7],
        aligned=tuple(LETTERS.index(c) for c in match[8]),
        verdict=MARKS[match[9]],
    )


def readable(prompt: str) -> bool:
    """Whether notes exist for this problem's family."""
    return family_of(prompt).letter in FAMILIES
