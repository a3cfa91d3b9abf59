"""How problems of induction are written: lists, what became of them, and behind a bar a rule that was tried.

`L9271;3012>1729_;2103_?` asks for a rule; `L9271;3012>1729_;2103_|s|9271>1729!1279?` for a better one than `s`, which
makes 1279 of 9271 where 1729 was wanted; `P9271;3012;4456>1729_;2103_?` for what becomes of the last list too;
`As,t2|9271;3012?` for what the rule `s,t2` makes of two. Outputs are as wide as the widest, so that every digit stands
where a model of a few layers can learn to look for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from anystep.tasks.rules.meaning import Digits, Rule, parse, read, written

ASK, DIRECT, APPLY, END = "L", "P", "A", "."
SEPARATOR, BECOMES, FILL, WIDTH = ";", ">", "_", 5
TOLD = 3  # failures that a request for a better rule shows


def wide(x: Digits | None) -> str:
    """A list as text, `WIDTH` characters wide."""
    return written(x).ljust(WIDTH, FILL)


def asked(examples: Sequence[tuple[Digits, Digits]], inputs: Sequence[Digits] = (), ask: str = ASK) -> str:
    """The request for a rule; with `inputs` and `ask=DIRECT` for what becomes of them."""
    lists = SEPARATOR.join(written(x) for x in (*(x for x, _ in examples), *inputs))
    return f"{ask}{lists}{BECOMES}{SEPARATOR.join(wide(y) for _, y in examples)}?"


def applying(rule: str, inputs: Sequence[Digits]) -> str:
    """The request to apply a rule."""
    return f"{APPLY}{rule}|{';'.join(map(written, inputs))}?"


def examples_of(prompt: str) -> list[tuple[Digits, Digits]]:
    """The examples that a request shows, first or revised."""
    before, _, after = prompt[1:].rstrip("?").partition("|")[0].partition(BECOMES)
    pairs = zip(before.split(SEPARATOR), after.split(SEPARATOR), strict=False)
    return [(read(x) or (), read(y.rstrip(FILL)) or ()) for x, y in pairs]


def revised(prompt: str, text: str, failures: bool = True) -> str:
    """The request for a better rule than the one in `text`, which answered `prompt`.

    failures: whether to tell the first examples that it gets wrong, each with what was wanted and what came of it.
    """
    said = text.partition(END)[0]
    base = prompt.rstrip("?").partition("|")[0]
    rule = parse(said)
    told = said if rule is not None else "/"
    if not failures:
        return f"{base}|{told}?"
    wrong = [
        f"{written(x)}>{written(y)}!{written(rule.apply(x) if rule else None)}"
        for x, y in examples_of(prompt)
        if rule is None or rule.apply(x) != y
    ]
    return f"{base}|{told}|{';'.join(wrong[:TOLD])}?"


def unfailing(prompt: str, text: str) -> str:
    """The ablation: the request for a better rule that does not say where the last one failed."""
    return revised(prompt, text, failures=False)


def rule_of(text: str) -> Rule | None:
    """The rule in a finished text."""
    said, end, _ = text.partition(END)
    return parse(said) if end else None


def outputs_of(text: str) -> list[Digits | None] | None:
    """The lists in a finished text."""
    said, end, _ = text.partition(END)
    return [read(part.rstrip(FILL)) for part in said.split(SEPARATOR)] if end else None
