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
from anystep.ledger import FREE, Cost, Limit
from anystep.process import Status, Stepped, Until

if TYPE_CHECKING:
    from anystep.language.endpoint.process import EndpointProcess

PROBE = 40  # tokens of prompt that a probe may take
POLL = 0.05  # seconds between looks at the limit while nothing comes: cancels and deadlines are seen by then
SLACK = 64  # tokens beyond the cap that a server may count otherwise than we do
CLOSING = 10.0  # seconds that the closing of a connection may take before it is given up on


@dataclass(eq=False)
class Flight:
    """One request under way for some rows. begun: the reply's beginning it was sent with, and made: its tokens.
    stopped: it was cancelled, because its rows were refused, or the race is over, or all that was wanted has come."""

    attempt: Attempt
    rows: list[Row]
    account: Account
    begun: str = ""
    made: int = 0
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
            if n == 1 or row.started:
                groups.append([row])
            elif waiting and len(waiting) < n and waiting[0].began == row.began:
                waiting.append(row)
            else:
                waiting = [row]
                groups.append(waiting)
        return groups

    def _launch(self, rows: list[Row], delay: float = 0.0) -> None:
        """Has a request made for what `rows` need next; it is put into words and paid for when its turn comes."""
        first = rows[0]
        if first.started and not self._probed(first):
            return
        if first.started and not self.process.goes_on:
            first.again()
        if self.process.cap(first) < 1:  # cut just as it had all its tokens
            for row in rows:
                row.finish = "length"
                self.process.ended(row)
            return
        for row in rows:
            row.opened()
            row.attempts += 1
        attempt = self.server.attempt(self.inbox, delay)
        account = Account(self.limit, [row.place for row in rows], self.server.prices)
        self.flights[attempt] = Flight(attempt, rows, account)

    def _probed(self, row: Row) -> bool:
        """Whether it is known, or could be paid, to know whether the server can go on with a reply."""
        if not self.process.undecided:
            return True
        price = self.server.prices.cost(prompt=3 * PROBE, generated=3) + Cost(calls=3)
        if not self.limit.pay([row.place], [price]).all():
            row.cut = True
            return False
        self.limit.charge(price * -1, row.place)  # it is booked apart, as what it was
        self.server.probes["continuation"]
        return True

    def _send(self, flight: Flight) -> None:
        """A request's turn has come: it goes out, if it can be paid for."""
        first, process, rows = flight.rows[0], self.process, flight.rows
        for row in rows:
            row.hold = process.hold(row)
        flight.begun, flight.made = process.prefix(first), first.generated
        cap = process.cap(first)
        expected = self.server.meter.estimate(first.began.prompt, flight.begun, first.generated)
        room = cap if self.server.context is None else self.server.context - expected
        for row in rows:
            row.clamped = min(room, cap) < process.max_tokens - row.generated
        seed = body.seed(self.server, first.key, first.generated)
        if flight.stopped or not flight.account.open(expected):
            flight.stop()
            return
        longest = max(1, min(cap, room))
        asked = body.body(process, first.began.prompt, flight.begun, longest, first.stops, seed, len(rows))
        flight.attempt.grant(*asked)

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
            case Asks():
                self._send(flight)
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
        self._overdone(flight)
        done = all(row.stopped is not None for row in flight.rows)
        held = any(row.hold and row.thought and row.stopped for row in flight.rows)
        if not all(granted) or held or (done and "stop" not in flight.attempt.body):
            flight.stop()

    def _overdone(self, flight: Flight) -> None:
        """A server that does not heed the cap would go on for ever: it is left where it is well beyond that."""
        cap = _cap(flight)
        if all(row.finish or row.heard > cap + SLACK for row in flight.rows):
            for row in flight.rows:
                if row.finish is None:
                    row.finish = "length"
                    flight.stop()

    def _report(self, flight: Flight, come: dict[Row, int], delta: Delta) -> None:
        assert delta.usage is not None
        for row, tokens in come.items():
            flight.account.piece(row.place, tokens)
        come.clear()
        asked = flight.attempt.body
        cap = _cap(flight) * len(flight.rows)
        sent = len(str(asked.get("messages") or asked.get("prompt")).encode("utf-8", "replace"))
        received = flight.rows[0].heard if len(flight.rows) == 1 else 0
        if possible(delta.usage, sent, received, cap) and not flight.account.report(delta.usage, delta.choice):
            flight.stop()

    def _closed(self, flight: Flight, trouble: Trouble | None) -> None:
        """A request is over: its account is settled, and each of its rows goes on, or has ended."""
        account, attempt, rows = flight.account, flight.attempt, flight.rows
        if account.usage is None:  # another request may have told meanwhile
            account.expected = self.server.meter.estimate(rows[0].began.prompt, flight.begun, flight.made)
        account.settle(attempt, trouble)
        if account.usage is not None:
            self.server.meter.learn(rows[0].began.prompt, flight.begun, account.usage.prompt)
            if attempt.whole and len(rows) == 1:
                rows[0].generated += max(0, account.usage.generated - rows[0].heard)
        if trouble is not None and not flight.stopped and self._adapted(flight, trouble):
            for row in rows:
                row.attempts -= 1
            self._launch(rows)
            return
        for row in rows:
            if row.finish is None and row.stopped is None and trouble is None and not flight.stopped:
                row.finish = "stop"  # a stream that ended well, and did not say why
            if row.finish is not None or row.stopped is not None:
                if self._decided:
                    row.lost()
                else:
                    self._ended(row)
            elif flight.stopped:
                row.broken()
                row.cut = True
            else:
                self._again(row, trouble or Trouble("the reply did not come", again=True))
        self._race()

    def _adapted(self, flight: Flight, trouble: Trouble) -> bool:
        """Whether the request can be said in another way."""
        chat = flight.attempt.path.startswith("/chat")
        if chat and not self.process.chat:
            return True  # another row has found out meanwhile
        if flight.begun and body.uncontinued(self.process, trouble):
            return flight.rows[0].attempts == 1  # it was cut before this step, and is asked for anew
        return body.dropped(self.process, flight.attempt.body, trouble) or self.process.rerouted(trouble)

    def _ended(self, row: Row) -> None:
        """A request has brought what it was to bring."""
        if self.process.ended(row):
            return
        self._launch([row])  # there is more to say, as after thinking that was ended from outside

    def _again(self, row: Row, trouble: Trouble) -> None:
        """Asks again where that may help, going on with what has come; else the row has failed."""
        server = self.server
        wait = trouble.wait or 0.0
        row.broken()
        if not trouble.again or row.attempts > server.retries or wait > server.patience:
            row.status, row.error = Status.FAILED, exhausted(trouble, row.attempts, server.patience)
        elif row.begun and not self._probed(row):
            return  # it cannot be paid any more to find out whether it can go on
        elif row.begun and not self.process.goes_on:
            row.status, row.error = Status.FAILED, f"{trouble}; {row.heard} tokens in, and {self.process.unable}"
        else:
            self._launch([row], pause(row.key, row.attempts, trouble.wait))

    def _race(self) -> None:
        """With until=k, the others are cancelled once k rows are done."""
        if self._decided:
            for flight in self.flights.values():
                flight.stop()

    @property
    def _decided(self) -> bool:
        """Whether it was a race, and is over."""
        return isinstance(self.until, int) and sum(row.status == Status.DONE for row in self.rows) >= self.until

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
            flight = self.flights[event.attempt]
            if isinstance(event, Said):
                for delta in event.deltas:
                    if delta.choice < len(flight.rows) and delta.usage is None:
                        row = flight.rows[delta.choice]
                        before = row.heard
                        row.hear(delta, row.closed)
                        flight.account.missed(row.heard - before)
            elif isinstance(event, Closed):
                del self.flights[event.attempt]
                flight.account.settle(event.attempt, event.trouble)


def _cap(flight: Flight) -> int:
    """The tokens that each choice of a request was asked for at most."""
    return int(next(flight.attempt.body[name] for name in body.CAPS if name in flight.attempt.body))
