"""A language model as a process: whole completions, reasoning steps, or single tokens.

Each token is a choice made by inverse distribution at the draw that belongs to (the state's key, the absolute
position), so what else is in the batch, or where a step was cut, changes no token beyond near ties in floating point.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from anystep.errors import UsageError
from anystep.keys import Keys, named
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.engine import Engine
from anystep.language.engine.sampling import distribution
from anystep.language.engine.tokenizer import begun
from anystep.language.going import Going
from anystep.language.joined import Alone
from anystep.language.prefill import opened, portions
from anystep.language.states import Sequences
from anystep.ledger import Cost, Ledger, Limit
from anystep.process import Process, Status, Stepped, Until

Prompt = str | Sequence[Mapping[str, str]]


class LanguageProcess(Process):
    """Continues a prompt with `engine`. Samples exactly from the model's distribution at `temperature` and `top_p`.

    prompt: text, or chat messages. unit: what a step is: a "step" of reasoning (up to and with `stop`), one "token",
    or the whole "completion". end: texts that end a completion beside the model's own end token; they belong to it.
    max_tokens: the longest completion; at_cap says whether one that long is "done" or "failed". extract: reads an
    answer out of a completion's text, None where it gives none; by default the stripped text. chat: whether the
    prompt goes through the model's chat template; by default when it is messages, or the model has a template.
    logprobs: every token is shown as a `states.Piece`, with this many likeliest tokens, also where it adds no text yet.

    Nothing is computed at the start: the prompt is prefilled, and paid, at the first step, once for all rows that
    share it. A state's last token is fed when the next one is wanted.
    """

    logp = "mass"

    def __init__(
        self,
        engine: Engine,
        prompt: Prompt,
        *,
        unit: Literal["step", "token", "completion"] = "step",
        stop: str = "\n\n",
        end: Sequence[str] = (),
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int = 256,
        at_cap: Literal["done", "failed"] = "done",
        extract: Callable[[str], Hashable | None] | None = None,
        chat: bool | None = None,
        name: str | None = None,
        logprobs: int | None = None,
    ) -> None:
        ends = (end,) if isinstance(end, str) else tuple(end) if isinstance(end, Sequence) else (end,)
        _check(unit, stop, ends, temperature, top_p, max_tokens, at_cap)
        self.engine, self.unit, self.stop, self.end = engine, unit, stop, ends
        self.temperature, self.top_p, self.max_tokens, self.at_cap = temperature, top_p, max_tokens, at_cap
        self.extract, self.name, self.horizon, self.chat = extract, name or engine.name, max_tokens, chat
        if logprobs is not None and not 0 <= logprobs <= engine.config.vocab:
            raise UsageError(f"LanguageProcess(logprobs={logprobs!r}): how many likeliest tokens to tell, such as 5.")
        self.logprobs = logprobs
        self.branches, self.expands = temperature > 0, unit == "token"
        self.prompt = self._begun(prompt)
        self.longest = min(max_tokens, engine.config.context - len(self.prompt))

    def opening(self, prompt: Prompt) -> Sequences:
        """One state that begins with another prompt, for an editor that restarts a row; raises as a process does whose
        prompt is empty or too long."""
        tokens = self._begun(prompt)
        return Sequences((tokens,), (len(tokens),), self.engine.tokenizer)

    def _begun(self, prompt: Prompt) -> tuple[int, ...]:
        tokens = begun(self.engine.tokenizer, self._written(prompt, self.chat))
        if not tokens:
            raise UsageError("An empty prompt cannot be continued: LanguageProcess(engine, 'What is 2 + 2?').")
        if len(tokens) >= self.engine.config.context:
            raise UsageError(
                f"The prompt has {len(tokens):,} tokens, and {self.engine.name} reads {self.engine.config.context:,} "
                "with its answer: shorten the prompt."
            )
        return tokens

    def _written(self, prompt: Prompt, chat: bool | None) -> str:
        """The prompt as the text the model reads."""
        tokenizer = self.engine.tokenizer
        if isinstance(prompt, str):
            if chat or (chat is None and tokenizer.template is not None):
                return tokenizer.chat([{"role": "user", "content": prompt}]) if prompt else ""
            return prompt
        if not isinstance(prompt, (list, tuple)) or not prompt or not all(isinstance(m, Mapping) for m in prompt):
            raise UsageError(
                f"{prompt!r:.60} is no prompt: give text, or messages such as [{{'role': 'user', 'content': 'Hello'}}]."
            )
        if chat is False:
            raise UsageError("chat=False reads plain text: give the prompt as a string, not as messages.")
        return tokenizer.chat(prompt)

    def start(self, keys: Keys, limit: Limit) -> Stepped:
        n = len(keys)
        states = Sequences((self.prompt,) * n, (len(self.prompt),) * n, self.engine.tokenizer)
        return Stepped(states, np.zeros(n, np.int8), np.zeros(n), np.zeros(n), limit.used)

    def step(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Stepped:
        with self.engine.lock:
            return self.going(states, keys, limit, until).run()

    def going(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Going:
        """One call of `step`, ready to run."""
        return Alone(self, states, keys, limit, until)

    def expand(self, states: Sequences, k: int, keys: Keys, limit: Limit) -> Stepped:
        """The k likeliest next tokens of every state that could be paid for; logp is theirs at this temperature (at
        temperature 1 where it is 0). A state that was refused is its own only child, live and cut."""
        best: dict[int, list[tuple[int, float]]] = {}
        with self.engine.lock:
            for some in portions(self.engine, states.tokens):
                rows, session = self.opened(states, limit, self.drawn(k), some)
                if session is not None:
                    with session:
                        p = distribution(session.logits(), self.temperature or 1.0, self.top_p)
                    top = np.argsort(-p, -1, kind="stable")[:, :k].tolist()
                    for row, tokens, mass in zip(rows.tolist(), top, p, strict=True):
                        best[row] = [(t, float(np.log(mass[t]))) for t in tokens if mass[t] > 0]
        children: list[tuple[int, int | None, float]] = []
        for row in range(len(states)):
            children += [(row, t, logp) for t, logp in best[row]] if row in best else [(row, None, 0.0)]
        parent = np.array([row for row, _, _ in children], np.int64)
        old = states.take(parent)
        tokens = tuple(t if new is None else (*t, new) for t, (_, new, _) in zip(old.tokens, children, strict=True))
        states = old.written(tokens, self.name)
        cut = np.array([new is None for _, new, _ in children])
        status, errors = self.judge(states)
        logp = np.array([logp for _, _, logp in children])
        return Stepped(states, status, logp, np.zeros(len(logp)), limit.used, cut, errors, parent)

    def drawn(self, tokens: int) -> Cost:
        """What choosing `tokens` next tokens costs where the last position has been computed: one product."""
        return Cost(generated=tokens, flops=self.engine.flops(0, 0, heads=1))

    def opened(
        self, states: Sequences, limit: Limit, each: Cost, some: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Decoding | None]:
        """Of the rows `some`, pays for what they lack in the cache, and `each` beside it, then computes it for those
        who could pay: which they are, and their session."""
        chosen = states.take(some)
        left, session = opened(self.engine, chosen.tokens, limit, each, chosen.drawn(self.name), some)
        return some[left], session

    def judge(self, states: Sequences) -> tuple[NDArray[np.int8], dict[int, str]]:
        """Each state's status by its content: at an end it is done, at the cap what `at_cap` says."""
        ends, status, errors = self.engine.tokenizer.ends, np.zeros(len(states), np.int8), {}
        outputs = states.outputs()
        texts = states.texts() if self.end else ("",) * len(states)
        for row, (out, text) in enumerate(zip(outputs, texts, strict=True)):
            room = self.engine.config.context - states.starts[row]
            if out and (out[-1] in ends or any(end in text for end in self.end)):
                status[row] = Status.DONE
            elif len(out) >= min(self.max_tokens, room):
                status[row] = Status.DONE if self.at_cap == "done" else Status.FAILED
                if self.at_cap == "failed":
                    cap = f"max_tokens={self.max_tokens}" if self.max_tokens <= room else "the end of the context"
                    errors[row] = f"reached {cap} without an end"
        return status, errors

    def texts(self, states: Sequences) -> tuple[str, ...]:
        """Each completion's text, up to and with the first `end` in it."""
        return tuple(self._trimmed(text) for text in states.texts())

    def _trimmed(self, text: str) -> str:
        found = [text.index(end) + len(end) for end in self.end if end in text]
        return text[: min(found)] if found else text

    def answers(self, states: Sequences) -> tuple[Hashable, ...]:
        read = self.extract or str.strip
        return tuple(read(text) for text in self.texts(states))

    def merges(self) -> Hashable:
        """Prompts of different problems share a batch, as long as they are continued by the same rules."""
        rules = (self.unit, self.stop, self.end, self.temperature, self.top_p, self.max_tokens, self.at_cap)
        return ("language", id(self.engine), self.logprobs, *rules)

    def forget(self) -> None:
        """Empties the prefix cache, so that the next run pays for its own prompts."""
        with self.engine.lock:
            self.engine.cache.trim(0)

    def warm(self, states: Sequences) -> None:
        """Prefills what had been fed: all but a state's last token, and nothing of a state that has not begun."""
        fed = [tokens[:-1] for tokens, start in zip(states.tokens, states.starts, strict=True) if len(tokens) > start]
        with self.engine.lock:
            for some in portions(self.engine, fed):
                _, session = opened(self.engine, [fed[i] for i in some.tolist()], Limit(Ledger(), self.name))
                if session is not None:
                    session.close()

    def settings(self) -> str:
        reads = getattr(self.extract, "__qualname__", None)
        rules = (self.unit, self.stop, self.end, self.temperature, self.top_p, self.max_tokens, self.at_cap, reads)
        return f"prompt {named(str(self.prompt)):016x}, {rules}"

    def dump(self, states: Sequences) -> bytes:
        return states.dump()

    def load(self, data: bytes) -> Sequences:
        return Sequences.read(data, self.engine.tokenizer, self.engine.config.vocab)


def _check(
    unit: str, stop: str, ends: tuple[str, ...], temperature: float, top_p: float, max_tokens: int, at_cap: str
) -> None:
    """UsageError for an option that cannot be meant."""
    if unit not in ("step", "token", "completion"):
        raise UsageError(f"LanguageProcess(unit={unit!r}): a unit is 'step', 'token' or 'completion'.")
    if not all(isinstance(text, str) and text for text in (stop, *ends)):
        raise UsageError("LanguageProcess(stop='\\n\\n', end=('.',)): each is a text, and not empty.")
    if not _number(temperature) or not 0 <= temperature < np.inf:
        raise UsageError(f"LanguageProcess(temperature={temperature!r}): 0 (greedy) or more, such as 0.8.")
    if not _number(top_p) or not 0 < top_p <= 1:
        raise UsageError(f"LanguageProcess(top_p={top_p!r}): above 0 and at most 1, such as 0.95.")
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise UsageError(f"LanguageProcess(max_tokens={max_tokens!r}): a positive whole number, such as 256.")
    if at_cap not in ("done", "failed"):
        raise UsageError(f"LanguageProcess(at_cap={at_cap!r}): 'done' or 'failed'.")


def _number(x: object) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)
