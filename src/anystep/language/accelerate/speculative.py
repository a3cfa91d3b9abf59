"""Speculation: several tokens a pass, guessed by a drafter and verified by the model itself.

A round feeds each row's last token with a tree of guesses behind it, in one pass under a tree mask; the verifier says
how far the row goes along the tree, and what comes after. At least one token comes of each round, as of each pass of
plain decoding. Sources: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023); Miao et
al., "SpecInfer" (2024) for trees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anystep.errors import UsageError
from anystep.keys import Keys
from anystep.language.accelerate.drafts import Draft, Drafter, Drafting, Job, Want
from anystep.language.accelerate.thrift import Books, Thrift
from anystep.language.accelerate.verify import Follow, Place, Verdict, Verifier
from anystep.language.engine.decoding import Decoding
from anystep.language.engine.sampling import alternatives
from anystep.language.going import Going, Told
from anystep.language.prefill import opened
from anystep.language.process import LanguageProcess
from anystep.language.states import Sequences
from anystep.ledger import Cost, Limit
from anystep.process import Stepped, Until

NONE = Draft()


def speculate(
    process: LanguageProcess, drafter: Drafter, verifier: Verifier | None = None, thrift: Thrift | None = None
) -> Speculative:
    """`process` in fewer passes: `drafter` guesses, the model verifies. The same states, steps, keys and answers.

    Preserves, under the default verifier (`Follow`), plain decoding's output token for token at any temperature, near
    ties in floating point excepted; under `Reject` the distribution exactly; under others what they say. What it costs
    is paid as it is: every node shown is an evaluation, whether accepted or not, and only kept tokens are generated.
    thrift: how much is drafted; by default never more than 10% above the cost of plain decoding, by a table of costs.

    Raises UsageError for what is not a plain LanguageProcess.
    """
    return Speculative(process, drafter, verifier or Follow(), thrift or Thrift())


class Speculative(LanguageProcess):
    """What `speculate` makes. `rounds` counts what came of it: passes, nodes shown, nodes accepted, tokens."""

    def __init__(self, process: LanguageProcess, drafter: Drafter, verifier: Verifier, thrift: Thrift) -> None:
        if type(process) is not LanguageProcess:
            raise UsageError(
                f"speculate({process!r:.40}, drafter) takes a LanguageProcess, as in speculate(LanguageProcess(engine, "
                "'What is 2 + 2?'), TrieLookahead())."
            )
        if not isinstance(drafter, Drafter) or not isinstance(verifier, Verifier) or not isinstance(thrift, Thrift):
            raise UsageError(
                "speculate(process, drafter, verifier, thrift), as in speculate(process, TrieLookahead())."
            )
        if not process.engine.config.layers:
            raise UsageError(f"{process.engine.name} is run whole, without a cache: it cannot be shown several tokens.")
        vars(self).update(vars(process))
        self.drafter, self.verifier, self.thrift = drafter, verifier, thrift
        self.rounds = Rounds()

    def going(self, states: Sequences, keys: Keys, limit: Limit, until: Until) -> Going:
        return Speculating(self, states, keys, limit, until)

    def merges(self) -> Hashable:
        return (*super().merges(), id(self.drafter), self.verifier, self.thrift)  # type: ignore[misc]

    def forget(self) -> None:
        super().forget()
        self.drafter.forget()

    def settings(self) -> str:
        return f"{super().settings()}, {self.drafter!r}, {self.verifier!r}, {self.thrift!r}"


@dataclass
class Rounds:
    """What speculation has done: rows a round are counted each. `tokens` / `looks` is tokens a target pass and row."""

    looks: int = 0
    shown: int = 0
    accepted: int = 0
    tokens: int = 0


@dataclass
class Speculating(Going):
    """One call of `step`: rounds of drafting and verifying; rows emit what was verified as plain decoding would."""

    process: Speculative
    place: dict[int, int] = field(init=False)  # of each row in the session
    drafting: Drafting = field(init=False)
    books: dict[int, Books] = field(init=False)
    ready: dict[int, deque[tuple[int, float, Told | None]]] = field(init=False)  # verified, and not yet emitted

    def run(self) -> Stepped:
        begun = [len(tokens) > start for tokens, start in zip(self.tokens, self.states.starts, strict=True)]
        fed = [tokens[:-1] if b else tokens for tokens, b in zip(self.tokens, begun, strict=True)]
        rows, session = opened(self.process.engine, fed, self.limit)
        self.cut[np.setdiff1d(self.rows, rows)] = True
        self.rows, self.ready = rows, {row: deque() for row in rows.tolist()}
        if session is not None:
            self.place = {row: i for i, row in enumerate(rows.tolist())}
            with session:
                self._go(session)
                whole = {row: max(len(self.tokens[row]) - 1, len(fed[row])) for row in self.place}
                session.rewind(
                    {self.place[row]: n for row, n in whole.items() if n < len(session.tokens[self.place[row]])}
                )
        return self._reply()

    def _go(self, session: Decoding) -> None:
        """Until every row has done its step, was refused, or the race is over."""
        process, race = self.process, not isinstance(self.until, str)
        tokens, starts = self.tokens, self.states.starts
        coupled = process.verifier.keeps == "tokens"
        job = Job(process, session, self.place, tokens, starts, self.keys, self.limit, coupled)
        self.drafting = process.drafter.begin(job)
        self.books = {row: Books(process.thrift, self.drafting.level) for row in self.place}
        try:
            while len(self.rows):
                hungry = self._hungry()
                if race or len(hungry) == len(self.rows):  # a race is run token by token
                    while hungry:
                        self._round(session, hungry)
                        hungry = self._hungry()
                self._emit([row for row in self.rows.tolist() if self.ready[row]])
                if self._decided():
                    self.cut[self.rows] = True
                    self.rows = self.rows[:0]
        finally:
            self.drafting.close()

    def _hungry(self) -> list[int]:
        return [row for row in self.rows.tolist() if not self.ready[row]]

    def _emit(self, rows: Sequence[int]) -> None:
        """Pays for and gives out the next verified token of each of `rows`."""
        at = np.array(rows, np.int64)
        granted = self.limit.pay(at, Cost(generated=1))
        self._cut(at[~granted])
        at = at[granted]
        if not len(at):
            return
        tokens, logp, told = zip(*(self.ready[row].popleft() for row in at.tolist()), strict=True)
        going = self._take(at, tokens, logp, None if self.process.logprobs is None else told)
        self.rows = self.rows[~np.isin(self.rows, np.setdiff1d(at, going))]

    def _cut(self, rows: NDArray[np.int64]) -> None:
        self.cut[rows] = True
        self.rows = np.setdiff1d(self.rows, rows)

    def _round(self, session: Decoding, rows: list[int]) -> None:
        """One pass for `rows`: what they draft is shown, and what is accepted stands ready."""
        fresh = [row for row in rows if len(session.tokens[self.place[row]]) == len(self.tokens[row])]
        if fresh:  # nothing has been drawn since the prompt: its last hidden state says what comes next
            granted = self.limit.pay(np.array(fresh), Cost(flops=self.process.engine.flops(0, 0, heads=1)))
            self._cut(np.array(fresh)[~granted])
            fresh = [row for row, paid in zip(fresh, granted.tolist(), strict=True) if paid]
            places = [self.place[row] for row in fresh]
            self._verify(dict.fromkeys(fresh, NONE), session.hidden[places][:, None], session.logits(places)[:, None])
            return
        drafts = self._drafted(rows)
        shown = {row: self.process.verifier.shown(draft, self.tokens[row]) for row, draft in drafts.items()}
        trees = {row: draft.tree.under(self.tokens[row][-1]) for row, draft in shown.items()}
        lengths = [len(session.tokens[self.place[row]]) for row in rows]
        start = session.begun_layers({self.place[row]: tree for row, tree in trees.items()})
        each, once = self.process.engine.look(lengths, [trees[row] for row in rows], start=start)
        granted = self.limit.pay(np.array(rows), each, once=once)
        self._cut(np.array(rows)[~granted])
        rows = [row for row, paid in zip(rows, granted.tolist(), strict=True) if paid]
        if not rows:
            return
        drafts = {row: drafts[row] for row in rows}
        if not start and all(len(trees[row]) == 1 for row in rows):  # as plain decoding does it
            places = [self.place[row] for row in rows]
            session.append([self.tokens[row][-1] for row in rows], places)
            self._verify(drafts, session.hidden[places][:, None], session.logits(places)[:, None])
            return
        seen = session.look({self.place[row]: trees[row] for row in rows})
        hidden = [seen[self.place[row]] for row in rows]
        logits = self._logits(torch.cat(hidden)).split([len(each) for each in hidden])
        verdicts = self._verify(drafts, hidden, logits)
        session.keep({self.place[row]: [0, *(node + 1 for node in v.nodes)] for row, v in verdicts.items()})

    @torch.inference_mode()
    def _logits(self, hidden: Tensor) -> Tensor:
        return self.process.engine.model.logits(hidden)

    def _drafted(self, rows: Sequence[int]) -> dict[int, Draft]:
        """What is drafted for each row, and worth showing."""
        process, wants = self.process, {}
        single = process.unit == "token" and self.until == "step"
        for row in rows:
            left = process.engine.config.context - self.states.starts[row]
            left = min(left, process.max_tokens) - (len(self.tokens[row]) - self.states.starts[row])
            want = self.books[row].want(
                len(rows), 0 if single else left - 1
            )  # a last token comes after what is accepted
            wants[row] = want if want.nodes > 0 and want.depth > 0 else Want(0, 0)
        some = {row: want for row, want in wants.items() if want.depth}
        found = self.drafting.draft(wants if self.drafting.together else some) if some else {}
        drafts = {}
        for row in rows:
            draft = found.get(row, NONE).sorted()
            draft = draft.only(np.flatnonzero(draft.tree.depths < wants[row].depth).tolist()) if len(draft) else NONE
            drafts[row] = draft.only(self.books[row].select(draft, len(rows)))
        return drafts

    def _verify(
        self, drafts: Mapping[int, Draft], hidden: Sequence[Tensor] | Tensor, logits: Sequence[Tensor] | Tensor
    ) -> dict[int, Verdict]:
        """How far each row goes, given hidden states and logits at its last token and at all nodes shown; what it
        gained stands ready, and its drafter and books are told."""
        process, rows = self.process, list(drafts)
        places = [
            Place(part, draft, self.keys[row], len(self.tokens[row]))
            for part, (row, draft) in zip(logits, drafts.items(), strict=True)
        ]
        verdicts = dict(zip(rows, process.verifier.verify(places, process.temperature, process.top_p), strict=True))
        for place, states, (row, verdict) in zip(places, hidden, verdicts.items(), strict=True):
            draft, shown = drafts[row], len(states) - 1
            tokens = [*(draft.tree.tokens[node] for node in verdict.nodes), verdict.last]
            told: Sequence[Told | None] = [None] * len(tokens)
            if process.logprobs is not None:
                at = torch.tensor([0, *(node + 1 for node in verdict.nodes)])
                told = alternatives(place.logits[at], np.array(tokens), process.logprobs)
            self.ready[row].extend(zip(tokens, verdict.logp, told, strict=True))
            self.books[row].told(draft, verdict, shown, len(rows))
            self.drafting.told(row, draft, verdict, states)
            process.rounds.looks += 1
            process.rounds.shown += shown
            process.rounds.accepted += len(verdict.nodes)
            process.rounds.tokens += len(tokens)
        return verdicts
