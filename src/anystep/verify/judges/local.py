"""A model that runs here as a judge: what asks share is read once, and what was given to it can never end its turn."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.language import LanguageProcess, Sequences
from anystep.language.engine.engine import Engine
from anystep.language.engine.plain import Plain
from anystep.language.engine.sampling import distribution
from anystep.language.prefill import opened, portions
from anystep.ledger import Cost, Ledger, Limit, Rows
from anystep.process import Floats, Status
from anystep.verify.judges.asking import Replies, Weighed, quiet
from anystep.verify.judges.given import Ask, Given
from anystep.verify.judges.scale import Scale, forms

TURNS = ("<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<s>", "</s>")
PLACE = "anystep:given:{}:"  # stands for a given text while the template is filled in


class Local:
    """An engine that is asked; see `Asked`."""

    remote = False

    def __init__(self, engine: Engine, name: str, chat: bool | None = None) -> None:
        self.own, self.name = engine, name
        self.chat: bool | None = engine.tokenizer.template is not None if chat is None else chat
        if self.chat and engine.tokenizer.template is None:
            raise UsageError(f"{engine.name} has no chat template: judge(model, chat=False) asks it in plain text.")
        self.framed = functools.lru_cache(maxsize=64)(self._framed)
        self.labelled = functools.lru_cache(maxsize=64)(self._labelled)
        words: Any = engine.tokenizer  # told apart by identity
        self.plain = _plain(words, frozenset(self._turns()))

    def weigh(self, asks: Sequence[Ask], begun: str, scale: Scale, limit: Limit, rows: Rows) -> Weighed:
        written, errors = self._written(asks, begun)
        fit = np.array([i for i in range(len(asks)) if i not in errors], np.int64)
        mass = np.full((len(asks), len(scale.labels)), np.nan)
        if len(fit):
            mass[fit] = self.read([written[i] for i in fit.tolist()], scale, limit, rows[fit])
        return Weighed(mass, errors)

    def read(self, sequences: Sequence[tuple[int, ...]], scale: Scale, limit: Limit, rows: Rows) -> Floats:
        """(n, labels): the probability that each sequence goes on with each label; NaN where the limit refused.

        One prefill of what the cache lacks, no sampling: prompt tokens on the ledger."""
        engine, ids = self.own, self.labelled(scale)
        mass = np.full((len(sequences), len(scale.labels)), np.nan)
        look = Cost(flops=engine.flops(0, 0, heads=1))
        with engine.lock:
            for some in portions(engine, sequences):
                paid, session = opened(engine, [sequences[i] for i in some.tolist()], limit, look, rows=rows[some])
                if session is not None:
                    with session:
                        p = distribution(session.logits(), 1.0)
                    mass[some[paid]] = np.stack([p[:, own].sum(-1) for own in ids], -1)
        return mass

    def say(
        self, asks: Sequence[Ask], begun: str, keys: Keys, temperature: float, most: int, limit: Limit, rows: Rows
    ) -> Replies:
        written, errors = self._written(asks, begun, most)
        k = keys.shape[1]
        fit = [i for i in range(len(asks)) if i not in errors]
        texts: list[tuple[str, ...] | None] = [None] * len(asks)
        if fit:
            end = () if self.chat else ("\n\n",)
            process = LanguageProcess(
                self.own, "?", unit="completion", temperature=temperature, max_tokens=most, end=end, chat=False
            )
            tokens = tuple(written[i] for i in fit for _ in range(k))
            states = Sequences(tokens, tuple(map(len, tokens)), self.own.tokenizer)
            places = np.repeat(rows[fit], k)
            stepped = process.step(states, keys[fit].reshape(-1), quiet(limit, places), "done")
            said = process.texts(stepped.states)
            for at, i in enumerate(fit):
                own = range(at * k, at * k + k)
                if all(stepped.status[j] == Status.DONE for j in own):
                    texts[i] = tuple(said[j] for j in own)
        return Replies(tuple(texts), errors)

    def warmed(self, sequences: Sequence[tuple[int, ...]]) -> None:
        """Has the cache hold these sequences, at nobody's cost."""
        engine = self.own
        with engine.lock:
            for some in portions(engine, sequences):
                _, session = opened(engine, [sequences[i] for i in some.tolist()], Limit(Ledger(), self.name))
                if session is not None:
                    session.close()

    def forget(self) -> None:
        with self.own.lock:
            self.own.cache.trim(0)

    def _written(self, asks: Sequence[Ask], begun: str, more: int = 0) -> tuple[list[tuple[int, ...]], dict[int, str]]:
        """Each ask in tokens, and which do not fit the context with `more` behind them, or cannot be written."""
        written, errors = [], dict[int, str]()
        for i, ask in enumerate(asks):
            frame = self.framed(_words(ask), begun)
            try:
                written.append(self._filled(frame, ask))
            except UsageError as error:
                written.append(())
                errors[i] = str(error)
                continue
            size, room = len(written[-1]), self.own.config.context
            if size + more > room:
                errors[i] = (
                    f"{size:,} tokens to read and {more} to write do not fit the {room:,} of {self.own.name}: what is "
                    "not read whole is not judged"
                )
        return written, errors

    def tokens(self, ask: Ask, begun: str) -> tuple[int, ...]:
        """An ask in tokens: the judge's own words with the template's special tokens, what is given as plain text."""
        return self._filled(self.framed(_words(ask), begun), ask)

    def _filled(self, frame: tuple[tuple[int, ...], ...], ask: Ask) -> tuple[int, ...]:
        given = [self.plain.encode(piece.text) for piece in ask if isinstance(piece, Given)]
        found = list(frame[0])
        for text, after in zip(given, frame[1:], strict=True):
            found += [*text, *after]
        return tuple(found)

    def _framed(self, words: tuple[str | None, ...], begun: str) -> tuple[tuple[int, ...], ...]:
        """The tokens before, between and behind the given texts (None)."""
        tokenizer = self.own.tokenizer
        place = PLACE.format("x" * sum(word.count(PLACE[:8]) for word in words if word is not None))
        text = "".join(place if word is None else word for word in words)
        text = tokenizer.chat([{"role": "user", "content": text}]) if self.chat else f"{text}\n\n{begun}"
        parts = text.split(place)
        if len(parts) != 1 + sum(word is None for word in words):
            raise UsageError(
                f"the chat template of {self.own.name} changes what it is given: judge(model, chat=False)."
            )
        try:
            tokens = [tuple(tokenizer.encode(part)) for part in parts]
        except UsageError as error:
            raise UsageError(f"{self.own.name} cannot read a judge's words, so it cannot be one: {error}") from error
        begin = tokenizer.begin
        return (tokens[0] if tokens[0][: len(begin)] == begin else begin + tokens[0], *tokens[1:])

    def _turns(self) -> set[int]:
        """The tokens of turns that the model's file may call words: those of its template, and well-known ones."""
        tokenizer = self.own.tokenizer
        found = set[int]()
        if self.chat:
            bare = tokenizer.encode(tokenizer.chat([{"role": "user", "content": "a"}]))
            names = {token: tokenizer.written(token) for token in bare}
            found = {token for token, name in names.items() if name.startswith(("<", "[")) and len(name) > 2}
        for name in TURNS:
            with contextlib.suppress(UsageError):  # letters that this alphabet lacks
                tokens = tokenizer.encode(name)
                found |= set(tokens) if len(tokens) == 1 else set()
        return found

    def _labelled(self, scale: Scale) -> tuple[list[int], ...]:
        """The tokens that begin each label and no other."""
        ids = [self._beginning(label) for label in scale.labels]
        shared = {t for i, own in enumerate(ids) for t in own if any(t in other for other in ids[:i])}
        found = tuple(sorted(own - shared) for own in ids)
        for label, own in zip(scale.labels, found, strict=True):
            if not own:
                raise UsageError(
                    f"{self.own.name} has no token that begins {label!r} alone; give other labels: scale=..."
                )
        return found

    def _beginning(self, label: str) -> set[int]:
        """The first tokens of the label, however it is cased and whether or not a space stands before it."""
        tokenizer, found = self.own.tokenizer, set[int]()
        for form in forms(label):
            try:
                first = tokenizer.encode(form)[0]
            except UsageError:
                continue  # a letter that this alphabet lacks
            if tokenizer.decode([first]).strip() and first not in self.plain.forbidden:
                found.add(first)
        return found


@functools.lru_cache(maxsize=8)
def _plain(tokenizer: Any, turns: frozenset[int]) -> Plain:
    """Made once for all judges of a model: some vocabularies have thousands of special names."""
    return Plain(tokenizer, turns)


def _words(ask: Ask) -> tuple[str | None, ...]:
    """A judge's own words, None in place of each given text."""
    return tuple(None if isinstance(piece, Given) else piece for piece in ask)
