"""What does a partial output call to mind? The step that writes it into the states, and how well it fits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Process, Stepped, Until

Recall = Callable[[str, str], Sequence[str]]


class Associating(Process):
    """What `associating` returns: each step writes what a state calls to mind behind its text."""

    logp = "mass"
    horizon = 1
    branches = False

    def __init__(self, process: LanguageProcess, recall: Recall, form: str) -> None:
        self.process, self.recall, self.form = process, recall, form
        self.name = f"{process.name} remembering"

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.process.start(keys, limit)

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        encode, told = self.process.engine.tokenizer.encode, []
        for tokens, prompt, text in zip(states.tokens, states.prompts(), self.process.texts(states), strict=True):
            new = [said for said in (self.form.format(fact) for fact in self.recall(prompt, text)) if said not in text]
            told.append((*tokens, *encode("".join(dict.fromkeys(new)))))
        longer = replace(states, tokens=tuple(told))
        status, errors = self.process.judge(longer)
        zeros = np.zeros(len(states))
        return Stepped(longer, status, zeros, zeros, limit.used, errors=errors)

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.process.answers(states)

    def texts(self, states: Sequences) -> tuple[str, ...]:
        return self.process.texts(states)

    def merges(self) -> Hashable:
        return "associating", self.form, self.recall, self.process.merges()

    def settings(self) -> str:
        return f"{getattr(self.recall, '__qualname__', self.recall)!r} as {self.form!r} into {self.process.settings()}"

    def dump(self, states: Sequences) -> bytes:
        return self.process.dump(states)

    def load(self, data: bytes) -> Sequences:
        return self.process.load(data)


def associating(process: LanguageProcess, recall: Recall, form: str = "({})") -> Associating:
    """The process that `search.coat` remembers by: what `recall(prompt, text)` finds is written behind a state's text.

    recall: pure, and free: a lookup in a base of facts, best first. form: how a fact is written, `{}` in its place; one
    that already stands in the text, because an ancestor remembered it, is left out. It costs what reading it costs: the
    next step of `process` pays for it as prompt tokens. Raises UsageError for a form without a place for the fact.
    """
    if not isinstance(process, LanguageProcess) or "{}" not in form:
        raise UsageError(
            f"associating({process!r:.40}, recall, form={form!r}): a LanguageProcess, and a form such as '({{}})'."
        )
    return Associating(process, recall, form)
