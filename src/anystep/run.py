"""A run holds a process and a method; it reads each ask, says which calls answer it, is told their replies, and keeps
the books. It performs nothing itself (see `drive`), so that sync, async and merged driving, replay and resuming are the
same run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from anystep.again import remaining, whole
from anystep.answer import AllFailed, Answer, failure
from anystep.calls import Books, Call, Reply
from anystep.errors import Unsupported, UsageError
from anystep.ledger import FREE, Budget, Cost, Ledger
from anystep.population import Population, Verdict
from anystep.procedure import Ask, Method, Score, Step
from anystep.process import Floats, Process, Reward, Status
from anystep.told import Attached, Journal, Told, described


class Run:
    """One method on one process under one budget. Drive it with `drive`, `adrive`, or by hand:

        while run.calls:
            run.tell([call.perform() for call in run.calls])

    journal: keeps the replies, a list by default; handing it to `replay` brings a fresh run to the same point without
    any work.
    reserve: the share of the budget held back so that a run cut short still has an answer.
    """

    def __init__(
        self,
        process: Process,
        method: Method,
        budget: Budget | None = None,
        seed: int = 0,
        reserve: float = 0.1,
        show: Callable[[int, Any], None] = lambda key, piece: None,
        watch: Callable[[Run], None] = lambda run: None,
        ledger: Ledger | None = None,
        journal: Journal | None = None,
    ) -> None:
        if not isinstance(process, Process):
            raise UsageError(
                f"Run(process={process!r}): a Process is needed; call Run(process, method, Budget(tokens=...))."
            )
        if not isinstance(method, Method):
            raise UsageError(f"Run(method={method!r}): a method is a call, such as search.best_of_n(n=16, reward=r).")
        if method.needs_mass and process.logp != "mass":
            raise Unsupported(
                f"{method.name} compares path probabilities, but those of {process.name} are of kind {process.logp!r}; "
                "use beam or particle_filter."
            )
        if method.decision.mass and process.logp != "mass":
            raise Unsupported(
                f"{method.decision} weighs answers by path probabilities, but those of {process.name} are of kind "
                f"{process.logp!r}; use search.majority."
            )
        _check_branches(process, method)
        self.process, self.method, self.seed, self.watch = process, method, seed, watch
        self.ledger = ledger or Ledger(budget or Budget(), reserve, show=show)
        self.reserve = self.ledger.reserve  # as it was at first: the ledger's own is released
        if method.needs_end and process.horizon is None and not self.ledger.budget.caps():
            raise Unsupported(
                f"{method.name} steps until all are done, but {process.name} is endless: give a Budget, "
                f"or bound it with search.truncate({process.name}, n)."
            )
        self.books = Books(process, self.ledger, seed, next(iter(method.rewards()), None))
        self.journal: Journal = [] if journal is None else journal
        self.rounds = 0  # of its journal, how many it has been through
        self.calls: tuple[Call, ...] = ()
        self._cut: tuple[tuple[Call, Reply], ...] = ()  # of a run taken up again: what its calls are the rest of
        self._refused: str | None = None  # by the end of the last round: a cancel that comes later is met by the next
        self.answer: Answer | None = None
        self.error: Exception | None = None  # why there is no answer, once there never will be
        if isinstance(self.journal, Attached):
            self.journal.begin(self)
        self.ledger.begin()
        self._life = self._living()
        self._advance(None)

    @property
    def spent(self) -> Cost:
        return self.ledger.spent

    @property
    def finished(self) -> int:
        return len(self.books.finished)

    def result(self) -> Answer:
        """The answer of a run that has ended, one without text where all its states failed; raises any other error."""
        if isinstance(self.error, AllFailed):
            return failure(str(self.error), self.spent, dict(self.ledger.by), self.books.family)
        if self.answer is None:
            raise self.error or UsageError("This run has not ended; call drive(run) first.")
        return self.answer

    def cancel(self) -> None:
        """Stop at the next unit of work; the answer is the best of what has finished."""
        self.ledger.cancel()

    def tell(self, replies: Sequence[Reply]) -> None:
        """Hand in the replies to `calls`, in their order; `calls` then holds the next ones, or is empty at the end."""
        if len(replies) != len(self.calls) or not (self.calls or self._cut):
            raise UsageError(
                f"This run waits for {len(self.calls)} replies and was told {len(replies)}; tell one reply a call."
            )
        told = self._told(replies, self.ledger.refused, dict(self.ledger.by))
        self._cut = ()
        try:
            self.journal.append(told)
        except Exception as error:
            self._ended(error)
            raise
        self.rounds += 1
        self._refused = told.refused
        self._advance(told.replies)

    def cut_off(self, replies: Sequence[Reply]) -> Told:
        """The round under way as the journal would have it were the run cancelled now, with these replies to `calls`: a
        keeper may write it down before the round is over, and `replay(..., reopen=True)` goes on with what is cut."""
        return self._told(replies, "cancelled", None)  # the accounts may be ahead of these replies

    def _told(self, replies: Sequence[Reply], refused: str | None, costs: Mapping[str, Cost] | None) -> Told:
        again = bool(self._cut)
        asked = tuple(call.asked for call, _ in self._cut) if again else tuple(call.asked for call in self.calls)
        found = self._made_whole(replies) if again else tuple(replies)
        return Told(found, refused, self.ledger.elapsed(), asked, again, costs)

    def replay(self, journal: Iterable[Told], warm: bool = False, reopen: bool = False) -> None:
        """Come to the point where `journal` ends without performing anything; costs and seconds are charged, and what
        was refused is refused, as they were. A run may replay its own journal, which then stays as it is.

        warm: fill the caches of processes and rewards again, so that going on costs what it would have cost.
        reopen: where a refusal (a budget, a cancel) had closed the run, go on with what was refused, under the budget
        that this run has. The answer is that of a run with this budget from the beginning. What closing had cost stays
        charged, and nothing else is paid twice.
        """
        own = journal is self.journal
        held: list[Told] = []  # a round that was refused, and those that closed the run after it
        for told in journal:
            if not own:
                self.journal.append(told)
            self.rounds += 1
            if told.again:
                self._charge(held)
                held = []
            if held or told.refused:
                held.append(told)
            else:
                self._replayed(told, warm)
        if held and reopen:
            self._reopen(held, warm)
            return
        for told in held:
            self._replayed(told, warm)

    def _replayed(self, told: Told, warm: bool) -> None:
        self._expect(told)
        self._charge([told])
        if warm:
            self._warm(told)
        self.ledger.resume(told.seconds)
        self.ledger.refused = self._refused = told.refused
        self._advance(told.replies)

    def _reopen(self, held: Sequence[Told], warm: bool) -> None:
        """Ask for the rest of a refused round; what closed the run after it was paid for, and is forgotten."""
        self._expect(held[0])
        self._charge(held)
        if warm:
            self._warm(held[0])
        self.ledger.resume(held[-1].seconds)
        self._cut = tuple(zip(self.calls, held[0].replies, strict=True))
        self.calls = tuple(rest for rest in (remaining(*pair) for pair in self._cut) if rest is not None)
        if not self.calls:
            self.tell(())

    def _made_whole(self, replies: Sequence[Reply]) -> tuple[Reply, ...]:
        """The refused round's replies with their rest, at the cost of the rest."""
        rests = iter(zip(self.calls, replies, strict=True))
        found = []
        for call, reply in self._cut:
            rest = None if remaining(call, reply) is None else next(rests)
            found.append(replace(reply, cost=FREE) if rest is None else whole(call, reply, *rest))
        return tuple(found)

    def _expect(self, told: Told) -> None:
        """UsageError for a round that answers something else than what this run asks."""
        asked = tuple(call.asked for call in self.calls)
        fits = len(told.replies) == len(asked) and told.asked in ((), asked)
        if not fits or not all(call.fits(reply) for call, reply in zip(self.calls, told.replies, strict=True)):
            raise UsageError(
                f"This journal tells {described(told)} where {self.method.name} waits for {described(asked)}: "
                "it belongs to another method, process, seed or version."
            )

    def _charge(self, rounds: Sequence[Told]) -> None:
        """Bring the accounts to where they were after these rounds."""
        for told in rounds:
            if told.costs is not None:
                self.ledger.restore(told.costs)
                continue
            names = [asked.by for asked in told.asked] or [call.by.name for call in self.calls]
            for name, reply in zip(names, told.replies, strict=True):
                if reply.cost != FREE:  # who was never paid has no account
                    self.ledger.charge(reply.cost, name)

    def _warm(self, told: Told) -> None:
        for call, reply in zip(self.calls, told.replies, strict=True):
            call.warm(reply)

    def _advance(self, replies: tuple[Reply, ...] | None) -> None:
        try:
            self.calls = tuple(self._life.send(replies))
        except StopIteration:
            self._ended()
        except Exception as error:
            self._ended(error)
            raise
        self.watch(self)

    def _ended(self, error: Exception | None = None) -> None:
        self.calls, self.error = (), error
        self.ledger.end()
        if isinstance(self.journal, Attached):
            self.journal.end(self)

    def _living(self) -> Generator[list[Call], Any, None]:
        """The whole life of a run: explore until done or refused, close, decide."""
        exploring, reply, reason = self.method(), None, "finished"
        while True:
            try:
                ask = exploring.send(reply)
            except StopIteration as end:
                population: Population | None = end.value
                break
            reply = yield from self._answer(ask)
            if self._refused:
                reason = self._refused
                exploring.close()
                population = yield from self._close()
                break
        self._decide(population, reason)

    def _answer(self, ask: Ask) -> Generator[list[Call], Any, Any]:
        calls, absorb = self.books.prepare(ask)
        reply = absorb((yield calls) if calls else ())
        if self.books.finished and not self.method.decision.scores:
            self.ledger.release()  # an answer exists and needs no score: nothing is owed any more
        return reply

    def _close(self) -> Generator[list[Call], Any, Population | None]:
        """After a refusal: from the reserve, finish one state where none has, and score what the decision must read."""
        self.ledger.release()
        self.ledger.reopen()
        last = self.books.latest
        if (
            not self.books.finished
            and last is not None
            and last.live.any()
            and self.process.horizon is not None
            and self._refused != "cancelled"
        ):
            best = last.take(last.live).take([int(np.argmax(self._standing(last.take(last.live))))])
            yield from self._answer(Step(best, until="done"))
            self.ledger.reopen()
        if not self.books.finished:
            return last
        rows = list(self.books.finished.values())
        population = rows[0].join(*rows[1:])
        if self.method.decision.scores and self.books.reward is not None:
            population = yield from self._score_finished(population, self.books.reward)
        return population

    def _score_finished(self, population: Population, by: Reward) -> Generator[list[Call], Any, Population]:
        """Score all finished states if that can be paid, else the likeliest one; what is already paid is read."""
        yield from self._answer(Score(population, by))
        if np.isnan(self.books.verdicts(population, by)).all() and self._refused != "cancelled":
            self.ledger.reopen()
            yield from self._answer(Score(population.take([int(np.argmax(population.logp))]), by))
        return population.scored(self.books.verdicts(population, by))

    def _standing(self, population: Population) -> Floats:
        """How promising live states look: their last score, else their log-probability."""
        scores = (
            np.full(len(population), np.nan)
            if self.books.reward is None
            else self.books.verdicts(population, self.books.reward)
        )
        return np.where(np.isnan(scores), population.logp if np.isnan(scores).all() else -np.inf, scores)

    def _decide(self, population: Population | None, reason: str) -> None:
        population = self._standing_ones(population)
        verdict = Verdict(None)
        if population is not None and len(population):
            if self.process.horizon is None:  # an endless process is never done: what it has is what it says
                population = replace(
                    population, status=np.where(population.live, np.int8(Status.DONE), population.status)
                )
            population = replace(population, answers=self.process.answers(population.states))
            if self.method.decision.texts:
                population = replace(population, texts=self.process.texts(population.states))
            verdict = self.method.decision(population)
        chosen = None if verdict.row is None or population is None else population.take([verdict.row])
        failed = sum(s == Status.FAILED for s in self.books.family.status)
        self.answer = Answer(
            value=None if chosen is None or chosen.answers is None else chosen.answers[0],
            text=None if chosen is None else self.process.texts(chosen.states)[0],
            cost=self.spent,
            costs=dict(self.ledger.by),
            stopped_because=reason,
            population=population,
            row=verdict.row,
            support=verdict.support,
            evidence=None if population is None else population.evidence,
            started=self.books.started,
            finished=len(self.books.finished),
            failed=failed,
            errors=tuple(self.books.family.errors.values()),
            note=self._note(reason, failed, verdict.abstained),
            family=self.books.family,
            confidence=verdict.confidence if reason == "finished" else None,  # it was calibrated on whole runs
            submitted=verdict.submitted,
            abstained=verdict.abstained,
        )

    def _standing_ones(self, population: Population | None) -> Population | None:
        """The population, or where every state of it failed, what had finished before; raises AllFailed without any."""
        family, finished = self.books.family, list(self.books.finished.values())
        if finished and population is not None and population.failed.all():
            population = finished[0].join(*finished[1:])
            by = self.books.reward
            return population if by is None else population.scored(self.books.verdicts(population, by))
        leaves = [] if finished else family.leaves()
        if leaves and all(family.status[leaf] == Status.FAILED for leaf in leaves):
            first = next(iter(family.errors.values()), "nothing")
            if len(leaves) == 1:
                raise AllFailed(f"The only state failed; it said: {first}")
            raise AllFailed(f"All {len(leaves)} states failed; the first said: {first}")
        return population

    def _note(self, reason: str, failed: int, abstained: bool) -> str:
        notes = []
        if abstained:
            notes.append(f"Abstained by {self.method.decision}: too little speaks for any of {self.finished} finished.")
        if reason != "finished":
            why = "Cancelled" if reason == "cancelled" else f"Stopped by {reason}"
            family = self.books.family
            others = any(family.status[leaf] == Status.LIVE for leaf in family.leaves())
            bias = "; early finishers are biased short" if self.finished and others else ""
            notes.append(f"{why}: {self.finished} finished of {self.books.started} started{bias}.")
        if failed:
            notes.append(f"{failed} of {len(self.books.family.leaves())} samples failed.")
        return " ".join(notes)


def _check_branches(process: Process, method: Method) -> None:
    """Unsupported where a method, or one that it drives, branches what can have but one child."""
    values = [v for _, value in method.options for v in (value if isinstance(value, tuple) else (value,))]
    for member in values:
        if isinstance(member, Method):
            _check_branches(process, member)
    for each in (process, *(value for value in values if isinstance(value, Process))) if method.needs_branches else ():
        if not each.branches:
            raise Unsupported(
                f"{each.name} is deterministic: further children of a state, which {method.name} asks for one at a "
                "time, would be the first again; give it a temperature, or use more starts."
            )
