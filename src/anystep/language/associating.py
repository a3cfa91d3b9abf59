"""What does a partial output call to mind? The step that writes it into the states."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from anystep.errors import UsageError
from anystep.language.editing import Editor
from anystep.language.functions import identity
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences

Recall = Callable[[str, str], Sequence[str]]


class Associating(Editor):
    """What `associating` returns: each step writes what a state calls to mind behind its text."""

    def __init__(self, process: LanguageProcess, recall: Recall, form: str) -> None:
        super().__init__(process, f"{process.name} remembering")
        self.recall, self.form = recall, form

    def told(self, states: Sequences) -> list[tuple[int, ...]]:
        encode, found = self.process.engine.tokenizer.encode, []
        for prompt, text in zip(states.prompts(), self.process.texts(states), strict=True):
            new = [said for said in (self.form.format(fact) for fact in self.recall(prompt, text)) if said not in text]
            found.append(tuple(encode("".join(dict.fromkeys(new)))))
        return found

    def merges(self) -> Hashable:
        return "associating", self.form, self.recall, self.process.merges()

    def settings(self) -> str:
        return f"{identity(self.recall)!r} as {self.form!r} into {self.process.settings()}"


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
