"""Rows that join and leave a running session have the logits they would have alone, and are moved least."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anystep.errors import UsageError
from anystep.language.engine.plan import Unit
from anystep.language.engine.slots import window
from models import text, tiny_engine

GEMMA: dict[str, Any] = {
    "layers": 3,
    "windows": (7, 7, None),
    "qk_norm": True,
    "sandwich": True,
    "gate": "gelu",
    "near_theta": 1e3,
    "kv_heads": 1,
    "embed_scale": 5.0,
}
SHAPES: dict[str, dict[str, Any]] = {"llama": {}, "gemma": GEMMA, "window": {"windows": (5, 9)}}


def truth(engine, tokens):
    return engine.model.logits(engine.model(torch.tensor([tokens])))[0, -1]


def cached(engine, *sequences):
    engine.open(engine.plan(sequences)).close()


def same_as_alone(engine, session, rows):
    logits = session.logits(rows)
    for row, mine in zip(rows, logits, strict=True):
        assert (mine - truth(engine, session.tokens[row])).abs().max() < 1e-4, row


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_come_and_go_and_none_notices(shape):
    """Prompts that share much or nothing come at any time, read in pieces beside others; rows pause and leave."""
    engine, rng = tiny_engine(**SHAPES[shape]), np.random.default_rng(1)
    shared = text(50, seed=9)
    session, left, waiting = engine.gather(), [], {}
    for turn in range(60):
        if turn % 3 == 0 and turn < 45:
            own = text(int(rng.integers(1, 40)), seed=turn)
            waiting[turn] = (*shared, *own) if turn % 2 else own
        units, done = [], []
        for name, tokens in waiting.items():
            known = engine.plan([tokens]).cached[0]
            if known < len(tokens):
                units.append(Unit(tokens[: known + 11], int(known), 0))
            else:
                done.append(name)
        fresh = session.join([waiting.pop(name) for name in done]) if done else []
        same_as_alone(engine, session, fresh)
        rows = [int(row) for row in np.flatnonzero(session.live) if rng.random() < 0.8]
        before = (engine.counters.passes, engine.counters.positions)
        paths = session.append(rng.integers(3, 64, len(rows)).tolist(), rows, units)
        if rows or units:
            assert engine.counters.passes == before[0] + 1
            assert engine.counters.positions == before[1] + len(rows) + sum(u.length for u in units)
        for path in paths:
            engine.cache.unpin(path)
        same_as_alone(engine, session, rows)
        gone = [int(row) for row in np.flatnonzero(session.live) if rng.random() < 0.08]
        left += [tuple(session.tokens[row]) for row in gone]
        session.leave(gone)
    assert session.slots.moved > 0 and len(left) > 5
    session.close()
    assert session.bytes == 0 and session.slots.buffer.shape[2] == 0
    plan = engine.plan(left)  # what they had is in the cache, each row's own in its place
    assert plan.prefill.sum() == 0
    with engine.open(plan) as again:
        for row, tokens in enumerate(left):
            assert (again.logits([row])[0] - truth(engine, tokens)).abs().max() < 1e-4
    engine.cache.trim(0)
    assert engine.cache.bytes == 0  # no pin was left


@pytest.mark.parametrize("shape", SHAPES)
def test_who_comes_later_shares_the_prompt_of_who_is_there(shape):
    engine, prompt = tiny_engine(**SHAPES[shape]), text(100)
    first = (*prompt, *text(20, seed=1))
    cached(engine, first)
    session = engine.gather()
    session.join([first])
    session.append([5])
    alone = int(session.slots.own[0])
    assert alone == 121 and session.slots.base[0] == 0  # alone, it has a copy
    others = [(*prompt, *text(9, seed=2 + i)) for i in range(5)]
    for one in others:
        cached(engine, one)
    copied = engine.counters.copied_prompt_bytes
    session.join(others)
    assert (session.slots.base[:6] == 100).all() and session.slots.own[0] == 21
    assert engine.counters.copied_prompt_bytes - copied == 5 * 9 * session.slots.position_bytes
    for step in range(4):
        session.append([7 + step] * 6)
        same_as_alone(engine, session, range(6))
    session.leave([1, 2, 3, 4, 5])
    session.append([9])
    same_as_alone(engine, session, [0])
    session.close()


def test_equal_rows_cost_one_product_until_they_part():
    engine = tiny_engine()
    cached(engine, text(30))
    session = engine.gather()
    a, b = session.join([text(30)] * 2)
    (c,) = session.join([text(30)])
    assert session.origin[a] == session.origin[b] != session.origin[c]
    session.append([5, 6, 5])
    assert len({int(session.origin[row]) for row in (a, b, c)}) == 3
    same_as_alone(engine, session, [a, b, c])
    session.close()


def fewest_moves(active, total):
    """By trying every window: how many rows are outside the best one."""
    n = len(active)
    return min(sum(not low <= slot < low + n for slot in active) for low in range(total - n + 1))


@given(
    st.integers(1, 9).flatmap(lambda total: st.tuples(st.just(total), st.sets(st.integers(0, total - 1), min_size=1)))
)
def test_the_window_takes_the_fewest_moves(case):
    total, slots = case
    active = np.sort(np.array(list(slots)))
    low, width, moves = window(active, total)
    after = set(active.tolist())
    for here, there in moves:
        assert here in after and there not in after
        after = after - {here} | {there}
    assert after == set(range(low, low + width)) and width == len(active)
    assert len(moves) == fewest_moves(active.tolist(), total)


def test_no_order_of_single_moves_does_better():
    """Brute force over all sets of rows that may stay: a contiguous block needs at least as many moves as were made."""
    for total in range(1, 8):
        for n in range(1, total + 1):
            for active in combinations(range(total), n):
                blocks = [set(range(low, low + n)) for low in range(total - n + 1)]
                best = min(n - len(block & set(active)) for block in blocks)
                assert len(window(np.array(active), total)[2]) == best


def test_slots_of_the_buffer_are_used_again():
    engine = tiny_engine()
    cached(engine, *[text(5, seed=i) for i in range(40)])
    session = engine.gather()
    for i in range(40):
        session.join([text(5, seed=i)])
        session.append([7] * len(session.slots))
        if len(session.slots) == 4:
            session.leave([int(np.flatnonzero(session.live)[i % 4])])
    assert session.slots.buffer.shape[2] <= 4 and len(session) == 4
    session.close()


def test_a_buffer_keeps_to_its_bytes_where_it_can():
    engine = tiny_engine()
    prompts = [text(5, seed=i) for i in range(9)]
    cached(engine, *prompts)
    session = engine.gather()
    position = session.slots.position_bytes
    session.join(prompts[:4])
    assert session.slots.buffer.shape[2::2] == (4, 37)
    session.join(prompts[4:5], most=5 * 37 * position + session.slots.buffer.nbytes)
    assert session.slots.buffer.shape[2::2] == (5, 37)  # not eight, as without a bound
    for _ in range(40):
        session.append([5] * 5, most=0.0)
    assert session.slots.buffer.shape[4] < 2 * 45
    same_as_alone(engine, session, range(5))
    session.close()


def test_bad_calls_are_refused_in_one_line():
    engine = tiny_engine(context=8)
    session = engine.gather()
    with pytest.raises(UsageError, match="engine.open"):
        session.join([text(5)])
    cached(engine, text(7))
    (row,) = session.join([text(7)])
    with pytest.raises(UsageError, match="one token a live row"):
        session.append([5, 6])
    session.append([5])
    with pytest.raises(UsageError, match="context of 8"):
        session.append([5])
    session.leave([row])
    with pytest.raises(UsageError, match="live row"):
        session.append([5], [row])
