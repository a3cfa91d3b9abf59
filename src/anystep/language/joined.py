"""Steps of a language model that share its passes: who comes joins at the next token, who is done leaves at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anystep.errors import UsageError
from anystep.language.engine.cache import Path, Tokens, common, path_length
from anystep.language.engine.engine import Engine
from anystep.language.engine.native.drawing import uniforms
from anystep.language.engine.plan import CHUNK, SHARE, Unit
from anystep.language.engine.sampling import alternatives, draw
from anystep.language.engine.slots import Arrange
from anystep.language.member import Member
from anystep.language.prefill import paid
from anystep.ledger import FREE
from anystep.process import Stepped


@dataclass(eq=False)
class Coming:
    """Rows of one member that are paid for and on their way in: `units` are still to be computed, in order.

    Rows in `late` lack only their last token, and are fed it as rows. held: paths that are pinned until they are in.
    """

    going: Member
    rows: list[int]
    units: list[Unit]
    late: set[int]
    held: list[Path]
    reserve: int

    def sequences(self) -> list[Tokens]:
        return [self.going.tokens[row] for row in self.rows]


class Joined:
    """Members go on together, one pass a `round`: each live row's next token, and up to `chunk` positions of prompts.

    max_rows: rows in a pass. max_bytes: of keys that rows hold, in the cache and of their own, by default the engine's
    `live_bytes`; one row is always let in. Who does not fit waits in the order of `add`; where rows outgrow the bytes,
    the last that came go back to wait, and what the cache has lost of them by then is computed and charged again.
    Whoever calls `round` or `close` holds the engine's lock.
    """

    def __init__(
        self,
        engine: Engine,
        chunk: int = CHUNK,
        max_rows: int | None = None,
        max_bytes: int | None = None,
        arrange: Arrange | None = None,
    ) -> None:
        for name, value in {"chunk": chunk, "max_rows": max_rows, "max_bytes": max_bytes}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"{name}={value!r}: a positive whole number, or None for no limit of its own.")
        self.engine, self.chunk, self.session = engine, chunk, engine.gather(arrange)
        self.max_rows = np.inf if max_rows is None else max_rows
        self.max_bytes = engine.live_bytes if max_bytes is None else max_bytes
        self.members: list[Member] = []
        self.coming: list[Coming] = []

    def add(self, going: Member) -> None:
        self.members.append(going)

    def round(self) -> list[Member]:
        """One pass for everyone, or none where nothing is to be computed; the members that are done with it."""
        self._admit()
        self._draw(self._arrived())
        self._make_way()
        pieces = self._pieces()
        fed = self._fed(pieces)
        pieces = [(coming, unit) for coming, unit in pieces if coming.rows]
        if fed or pieces:
            tokens = [going.tokens[row][-1] for going, row in fed]
            numbers = [going.place[row] for going, row in fed]
            paths = self.session.append(tokens, numbers, [unit for _, unit in pieces], self._spare())
            for (coming, _), path in zip(pieces, paths, strict=True):
                coming.held.append(path)
        self._draw(fed + self._arrived())
        done = [going for going in self.members if going.done]
        self.members = [going for going in self.members if not going.done]
        return done

    def close(self, keep: bool = True) -> None:
        """Everyone leaves; with `keep`, what has been computed goes to the cache."""
        for coming in self.coming:
            self._unpin(coming)
        self.coming, self.members = [], []
        self.session.close(keep)

    @property
    def rows(self) -> int:
        """Rows that are in, or on their way."""
        return int(self.session.live.sum()) + sum(len(coming.rows) for coming in self.coming)

    # who comes in

    def _admit(self) -> None:
        """Waiting rows begin to be opened, first come first served, as far as there is room."""
        for going in self.members:
            if going.waiting and sum(u.length for coming in self.coming for u in coming.units) < self.chunk:
                rows, reserve = self._room(going)
                if not rows:
                    break
                if not self._in_the_making(going.tokens[rows[0]]):
                    self._open(going, rows, reserve)
        for going in self.members:
            if going.waiting:
                going.pay(going.waiting)  # nothing: who is cancelled, or out of time, need not wait for a place

    def _room(self, going: Member) -> tuple[list[int], int]:
        """The first of its waiting rows that can come in now, and an estimate of the bytes they will hold."""
        taken = self.rows
        spare = self.max_bytes - self.session.bytes - sum(coming.reserve for coming in self.coming)
        each, slots = self.engine.bytes_per_position, self.session.slots
        rows: list[int] = []
        reserve = 0
        before: Tokens = ()
        for row in going.waiting:
            tokens = going.tokens[row]
            pinned = sum(span.length for span in self.engine.cache.match(tokens) if span.segment.pins)
            new = len(tokens) - max(pinned, common(before, tokens))
            more = new * each + slots.reserve(new)
            if (taken or rows) and (taken + len(rows) >= self.max_rows or reserve + more > spare):
                break
            rows.append(row)
            reserve, before = reserve + more, tokens
        return rows, reserve

    def _in_the_making(self, tokens: Tokens) -> bool:
        """Whether some of what a sequence lacks is being computed for another: it waits, and finds it in the cache."""
        known = path_length(self.engine.cache.match(tokens))
        worth = min(SHARE, len(tokens) - known)
        units = (unit for coming in self.coming for unit in coming.units)
        return worth > 0 and any(common(unit.tokens, tokens) - max(known, unit.start) >= worth for unit in units)

    def _open(self, going: Member, rows: list[int], reserve: int) -> None:
        """Pays for what `rows` lack, and for the token that each draws next."""
        sequences = [going.tokens[row] for row in rows]
        before = going.states.drawn(going.process.name)
        drawn = [
            len(tokens) if len(tokens) > len(going.states.tokens[row]) else before[row]
            for row, tokens in zip(rows, sequences, strict=True)
        ]
        owed, index = going.owed(rows), np.array(rows, np.int64)
        left, plan = paid(self.engine, sequences, going.limit, owed, drawn, index, calls=False)
        allowed = [] if plan is None else [rows[i] for i in left.tolist()]
        going.refuse([row for row in rows if row not in set(allowed)])
        if plan is None:
            return
        going.waiting = going.waiting[len(allowed) :]
        going.coming |= set(allowed)
        going.owes[allowed] = False
        self.engine.counters.served += int((plan.cached + plan.shared).sum())
        held = [self.engine.cache.match(tokens) for tokens in plan.sequences]
        for path in held:
            self.engine.cache.pin(path)
        units = [Unit(u.tokens, u.start, allowed[u.row]) for depth in plan.units for u in depth]
        alike, parents = Counter(plan.sequences), {u.tokens[: u.start] for u in units}
        lone = [u.length == 1 and u.start > 0 and alike[u.tokens] == 1 and u.tokens not in parents for u in units]
        late = {u.row for u, alone in zip(units, lone, strict=True) if alone}
        units = [u for u, alone in zip(units, lone, strict=True) if not alone]
        self.coming.append(Coming(going, allowed, units, late, held, reserve))

    def _arrived(self) -> list[tuple[Member, int]]:
        """Rows whose every position is cached join the session, as many as it has room for; the others wait again."""
        found = []
        for coming in [c for c in self.coming if not c.units]:
            going, rows = coming.going, [row for row in coming.rows if row not in coming.late]
            fit = self._fitting([going.tokens[row] for row in rows])
            numbers = self.session.join([going.tokens[row] for row in rows[:fit]], self._spare()) if fit else []
            going.place |= dict(zip(rows, numbers, strict=False))
            found += [(going, row) for row in rows[:fit]]
            self._in(coming, rows[:fit])
            self._wait(coming, rows[fit:])
        return found

    def _fitting(self, sequences: list[Tokens]) -> int:
        """How many of `sequences`, which are cached, can join within `max_bytes`; at least one where nobody is in."""
        count = len(sequences)
        while count and self.session.needs(sequences[:count]) > self.max_bytes - self._pinned():
            count = count // 2
        return count if count or self.session.live.any() else min(1, len(sequences))

    def _in(self, coming: Coming, rows: Sequence[int]) -> None:
        """These rows are on their way no more; with the last one, what was pinned for them is let go."""
        coming.going.coming -= set(rows)
        coming.rows = [row for row in coming.rows if row not in set(rows)]
        if not coming.rows:
            self._unpin(coming)
            self.coming.remove(coming)

    def _wait(self, coming: Coming, rows: Sequence[int]) -> None:
        if rows:
            self._in(coming, rows)
            coming.going.waiting = sorted([*coming.going.waiting, *rows])

    def _unpin(self, coming: Coming) -> None:
        for path in coming.held:
            self.engine.cache.unpin(path)
        self.engine.cache.trim()

    # what is computed

    def _pieces(self) -> list[tuple[Coming, Unit]]:
        """The next stretches of prompts, at most `chunk` positions, whose own past is there.

        A pass lays them and their pasts out side by side, as long as the longest: a quarter of the bytes bounds that.
        """
        found: list[tuple[Coming, Unit]] = []
        left, longest, most = self.chunk, 0, self.max_bytes // (4 * max(1, self.session.slots.position_bytes))
        for coming in self.coming:
            rest: list[Unit] = []
            for unit in coming.units:
                ready = left and path_length(self.engine.cache.match(unit.tokens[: unit.start])) == unit.start
                size = min(unit.length, left) if ready else 0
                if found and (len(found) + 1) * max(longest, unit.start + size) > most:
                    size = 0
                if size:
                    found.append((coming, Unit(unit.tokens[: unit.start + size], unit.start, unit.row)))
                    left, longest = left - size, max(longest, unit.start + size)
                if size < unit.length:
                    rest.append(Unit(unit.tokens, unit.start + size, unit.row))
            coming.units = rest
        return found

    def _fed(self, pieces: list[tuple[Coming, Unit]]) -> list[tuple[Member, int]]:
        """Rows whose last token is fed now. Each member pays for its own, and once for a pass that does any of its
        work; who cannot pay is out."""
        fed = []
        for going in self.members:
            live = list(going.place)
            late = [(coming, row) for coming in self.coming if coming.going is going for row in self._late(coming)]
            read = sorted({unit.row for coming, unit in pieces if coming.going is going} - set(live))
            if not (live or late or read):
                continue
            each, once = self.engine.feed([len(going.tokens[row]) for row in live])
            payers = live + [row for _, row in late] + read
            allowed = set(going.pay(payers, [*each, *([FREE] * (len(payers) - len(live)))], once))
            self._leave(going, [row for row in live if row not in allowed])
            for coming in [c for c in self.coming if c.going is going]:
                self._in(coming, [row for row in coming.rows if row in payers and row not in allowed])
            going.owes[[row for row in live if row in allowed]] = False
            late = [(coming, row) for coming, row in late if row in allowed]
            if late:  # together: a buffer that grows row by row is copied each time
                numbers = self.session.join([going.tokens[row][:-1] for _, row in late], self._spare())
                going.place |= {row: number for (_, row), number in zip(late, numbers, strict=True)}
                for coming, row in late:
                    self._in(coming, [row])
            fed += [(going, row) for row in going.place]
        return fed

    def _late(self, coming: Coming) -> list[int]:
        """Rows that lack their last token alone and can join without it."""
        rows = [
            row
            for row, tokens in zip(coming.rows, coming.sequences(), strict=True)
            if row in coming.late and path_length(self.engine.cache.match(tokens[:-1])) == len(tokens) - 1
        ]
        return rows[: self._fitting([coming.going.tokens[row][:-1] for row in rows])]

    def _make_way(self) -> None:
        """Where the buffer must grow beyond the bytes, the rows that came last go back to wait."""
        slots = self.session.slots
        while slots.full and len(slots) > 1 and slots.grown() > self._spare():
            going = next(going for going in reversed(self.members) if going.place)
            row = max(going.place)
            self._leave(going, [row])
            going.waiting = sorted([*going.waiting, row])

    def _draw(self, fresh: Sequence[tuple[Member, int]]) -> None:
        """A token for each of these rows, those of all members by the same rule at once; who is done leaves."""
        if not fresh:
            return
        logits = self.session.logits([going.place[row] for going, row in fresh])
        at = np.array([len(going.tokens[row]) for going, row in fresh], np.uint64)
        u = uniforms(np.array([going.keys[row] for going, row in fresh], np.uint64), at)
        rules: dict[tuple[float, float], list[int]] = {}
        members: dict[Member, list[int]] = {}
        for i, (going, _) in enumerate(fresh):
            rules.setdefault((going.process.temperature, going.process.top_p), []).append(i)
            members.setdefault(going, []).append(i)
        tokens, logp = np.zeros(len(fresh), np.int64), np.zeros(len(fresh))
        for rule, some in rules.items():
            tokens[some], logp[some] = draw(logits[some] if len(rules) > 1 else logits, u[some], *rule)
        for going, some in members.items():
            likely = going.process.logprobs
            told = None if likely is None else alternatives(logits[some], tokens[some], likely)
            rows = [fresh[i][1] for i in some]
            self._leave(going, going.take(rows, tokens[some].tolist(), logp[some].tolist(), told))
            self._leave(going, going.beaten())

    def _leave(self, going: Member, rows: Sequence[int]) -> None:
        if rows:
            self.session.leave([going.place.pop(row) for row in rows])

    def _pinned(self) -> int:
        """Bytes of the cache that rows see, and those on their way."""
        held = {span.segment for coming in self.coming for path in coming.held for span in path}
        return sum(segment.bytes for segment in held | self.session.pinned())

    def _spare(self) -> int:
        """Bytes that the rows' own buffer may have."""
        return self.max_bytes - self._pinned()


class Alone(Member):
    """A step that shares its passes with no other."""

    def run(self) -> Stepped:
        joined = Joined(self.process.engine)
        joined.add(self)
        try:
            while not self.done:
                joined.round()
        finally:
            joined.close()
        return self.reply()
