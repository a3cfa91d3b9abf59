"""One step of a process's rows on an endpoint: requests go out, pieces come in, are paid for, and may end it all.

The network only tells what happens; every payment and every decision is made here, in the thread of whoever steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from anystep.keys import Keys
from anystep.language.endpoint import body
from anystep.language.endpoint.account import Account
from anystep.language.endpoint.attempt import Asks, Attempt, Closed, Inbox, Said
from anystep.language.endpoint.deltas import Delta
from anystep.language.endpoint.row import Row
from anystep.language.endpoint.states import Transcripts
from anystep.language.endpoint.trouble import Trouble, exhausted, pause
from anystep.language.endpoint.usage import possible
from anystep.ledger import FREE, Limit
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.endpoint.process import EndpointProcess

POLL = 0.05  # seconds between looks at the limit while nothing comes: cancels and deadlines are seen by then
CLOSING = 10.0  # seconds that the closing of a connection may take before it is given up on


@dataclass(eq=False)
class Flight:
    """One request under way for some rows. begun: the reply's beginning it was sent with. stopped: it was cancelled,
    because its rows were refused, or the race is over, or all that was wanted of it has come."""

    attempt: Attempt
    rows: list[Row]
    account: Account
    begun: str
    stopped: bool = False

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.attempt.cancel()


class Going:
    """One call of `EndpointProcess.step`."""

    def __init__(self, process: EndpointProcess, states: Transcripts, keys: Keys, limit: Limit, until: Until) -> None:
        self.process, self.server, self.limit, self.until = process, process.server, limit, until
        stop = process.stop if process.unit == "step" and until == "step" else None
        self.rows = [
            Row(i, key, state, stop, process.end)
            for i, (key, state) in enumerate(zip(keys.tolist(), states.rows, strict=True))
        ]
        self.inbox: Inbox = SimpleQueue()
        self.flights: dict[Attempt, Flight] = {}
        self.polled = time.monotonic()

    def run(self) -> Stepped:
        try:
            for group in self._groups():
                self._launch(group)
            while self.flights:
                self._heed(self._next())
        finally:
            self._abandon()
        n = len(self.rows)
        return Stepped(
            Transcripts(tuple(row.state for row in self.rows)),
            np.array([row.status for row in self.rows], np.int8).reshape(n),
            np.array([row.logp for row in self.rows], np.float64).reshape(n),
            np.zeros(n),
            self.limit.used,
            np.array([row.cut for row in self.rows], bool).reshape(n),
            {row.place: row.error for row in self.rows if row.error is not None},
        )

    def _groups(self) -> list[list[Row]]:
        """Rows that share a request: up to n of one fresh prompt; every other row has its own."""
        n, groups, waiting = self.process.n, [], list[Row]()
        for row in self.rows:
            if n == 1 or row.text or row.thought:
                groups.append([row])
            elif waiting and len(waiting) < n and waiting[0].began == row.began:
                waiting.append(row)
            else:
                waiting = [row]
                groups.append(waiting)
        return groups

    def _launch(self, rows: list[Row], delay: float = 0.0) -> None:
        """Sends the request that `rows` need next."""
        first, process = rows[0], self.process
        if (first.text or first.thought) and not process.continues:
            first.again()
        for row in rows:
            row.opened()
            row.attempts += 1
        begun = process.prefix(first)
        cap = process.cap(first)
        position = body.seed(self.server, first.key, first.generated)
        path, asked = body.body(process, first.began.prompt, begun, cap, first.stops, position, len(rows))
        expected = self.server.meter.estimate(first.began.prompt, begun, first.generated)
        account = Account(self.limit, [row.place for row in rows], self.server.prices, expected)
        attempt = self.server.attempt(path, asked, self.inbox, delay)
        self.flights[attempt] = Flight(attempt, rows, account, begun)

    def _next(self) -> Any:
        """The next event, None where none came in time; the limit is asked now and then whatever comes."""
        due = self.polled + POLL - time.monotonic()
        try:
            event = self.inbox.get(timeout=max(due, 0.0))
        except Empty:
            event = None
        if time.monotonic() >= self.polled + POLL:
            self._poll()
            self.polled = time.monotonic()
        return event

    def _poll(self) -> None:
        """Asks the limit whether there is anything left, and stops what has been refused."""
        flying = [flight for flight in self.flights.values() if not flight.stopped]
        places = [row.place for flight in flying for row in flight.rows]
        granted = dict(zip(places, self.limit.pay(places, FREE).tolist(), strict=True))
        for flight in flying:
            if not all(granted[row.place] for row in flight.rows):
                flight.stop()

    def _heed(self, event: Asks | Said | Closed | None) -> None:
        if event is None:
            return
        flight = self.flights[event.attempt]
        match event:
            case Asks(attempt):
                if not flight.stopped and flight.account.open():
                    attempt.grant()
                else:
                    flight.stop()
            case Said(_, found):
                self._hear(flight, found)
            case Closed(attempt, trouble):
                del self.flights[attempt]
                self._closed(flight, trouble)

    def _hear(self, flight: Flight, found: list[Delta]) -> None:
        """Takes in what came, and pays for it row by row; a request whose row was refused ends here."""
        come: dict[Row, int] = {}
        for delta in found:
            if delta.usage is not None:
                self._report(flight, come, delta)
            elif delta.choice < len(flight.rows):
                row = flight.rows[delta.choice]
                before = row.heard
                piece = row.hear(delta, row.closed)
                come[row] = come.get(row, 0) + row.heard - before
                self.server.says |= delta.said and delta.finish is not None
                if piece:
                    self.limit.show(row.key, piece, row.place)
        granted = [flight.account.piece(row.place, tokens) for row, tokens in come.items() if tokens]
        done = all(row.stopped is not None for row in flight.rows)
        if not all(granted) or (done and "stop" not in flight.attempt.body):
            flight.stop()

    def _report(self, flight: Flight, come: dict[Row, int], delta: Delta) -> None:
        assert delta.usage is not None
        for row, tokens in come.items():
            flight.account.piece(row.place, tokens)
        come.clear()
        asked = flight.attempt.body
        cap = next(asked[name] for name in body.CAPS if name in asked) * len(flight.rows)
        sent = len(str(asked.get("messages") or asked.get("prompt")).encode("utf-8", "replace"))
        received = sum(row.heard for row in flight.rows)
        if possible(delta.usage, sent, received, cap) and not flight.account.report(delta.usage):
            flight.stop()

    def _closed(self, flight: Flight, trouble: Trouble | None) -> None:
        """A request is over: its account is settled, and each of its rows goes on, or has ended."""
        account, attempt, rows = flight.account, flight.attempt, flight.rows
        account.settle(attempt, trouble)
        if account.usage is not None:
            self.server.meter.learn(rows[0].began.prompt, flight.begun, account.usage.prompt)
            if attempt.whole and len(rows) == 1:
                rows[0].generated += account.usage.generated - rows[0].heard
        if trouble is not None and not flight.stopped and body.dropped(self.process, attempt.body, trouble):
            for row in rows:
                row.attempts -= 1
            self._launch(rows)
            return
        for row in rows:
            if row.finish is None and row.stopped is None and trouble is None and not flight.stopped:
                row.finish = "stop"  # a stream that ended well, and did not say why
            if row.finish is not None or row.stopped is not None:
                self._ended(row)
            elif flight.stopped:
                row.cut = True
            else:
                self._again(row, trouble or Trouble("the reply did not come", again=True))
        self._race()

    def _ended(self, row: Row) -> None:
        """A request has brought what it was to bring."""
        if self.process.ended(row):
            return
        self._launch([row])  # there is more to say, as after thinking that was ended from outside

    def _again(self, row: Row, trouble: Trouble) -> None:
        """Asks again where that may help, going on with what has come; else the row has failed."""
        server = self.server
        wait = trouble.wait or 0.0
        if not trouble.again or row.attempts > server.retries or wait > server.patience:
            row.status, row.error = Status.FAILED, exhausted(trouble, row.attempts, server.patience)
        elif row.begun and not self.process.continues:
            row.status, row.error = Status.FAILED, f"{trouble}; {row.heard} tokens in, and {self.process.unable}"
        elif self.process.cap(row) < 1:
            row.finish = "length"
            self._ended(row)
        else:
            self._launch([row], pause(row.key, row.attempts, trouble.wait))

    def _race(self) -> None:
        """With until=k, the others are cancelled once k rows are done."""
        if isinstance(self.until, str) or sum(row.status == Status.DONE for row in self.rows) < self.until:
            return
        for flight in self.flights.values():
            flight.stop()

    def _abandon(self) -> None:
        """Whatever happened, nothing is left on the wire; what was spent there is charged."""
        for flight in self.flights.values():
            flight.stop()
        for attempt in self.flights:
            attempt.closed.wait(CLOSING)
        while self.flights:
            try:
                event = self.inbox.get_nowait()
            except Empty:
                return
            if isinstance(event, Said):
                self._hear(self.flights[event.attempt], event.deltas)
            elif isinstance(event, Closed):
                self.flights.pop(event.attempt).account.settle(event.attempt, event.trouble)
