"""How does a model that is in the middle of an answer get another prompt? The templates of `search.adaptive_prompt`."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from anystep.errors import Unsupported, UsageError
from anystep.keys import Keys, named
from anystep.language.process import LanguageProcess, Prompt
from anystep.language.states import Sequences
from anystep.ledger import Limit
from anystep.process import Process, Stepped, Until


class Reprompting(Process):
    """Each step puts `prompt` in the place of a state's own, before what has been written; it never ends a state.

    Free by itself: the next step of `process` reads the new prompt and what stands behind it, and pays for both, as
    prompt tokens, but for what its cache knows. A state that has this prompt stays as it is. What leaves no room in the
    model's context ends the state there, as `process` would.
    """

    logp = "mass"
    branches = False

    def __init__(self, process: LanguageProcess, prompt: Prompt, name: str) -> None:
        self.process, self.name = process, name
        (self.prompt,) = process.opening(prompt).tokens

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        return self.process.start(keys, limit)

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        if until != "step":
            raise Unsupported(f"{self.name} never ends by itself: step(population, by=it), then the model's.")
        tokens, starts, writers = list(states.tokens), list(states.starts), list(states.writers)
        for row, output in enumerate(states.outputs()):
            if tokens[row][: starts[row]] != self.prompt:
                tokens[row], starts[row] = self.prompt + output, len(self.prompt)
                writers[row] = (
                    ((self.name, len(self.prompt)),) if output else ()
                )  # the model has not read it behind this
        told = Sequences(tuple(tokens), tuple(starts), states.tokenizer, tuple(writers))
        status, errors = self.process.judge(told)
        zeros = np.zeros(len(states))
        return Stepped(told, status, zeros, zeros, limit.used, errors=errors)

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        return self.process.answers(states)

    def texts(self, states: Sequences) -> tuple[str, ...]:
        return self.process.texts(states)

    def merges(self) -> Hashable:
        return "reprompting", self.prompt, self.process.merges()

    def settings(self) -> str:
        return f"prompt {named(str(self.prompt)):016x} in the place of that of {self.process.settings()}"

    def dump(self, states: Sequences) -> bytes:
        return self.process.dump(states)

    def load(self, data: bytes) -> Sequences:
        return self.process.load(data)


def reprompting(process: LanguageProcess, *prompts: Prompt) -> tuple[Reprompting, ...]:
    """A template for each prompt, on the states of `process`: what `search.adaptive_prompt` steps its states by.

        process = LanguageProcess(engine, "821+376-95?", stop="\\n", end=".")
        templates = reprompting(process, "821+376-95?s", "821+376-95?g", "821+376-95?d")
        drive(Run(process, search.adaptive_prompt(templates, check)))

    prompts: as the process takes them, text or chat messages: the same question, from the briefest template to the one
    with the most guidance. Raises UsageError for no prompts, empty or too long ones, and other processes.
    """
    if not isinstance(process, LanguageProcess) or not prompts:
        raise UsageError(
            f"reprompting({process!r:.40}, {len(prompts)} prompts): a LanguageProcess and its prompts, as in "
            "reprompting(process, 'What is 2 + 2?', 'What is 2 + 2? Think step by step.')."
        )
    return tuple(Reprompting(process, prompt, f"{process.name}, template {i}") for i, prompt in enumerate(prompts, 1))
