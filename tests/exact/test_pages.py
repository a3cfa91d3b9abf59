"""Rows in pages have, to the last bit, the logits that they have in slots; nothing is copied; pages are used again."""

from typing import Any

import numpy as np
import pytest
import torch

from anystep import keys
from anystep.language import LanguageProcess
from anystep.language.engine.engine import Engine
from anystep.language.engine.native import library
from anystep.language.engine.native.attention import nearest, table
from anystep.language.engine.pages import PAGE, Pages, Pool
from anystep.language.engine.plan import Unit
from anystep.language.engine.slots import window
from anystep.ledger import Ledger, Limit
from models import text, tiny_engine

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler, or a CPU without AVX-512 dot products")
SIZE: dict[str, Any] = {"dim": 64, "hidden": 96, "head_dim": 16, "scale": 0.2}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": SIZE,
    "window": SIZE | {"windows": (5, None)},
    "near": SIZE | {"windows": (40, 3)},
}


def cached(engine: Engine, *sequences: tuple[int, ...]) -> None:
    engine.open(engine.plan(sequences)).close()


def story(engine: Engine, session: Any) -> tuple[list[torch.Tensor], list[tuple[int, ...]]]:
    """Rows come at any time, some with a prompt that is read beside others, pause, and leave; all logits on the way."""
    rng, seen, left, waiting = np.random.default_rng(1), [], [], {}
    shared = text(50, seed=9)
    for turn in range(90):
        if turn % 3 == 0 and turn < 60:
            own = text(int(rng.integers(1, 40)), seed=turn)
            waiting[turn] = (*shared, *own) if turn % 2 else own
        units, done = [], []
        for name, tokens in waiting.items():
            known = int(engine.plan([tokens]).cached[0])
            if known < len(tokens):
                units.append(Unit(tokens[: known + 23], known, 0))
            else:
                done.append(name)
        if done:
            seen.append(session.logits(session.join([waiting.pop(name) for name in done])))
        rows = [int(row) for row in np.flatnonzero(session.live) if rng.random() < 0.8]
        for path in session.append(rng.integers(3, 64, len(rows)).tolist(), rows, units):
            engine.cache.unpin(path)
        seen.append(session.logits(rows))
        gone = [int(row) for row in np.flatnonzero(session.live) if rng.random() < 0.03]
        left += [tuple(session.tokens[row]) for row in gone]
        session.leave(gone)
    return seen, left


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_in_pages_are_rows_in_slots_to_the_last_bit(shape: str) -> None:
    ours, theirs = tiny_engine(**SHAPES[shape]), tiny_engine(**SHAPES[shape])
    paged, slotted = ours.gather(), theirs.gather(window)
    assert isinstance(paged.slots, Pages) and not isinstance(slotted.slots, Pages)
    (mine, left), (other, _) = story(ours, paged), story(theirs, slotted)
    assert len(mine) == len(other) and all(map(torch.equal, mine, other))
    assert max(own.length for own in paged.slots.at.values()) > PAGE  # some have filled a page
    assert ours.counters.copied_own_bytes < theirs.counters.copied_own_bytes
    paged.close()
    assert paged.bytes == 0 and len(left) > 5
    plan = ours.plan(left)  # what they had is in the cache, each row's own in its place
    assert plan.prefill.sum() == 0
    with ours.open(plan) as again:
        for row, tokens in enumerate(left):
            alone = ours.model.logits(ours.model(torch.tensor([tokens])))[0, -1]
            assert (again.logits([row])[0] - alone).abs().max() < 1e-4
    ours.cache.trim(0)
    assert ours.cache.bytes == 0  # no pin was left


def test_nothing_is_copied_until_a_row_leaves_and_then_what_it_wrote() -> None:
    engine = tiny_engine(**SIZE)
    prompts = [text(9, seed=i) for i in range(6)]
    cached(engine, *prompts)
    session = engine.gather()
    before = engine.counters.copied_prompt_bytes
    rows = session.join(prompts)
    for _ in range(PAGE + 3):
        session.append([5] * 6)
    assert engine.counters.copied_prompt_bytes == before and engine.counters.copied_own_bytes == 0
    assert session.slots.bytes == 12 * engine.pages.page_bytes
    session.leave(rows[:2])
    assert engine.counters.copied_own_bytes == 2 * (PAGE + 3) * session.slots.position_bytes
    assert session.slots.bytes == 8 * engine.pages.page_bytes and engine.pages.bytes == 4 * engine.pages.page_bytes
    session.join(prompts[:2])
    session.append([6] * 6)
    assert engine.pages.bytes == 2 * engine.pages.page_bytes  # used again
    session.leave([0])  # rows that wrote nothing of their own leave nothing
    session.close()
    assert len(engine.pages.free) == 12


def test_a_pool_keeps_no_more_than_it_may() -> None:
    pool = Pool(torch.empty(2, 2, 2, 0, 16), 3 * 2 * 2 * 2 * PAGE * 16 * 4)
    pages = [pool.take() for _ in range(5)]
    pool.give(pages)
    assert len(pool.free) == 3 and pool.bytes == 3 * pool.page_bytes == 3 * pages[0].nbytes
    nothing = Pool(torch.empty(2, 2, 2, 0, 16), 1)
    nothing.give(pages)
    assert not nothing.free


@pytest.mark.parametrize("size", [1, 5, 31, 32, 33, 63, 64, 65, 96, 200])
def test_what_a_window_leaves_of_places_is_what_it_leaves_of_lists(size: int) -> None:
    held = [torch.zeros(2, 2, 3, length, 16) for length in (40, 7, PAGE, PAGE)]
    stretches = [(held[0], 0, 40), (held[1], 0, 5), (held[2], 0, PAGE), (held[3], 0, 19)]
    _, whole = table([stretches], None)
    _, wanted = table([stretches], size)
    assert (nearest(whole, size, 16) == wanted).all()
    assert (table([stretches], None)[1] == whole).all()  # and leaves what it was given as it was


def test_steps_keep_to_the_bytes_of_rows_that_go_on() -> None:
    """In turns where not all fit, with the same answers, and never more pages than their share."""
    roomy = tiny_engine(**SIZE)
    page, prompt = roomy.pages.page_bytes, "one and two and "
    answers, most = [], 0
    for engine in (roomy, Engine(roomy.model, roomy.tokenizer, 1, name="tiny", live_bytes=10 * page)):
        gather, sessions = engine.gather, []
        engine.gather = lambda *a, gather=gather, kept=sessions: kept.append(gather(*a)) or kept[-1]  # type: ignore
        run = engine.run

        def watched(*args: Any, run: Any = run, kept: Any = sessions) -> Any:
            nonlocal most
            most = max([most, *(session.slots.bytes for session in kept)])
            return run(*args)

        engine.run = watched  # type: ignore[method-assign]
        process = LanguageProcess(engine, prompt, unit="completion", max_tokens=70)
        some = keys.roots(0, (), np.arange(12))
        begun = process.start(some, Limit(Ledger(), "test")).states
        answers.append(process.step(begun, some, Limit(Ledger(), "test"), "done").states.tokens)
        if engine is roomy:
            assert most > 20 * page
            most = 0
    assert answers[0] == answers[1] and 2 * page <= most <= 10 * page
