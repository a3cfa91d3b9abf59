"""More live states than memory holds are computed again and charged; answers and laws do not change, bounds hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from anystep import Run, drive, keys, search, verify
from anystep.errors import UsageError
from anystep.language import LanguageProcess, load
from anystep.language.engine.engine import Engine
from anystep.ledger import Budget, Ledger, Limit
from anystep.process import Status
from models import chain_engine, text, tiny_engine


class Watched:
    """The most that an engine's cache and its sessions' buffers held when a pass began, and rows in a pass."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = self.rows = 0
        sessions: list[Any] = []
        gather, run = engine.gather, engine.run

        def gathered(*args: Any) -> Any:
            sessions.append(gather(*args))
            return sessions[-1]

        def watched(*args: Any) -> Any:
            held = sum(session.slots.bytes for session in sessions)
            self.bytes = max(self.bytes, held + engine.cache.bytes)
            self.rows = max(self.rows, args[0].shape[0])
            return run(*args)

        monkeypatch.setattr(engine, "gather", gathered)
        monkeypatch.setattr(engine, "run", watched)


def limit(**caps: int) -> Limit:
    return Limit(Ledger(Budget(**caps), reserve=0.0), "test")  # type: ignore[arg-type]


def some_keys(n: int) -> Any:
    return keys.roots(0, (), np.arange(n))


def stepped(engine: Engine, n: int, until: Any = "done", **options: Any) -> Any:
    process = LanguageProcess(engine, "one and two and ", unit="completion", **({"max_tokens": 24} | options))
    begun = process.start(some_keys(n), limit()).states
    account = limit()
    return process.step(begun, some_keys(n), account, until), account.used


def bounded(live_rows: int, cache_rows: float = 1.0, **shape: Any) -> Engine:
    """A tiny engine that holds so many rows of 64 positions while they go on, and in its cache."""
    roomy = tiny_engine(scale=0.15, **shape)
    size = 64 * roomy.bytes_per_position
    return Engine(
        roomy.model, roomy.tokenizer, int(cache_rows * size), name="tiny", live_bytes=int(2 * live_rows * size)
    )


def test_a_thousand_rows_go_on_within_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bounded(live_rows=60)
    watched = Watched(engine, monkeypatch)
    reply, cost = stepped(engine, 1000, max_tokens=12)
    assert watched.bytes <= engine.live_bytes + engine.cache.limit
    assert 60 <= watched.rows < 1000
    free, paid = stepped(tiny_engine(scale=0.15), 1000, max_tokens=12)
    assert reply.states.tokens == free.states.tokens and (reply.status == free.status).all()
    assert np.allclose(reply.logp, free.logp, atol=1e-4)
    assert (cost.generated, cost.evaluations) == (paid.generated, engine.counters.positions)
    assert cost.evaluations >= paid.evaluations and cost.calls == engine.counters.passes > paid.calls
    engine.cache.trim(0)
    assert engine.cache.bytes == 0


@pytest.mark.parametrize("until", [1, 3, 40])
def test_a_race_in_turns_is_decided_as_side_by_side(until: int) -> None:
    """Those who wait may be shorter than those who were first: what ran too far is taken back."""
    options = {"end": ("e", "ki"), "max_tokens": 60}
    free, _ = stepped(tiny_engine(scale=0.15), 48, until, **options)
    engine = bounded(live_rows=4)
    reply, cost = stepped(engine, 48, until, **options)
    assert reply.states.tokens == free.states.tokens and (reply.status == free.status).all()
    assert (reply.cut == free.cut).all() and np.allclose(reply.logp, free.logp, atol=1e-4)
    assert cost.evaluations == engine.counters.positions


def test_a_race_takes_back_what_ran_too_far() -> None:
    engine = bounded(live_rows=1)
    free, _ = stepped(tiny_engine(scale=0.15), 12, 1, end=("e",), max_tokens=60)
    reply, cost = stepped(engine, 12, 1, end=("e",), max_tokens=60)
    assert reply.states.tokens == free.states.tokens and (reply.status == free.status).all()
    assert (reply.status == Status.DONE).sum() >= 1
    assert cost.generated >= sum(len(out) for out in reply.states.outputs())


@pytest.mark.parametrize("shape", [{}, {"layers": 3, "windows": (7, 7, None), "kv_heads": 1}])
def test_steps_from_states_that_were_dropped_are_paid_again(shape: dict[str, Any]) -> None:
    """Token by token, with next to no cache: each step computes what the one before had, and says so."""
    engine, roomy = bounded(4, 0.1, **shape), tiny_engine(scale=0.15, **shape)
    spent, states = [], []
    for one in (engine, roomy):
        process = LanguageProcess(one, "one and two and ", unit="token", max_tokens=8)
        account, now = limit(), process.start(some_keys(40), limit()).states
        for _ in range(6):
            now = process.step(now, some_keys(40), account, "step").states
        spent.append(account.used)
        states.append(now.tokens)
        assert account.used.evaluations == one.counters.positions
    assert states[0] == states[1] and spent[0].prompt > 20 * spent[1].prompt


def test_256_particles_with_next_to_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learned reward, and an engine that holds a few of the particles: the same answer, and what a step finds no more
    is computed again and paid."""
    judge = verify.chain_steps().log_odds()
    method = search.particle_filter(n=256, potential=judge)
    prompt = "A6+8+9+6-5?"
    options: dict[str, Any] = {"stop": "\n", "max_tokens": 60}
    judge.forget()
    (expected,) = drive(Run(LanguageProcess(chain_engine(), prompt, **options), method, seed=1))
    one = chain_engine()
    size = 64 * one.bytes_per_position
    engine = Engine(one.model, one.tokenizer, 1, name=one.name, live_bytes=40 * size)
    judge.forget()
    watched = Watched(engine, monkeypatch)
    (found,) = drive(Run(LanguageProcess(engine, prompt, **options), method, seed=1))
    assert found.text == expected.text
    assert watched.bytes <= engine.live_bytes + engine.cache.limit and 4 < watched.rows < 256
    assert found.cost.prompt > 2 * expected.cost.prompt and found.cost.generated == expected.cost.generated


def test_a_row_that_needs_more_than_all_goes_on_alone() -> None:
    engine = tiny_engine(scale=0.15)
    small = Engine(engine.model, engine.tokenizer, 1, name="tiny", live_bytes=1)
    reply, cost = stepped(small, 5)
    assert reply.states.tokens == stepped(engine, 5)[0].states.tokens
    assert cost.prompt == 5 * len("one and two and ")  # one after the other, and nothing kept


def test_reading_and_branching_are_done_in_portions() -> None:
    engine = bounded(3)
    process = LanguageProcess(engine, "one and two and ", unit="token", max_tokens=8)
    free = LanguageProcess(tiny_engine(scale=0.15), "one and two and ", unit="token", max_tokens=8)
    states = process.start(some_keys(1), limit()).states
    rows = tuple((*states.tokens[0], *text(90, seed=i)) for i in range(9))
    begun = type(states)(rows, (len(states.tokens[0]),) * 9, states.tokenizer)
    mine, theirs = (p.expand(begun, 3, some_keys(9), limit()) for p in (process, free))
    assert mine.states.tokens == theirs.states.tokens and np.allclose(mine.logp, theirs.logp, atol=1e-4)
    assert engine.counters.passes > free.engine.counters.passes


def test_the_bound_is_a_parameter_of_load() -> None:
    assert load("chainlm-2m", live_bytes=12_345).live_bytes == 12_345
    with pytest.raises(UsageError, match="live_bytes=0"):
        load("chainlm-2m", live_bytes=0)
