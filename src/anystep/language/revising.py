"""A process that begins anew from what a model has written: revisers, critics and refiners in a line."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.language.engine.tokenizer import begun
from anystep.language.functions import identity
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Status, Stepped, Until

Rewrite = Callable[[str, str], str]


def revising(process: LanguageProcess, rewrite: Rewrite, name: str | None = None) -> Revising:
    """`process`, on states that are finished: from each one's prompt and text `rewrite` makes a new prompt, which is
    continued as `process` would continue it.

    rewrite(prompt, text): pure, and given the state's own prompt, so that a revision can be revised again. name: what
    its costs are booked under. A prompt that leaves no room in the model's context fails its state.

    Preserves the model's distribution given the new prompt. Raises UsageError for what is not a plain LanguageProcess.
    """
    if type(process) is not LanguageProcess or not callable(rewrite):
        raise UsageError(
            f"revising({process!r:.40}, rewrite) takes a LanguageProcess and a function, as in "
            "revising(process, lambda prompt, text: f'{prompt}{text} Better: ')."
        )
    return Revising(process, rewrite, name)


class Revising(LanguageProcess):
    """What `revising` makes."""

    def __init__(self, process: LanguageProcess, rewrite: Rewrite, name: str | None = None) -> None:
        vars(self).update(vars(process))
        self.rewrite, self.name = rewrite, name or f"{process.name}, revising"

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        states = self.rewritten(states)
        room = np.array([0 < len(tokens) < self.engine.config.context for tokens in states.tokens], bool)
        if room.all():
            return super().step(states, keys, limit, until)
        fits, n = np.flatnonzero(room), len(states)
        status, logp = np.full(n, Status.FAILED, np.int8), np.zeros(n)
        errors = {
            int(row): "its new prompt is empty, or leaves no room in the model's context"
            for row in np.flatnonzero(~room)
        }
        if not len(fits):
            return Stepped(states, status, logp, logp, limit.used, errors=errors)
        made = super().step(states.take(fits), keys[fits], limit.of(fits), until)
        status[fits], logp[fits] = made.status, made.logp
        cut = np.zeros(n, bool)
        cut[fits] = made.cut
        errors |= {int(fits[row]): text for row, text in made.errors.items()}
        joined = made.states.join(states.take(np.flatnonzero(~room)))
        order = np.argsort(np.concatenate([fits, np.flatnonzero(~room)]), kind="stable")
        return Stepped(joined.take(order), status, logp, np.zeros(n), limit.used, cut, errors)

    def rewritten(self, states: Sequences) -> Sequences:
        """The states with those that are finished begun anew; one whose revision was cut is left as it is."""
        status, _ = self.judge(states)
        tokens, starts = list(states.tokens), list(states.starts)
        known: dict[tuple[int, ...], tuple[int, ...]] = {}
        texts = self.texts(states)
        for row, prompt in enumerate(states.prompts()):
            if status[row] != Status.LIVE:
                if states.tokens[row] not in known:
                    new = begun(self.engine.tokenizer, self.rewrite(prompt, texts[row]))
                    known[states.tokens[row]] = tuple(new)
                tokens[row] = known[states.tokens[row]]
                starts[row] = len(tokens[row])
        return Sequences(tuple(tokens), tuple(starts), states.tokenizer)

    def merges(self) -> Hashable:
        return ("revising", self.rewrite, super().merges())

    def settings(self) -> str:
        return f"{super().settings()}, rewritten by {identity(self.rewrite)!r}"
