"""How problems of induction are written: examples, and behind a bar a rule that was tried, and what it got wrong.

`I927>729;123>321?` asks for a rule; `I927>729;123>321;45>54|s|927>729!279?` for a better one than `s`, which makes 279
of 927 where 729 was wanted; `O927>729;123>321|45;60?` for what becomes of two more lists; `As,t2|927;604?` for what the
rule `s,t2` makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from anystep.tasks.rules.meaning import Digits, Rule, parse, read, written

ASK, DIRECT, APPLY, END = "L", "P", "A", "."
SEPARATOR = ";"
TOLD = 3  # failures that a request for a better rule shows


def shown(examples: Sequence[tuple[Digits, Digits]]) -> str:
    return SEPARATOR.join(f"{written(x)}>{written(y)}" for x, y in examples)


def asked(examples: Sequence[tuple[Digits, Digits]], inputs: Sequence[Digits] | None = None) -> str:
    """The request for a rule, or with `inputs` for what becomes of them."""
    if inputs is None:
        return f"{ASK}{shown(examples)}?"
    return f"{DIRECT}{shown(examples)}|{';'.join(map(written, inputs))}?"


def applying(rule: str, inputs: Sequence[Digits]) -> str:
    """The request to apply a rule."""
    return f"{APPLY}{rule}|{';'.join(map(written, inputs))}?"


def examples_of(prompt: str) -> list[tuple[Digits, Digits]]:
    """The examples that a request shows, first or revised."""
    body = prompt[1:].rstrip("?").partition("|")[0]
    pairs = [pair.partition(">") for pair in body.split(";")]
    return [(read(x) or (), read(y) or ()) for x, _, y in pairs]


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
    return [read(part) for part in said.split(";")] if end else None
