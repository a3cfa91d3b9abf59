"""How is a line of reasoning begun again from what is known so far? The editor of `search.infty_think`, and the forms
in which a model is asked for a round, and told what came before it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.ledger import Limit
from anystep.process import Process, Status, Stepped, Until

Prompt = Any  # text or chat messages, as the process takes them


class Rounds(Protocol):
    """A form of rounds.

    longest: the most characters of a summary that the next round is given. end: texts that end a round, beside the
    model's own end.
    """

    @property
    def longest(self) -> int: ...
    @property
    def end(self) -> tuple[str, ...]: ...

    def prompt(self, question: str, summary: str | None) -> Prompt:
        """What a round is asked; summary is None in the first one."""
        ...

    def concluded(self, said: str) -> bool:
        """Whether a round's output ends the reasoning."""
        ...

    def summary(self, prompt: str, said: str) -> str | None:
        """What the next round is told, from this round's prompt and output; None where it was cut before that."""
        ...


@dataclass(frozen=True)
class Terse:
    """The form of the small models of `language.train.rounds`: `question<summary>` is asked, and a round says its steps
    and then either `<summary>`, or a full stop at the end of the last step."""

    longest: int = 16
    end: tuple[str, ...] = (">",)

    def prompt(self, question: str, summary: str | None) -> str:
        return question if summary is None else f"{question}<{summary}>"

    def concluded(self, said: str) -> bool:
        return "." in said

    def summary(self, prompt: str, said: str) -> str | None:
        found = re.search(r"<(.*?)>", said, re.DOTALL)
        return found[1] if found else None


@dataclass(frozen=True)
class Sliding:
    """Truncation, in place of a summary: a window that slides over one long text behind the question. A round is one
    line, and the next one is given the last `lines` lines word for word: what a model of a bounded window sees of a
    text without rounds. The question ends with its question mark."""

    lines: int = 7
    longest: int = 1 << 20
    end: tuple[str, ...] = ("\n",)

    def prompt(self, question: str, summary: str | None) -> str:
        return question + (summary or "")

    def concluded(self, said: str) -> bool:
        return "." in said

    def summary(self, prompt: str, said: str) -> str | None:
        if not said.endswith("\n"):
            return None
        seen = prompt.partition("?")[2] + said
        return "".join(line + "\n" for line in seen.split("\n")[:-1][-self.lines :])


@dataclass(frozen=True)
class Told:
    """The form for models that follow instructions: each round is told in words to go on from the progress so far.

    words: about how much a round may write. A summary stands between `<summary>` and `</summary>`, and an output that
    has none, but says `conclusion`, is the last. Prompts are chat messages.
    """

    words: int = 150
    longest: int = 1_200
    conclusion: str = "The answer is"
    end: tuple[str, ...] = ("</summary>",)

    def prompt(self, question: str, summary: str | None) -> list[dict[str, str]]:
        so_far = "" if summary is None else f"\n\nProgress so far:\n{summary}"
        ask = (
            f"{question}{so_far}\n\nGo on from {'the beginning' if summary is None else 'the progress so far'} in at "
            f"most {self.words} words. If you reach the answer, end with: {self.conclusion} ... . If you do not, end "
            "with the key steps and results so far, old and new, between <summary> and </summary>."
        )
        return [{"role": "user", "content": ask}]

    def concluded(self, said: str) -> bool:
        return "<summary>" not in said and self.conclusion.lower() in said.lower()

    def summary(self, prompt: str, said: str) -> str | None:
        found = re.search(r"<summary>(.*?)</summary>", said, re.DOTALL)
        return found[1].strip() if found else None


def in_rounds(model: Any, question: str, form: Rounds | None = None, **options: Any) -> tuple[Process, Restart]:
    """The process of a question's first round, and the editor that begins the next ones.

        process, restart = in_rounds(engine, "V*3+7:17#40?", max_tokens=98)
        drive(Run(process, search.infty_think(restart, rounds=10)))

    model: an engine, an endpoint or its URL. options: those of its process; `max_tokens` is the longest output of one
    round, its summary included.
    """
    from anystep.language.endpoint import Endpoint, EndpointProcess

    form = form or Terse()
    options = {"unit": "completion", "end": form.end, "at_cap": "done", **options}
    process: Any
    if isinstance(model, (str, Endpoint)):
        process = EndpointProcess(model, form.prompt(question, None), **options)
    else:
        from anystep.language.process import LanguageProcess  # imported late: an endpoint needs no torch

        process = LanguageProcess(model, form.prompt(question, None), **options)
    return process, Restart(process, question, form)


class Restart(Process):
    """Begins the next round of `process` on `question`: what `search.infty_think` steps its states by.

    A round that concluded becomes done, one with a summary becomes the question with that summary (its first
    `form.longest` characters, so that no state grows), and one that was cut before its summary becomes what it was
    begun from. Free: nothing is computed here, the next round pays for its prompt. The process must leave a round that
    reached its cap done, `at_cap="done"`; one that fails is not drawn again.

    process: a `LanguageProcess` or an endpoint's, made for `form.prompt(question, None)`.
    """

    logp = "mass"
    horizon = 1
    branches = False

    def __init__(self, process: Any, question: str, form: Rounds | None = None, name: str = "restart") -> None:
        if not hasattr(process, "opening"):
            raise UsageError(
                f"Restart({process!r}): rounds are begun anew on language states; call Restart(LanguageProcess(engine, "
                "form.prompt(question, None)), question, form)."
            )
        self.process, self.question, self.form, self.name = process, question, form or Terse(), name

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.process.start(keys, limit)

    def step(self, states: Any, keys: Keys, limit: Limit, until: Until) -> Stepped:
        n = len(states)
        said, status = states.texts(), np.full(n, Status.LIVE, dtype=np.int8)
        rows, errors = [], dict[int, str]()
        for i, prompt in enumerate(states.prompts()):
            row = states.take(np.array([i]))
            if self.form.concluded(said[i]):
                status[i] = Status.DONE
            else:
                summary = self.form.summary(prompt, said[i])
                try:
                    row = row.unsaid() if summary is None else self.begun(summary)
                except UsageError as error:  # a summary that leaves no room is this row's failure alone
                    status[i], errors[i] = Status.FAILED, str(error)
            rows.append(row)
        return Stepped(rows[0].join(*rows[1:]), status, np.zeros(n), np.zeros(n), limit.used, errors=errors)

    def begun(self, summary: str) -> Any:
        """The state that knows the question and a summary, its first `longest` characters."""
        return self.process.opening(self.form.prompt(self.question, summary[: self.form.longest]))

    def answers(self, states: Any) -> tuple[Hashable, ...]:
        return tuple(self.process.answers(states))

    def texts(self, states: Any) -> tuple[str, ...]:
        return tuple(self.process.texts(states))

    def forget(self) -> None:
        self.process.forget()

    def settings(self) -> str:
        return f"{self.form!r} of {self.process.settings()}"

    def dump(self, states: Any) -> bytes:
        return bytes(self.process.dump(states))

    def load(self, data: bytes) -> Any:
        return self.process.load(data)
