"""One step of tool-using trajectories: the turns that models take, and the calls that are made for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anystep import keys as lineage
from anystep.errors import AnystepError
from anystep.keys import Keys
from anystep.language.tools.calling import WATCH, Job, Outcome, perform
from anystep.language.tools.dialogues import Dialogues
from anystep.language.tools.passing import Passing
from anystep.language.tools.tool import Misuse
from anystep.language.tools.turns import Turn
from anystep.ledger import Limit, Rows
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.tools.process import ToolProcess


class Steps:
    """One call of `step`: every row takes a step, or goes on until it is done, refused, or out of the race."""

    def __init__(
        self,
        process: ToolProcess,
        states: Dialogues,
        keys: Keys,
        limit: Limit,
        until: Until,
        places: Semaphore | None = None,
    ) -> None:
        """places: where other steps of the process go on side by side with this one, what its calls wait for."""
        n, self.places = len(states), places
        self.process, self.keys, self.limit, self.until = process, keys, limit, until
        self.rows, self.turn = list(states.rows), states.turn
        self.status, self.cut = np.zeros(n, np.int8), np.zeros(n, bool)
        self.logp, self.logw, self.errors = np.zeros(n), np.zeros(n), dict[int, str]()

    def run(self) -> Stepped:
        race = isinstance(self.until, int)
        going = np.arange(len(self.rows))
        while len(going):
            moving = self._hindmost(going) if race else going
            waiting = np.array([bool(self.rows[i].pending) for i in moving.tolist()])
            self._turns(moving[~waiting])
            self._results(moving[waiting])
            if race and (self.cut[moving].any() or (self.status == Status.DONE).sum() >= self.until):
                self.cut |= self.status == Status.LIVE  # refused, or over: they stand in line as they did
                break
            going = going[(self.status[going] == Status.LIVE) & ~self.cut[going]]
            if self.until == "step":  # an exchange goes on until its calls have their results
                going = going[[bool(self.rows[i].pending) for i in going.tolist()]] if self.process.whole else going[:0]
        return Stepped(self._states(), self.status, self.logp, self.logw, self.limit.used, self.cut, self.errors)

    def _hindmost(self, going: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that have taken the fewest steps: in a race all go on in line, also after one that was refused."""
        steps = np.array([self.rows[i].steps for i in going.tolist()])
        return going[steps == steps.min()]

    def _states(self) -> Dialogues:
        return Dialogues(tuple(self.rows), self.turn)

    def _fail(self, row: int, error: str) -> None:
        self.status[row], self.errors[row] = Status.FAILED, error

    def _turns(self, rows: NDArray[np.int64]) -> None:
        """Each row's model writes its turn, or goes on with the one that was cut."""
        self._begin([row for row in rows.tolist() if not self.rows[row].writing])
        rows = rows[self.status[rows] == Status.LIVE]
        if len(rows) == 0:
            return
        inner, own = self.process.turns.process, self.keys[rows]
        drawing = lineage.children(own, _TURN, np.array([self.rows[i].turns for i in rows.tolist()]))
        limit = _Shown(self.limit.of(rows), dict(zip(drawing.tolist(), own.tolist(), strict=True)))
        reply = inner.step(self.turn.take(rows), drawing, limit, "done")
        self.turn = self._states().put(rows, reply.states)
        self.logp[rows] += reply.logp
        self.logw[rows] += reply.logw
        self.cut[rows] = reply.status == Status.LIVE
        for i in np.flatnonzero(reply.status == Status.FAILED).tolist():
            self._fail(int(rows[i]), reply.errors.get(i, "the model's turn failed"))
        done = np.flatnonzero(reply.status == Status.DONE)
        turns = self.process.turns.read(reply.states.take(done)) if len(done) else ()
        for row, turn in zip(rows[done].tolist(), turns, strict=True):
            self._said(row, turn)

    def _begin(self, rows: Sequence[int]) -> None:
        """A new turn for each of these."""
        begun: dict[int, Any] = {}
        for row in rows:
            try:
                begun[row] = self.process.turns.begin(self.rows[row].messages, self.turn.take(np.array([row])))
            except AnystepError as error:  # such as a conversation that has outgrown the model's context
                self._fail(row, str(error))
            else:
                self.rows[row] = replace(self.rows[row], writing=True)
        if begun:
            first, *others = begun.values()
            self.turn = self._states().put(np.array(list(begun)), first.join(*others))

    def _said(self, row: int, turn: Turn) -> None:
        """Enter what a model has said."""
        old, process = self.rows[row], self.process
        new = replace(
            old,
            messages=(*old.messages, turn.message),
            pending=turn.calls,
            answered=0,
            turns=old.turns + 1,
            steps=old.steps + 1,
            writing=False,
        )
        self.rows[row] = new
        if not turn.calls:
            self.rows[row] = replace(new, final=new.said())
            self.status[row] = Status.DONE
        elif new.turns >= process.max_turns and process.at_cap == "failed":
            self._fail(row, f"asked for a tool in the last of its max_turns={process.max_turns}")

    def _results(self, rows: NDArray[np.int64]) -> None:
        """The first pending call of each row is made, and its result entered."""
        jobs: list[Job] = []
        for row in rows.tolist():
            call = self.rows[row].pending[0]
            try:
                jobs.append(self.process.job(row, call, self.rows[row].world))
            except Misuse as misuse:
                if self.limit.pay([row])[0]:
                    self._answer(row, f"Error: {misuse}.")
                else:
                    self.cut[row] = True
        for job, outcome in zip(jobs, self._performed(jobs), strict=True):
            self._came(job, outcome)

    def _performed(self, jobs: Sequence[Job]) -> list[Outcome | None]:
        """What comes of the calls, paid for and watched by the limit."""

        def pay(job: Job) -> bool:
            return bool(self.limit.pay([job.row], each=job.tool.cost)[0])

        def goes_on(job: Job) -> bool:
            return bool(self.limit.pay([job.row])[0])

        if self.places is None or not jobs:
            return perform(jobs, pay, goes_on, self.process.at_once)
        while not self.places.acquire(timeout=WATCH):
            if not any(goes_on(job) for job in jobs):
                return [None] * len(jobs)
        try:
            return perform(jobs, pay, goes_on, 1)
        finally:
            self.places.release()

    def _came(self, job: Job, outcome: Outcome | None) -> None:
        """Enter what came of a call."""
        row, tool = job.row, job.tool
        if outcome is None:
            self.cut[row] = True
        elif outcome.defect:
            self._fail(row, outcome.defect)
        elif not outcome.well and tool.on_error == "fail":
            self._fail(row, outcome.text)
        else:
            self.rows[row] = replace(self.rows[row], world=outcome.world)
            self._answer(row, outcome.text, final=tool.final and outcome.well)

    def _answer(self, row: int, text: str, final: bool = False) -> None:
        """Enter a call's result; the last one that a turn may have brings a refusal of the rest with it."""
        process, old = self.process, self.rows[row]
        self.limit.show(int(self.keys[row]), f"\n[{old.pending[0].name}: {text[:_PIECE]}]\n", row)
        told = [process.turns.result(old.pending[0], text)]
        pending, answered = old.pending[1:], old.answered + 1
        if answered >= process.max_calls or final:
            why = "the trajectory has ended" if final else f"only {process.max_calls} calls a turn are made"
            told += [process.turns.result(call, f"Error: not called: {why}.") for call in pending]
            pending = ()
        new = replace(old, messages=(*old.messages, *told), pending=pending, answered=answered, steps=old.steps + 1)
        self.rows[row] = replace(new, final=text) if final else new
        if final or (not pending and new.turns >= process.max_turns):
            self.status[row] = Status.DONE


_TURN = lineage.named("turn")
_PIECE = 200  # characters of a result that are streamed to who watches


class _Shown(Passing):
    """Shows pieces under the trajectory's key, for each turn is drawn by a key of its own."""

    def __init__(self, whole: Limit, own: dict[int, int]) -> None:
        super().__init__(whole)
        self.own = own

    def of(self, rows: Rows | Sequence[int]) -> Limit:
        return _Shown(self.whole.of(rows), self.own)

    def show(self, key: int, piece: Any, row: int | None = None) -> None:
        self.whole.show(self.own.get(key, key), piece, row)
