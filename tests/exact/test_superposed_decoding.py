"""Superposed decoding: against greedy decoding, plain passes over the same vectors, and counting by hand."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from anystep.errors import Unsupported, UsageError
from anystep.language.accelerate import Mixing, NGrams, superposed_decoding
from anystep.language.accelerate.ngrams import documentation, paragraphs, reference
from anystep.language.accelerate.superposed import ORDERS, UNSEEN, Beams, Stream
from anystep.language.engine.engine import Engine
from anystep.ledger import Budget, Ledger, Limit
from anystep.tasks.chains import problems
from anystep.testing import counted_torch
from models import chain_engine, text, tiny_engine

SHAPES = [{}, {"tied": False}, {"windows": (5, None), "near_theta": 300.0}]


def greedy(engine: Engine, prompt: tuple[int, ...], steps: int) -> tuple[list[int], float]:
    """Greedy tokens up to an end, and the smallest gap between the best two logits on the way."""
    out, gap = list[int](), np.inf
    with engine.open(engine.plan([prompt])) as session:
        while len(out) < steps and not (out and out[-1] in engine.tokenizer.ends):
            best = session.logits()[0].topk(2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            out.append(int(best.indices[0]))
            session.append(out[-1:])
    return out, gap


@pytest.mark.parametrize("shape", SHAPES)
def test_one_draft_without_n_grams_is_greedy_decoding(shape: dict[str, object]) -> None:
    engine, compared = tiny_engine(scale=0.15, **shape), 0
    for seed in range(30):
        prompt = text(4 + seed % 9, seed)
        want, gap = greedy(engine, prompt, 12)
        if gap < 1e-4:  # a near tie: either is right
            continue
        found = superposed_decoding(engine, prompt, k=1, tokens=12).drafts
        assert [list(draft.tokens) for draft in found] == [want]
        assert found[0].ended == (want[-1] in engine.tokenizer.ends)
        compared += 1
    assert compared >= 28


@pytest.mark.parametrize("k", [1, 3, 8])
def test_a_step_forwards_one_position_whatever_k(k: int) -> None:
    engine, prompt, limit = tiny_engine(), text(20), Limit(Ledger(), "tiny")
    engine.open(engine.plan([prompt])).close()
    ngrams = NGrams([text(400, seed=1)])
    with counted_torch(engine.model) as work:
        found = superposed_decoding(engine, prompt, k, 6, ngrams, limit=limit)
    assert (work.calls, work.evaluations) == (5, 5)  # the first token comes with the prompt
    assert found.cost.same(limit.used) and found.cost.evaluations == found.cost.calls == 5
    assert found.cost.prompt == 0 and found.cost.cached == 20 and found.cost.generated == 6 * k
    assert len({draft.tokens for draft in found.drafts}) == len(found.drafts) == k
    assert [d.score for d in found.drafts] == sorted((d.score for d in found.drafts), reverse=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_are_read_as_in_one_plain_pass(shape: dict[str, object]) -> None:
    engine, prompt = tiny_engine(**shape), text(9)
    vectors = torch.randn(6, 32, generator=torch.Generator().manual_seed(3))
    with engine.open(engine.plan([prompt])) as session:
        stream = Stream(engine, session, 6)
        found = torch.stack([stream.feed(vector, 9 + i) for i, vector in enumerate(vectors)])
    inputs = torch.cat([engine.model.embed(torch.tensor(prompt)), vectors])[None]
    want = engine.model.logits(engine.model(torch.zeros(1, 15, dtype=torch.long), inputs=inputs))[0, 9:]
    assert (found - want).abs().max() < 1e-4


def shares(corpus: list[tuple[int, ...]], past: tuple[int, ...]) -> Counter[int]:
    """What follows `past`, counted place by place."""
    n = len(past)
    return Counter(t[i + n] for t in corpus for i in range(len(t) - n) if t[i : i + n] == past)


def test_counts_are_those_of_going_through_the_texts() -> None:
    rng = np.random.default_rng(0)
    corpus = [tuple(rng.integers(0, 4, n).tolist()) for n in (50, 1, 7, 30)]
    ngrams = NGrams(corpus, order=5)
    assert len(ngrams) == 88 and "88 tokens, order=5" in repr(ngrams)
    for _ in range(400):
        past = tuple(rng.integers(0, 5, rng.integers(0, 5)).tolist())
        counts, found = shares(corpus, past), ngrams.share(past, range(6))
        if not counts:
            assert found is None
        else:
            assert found is not None and found.tolist() == [counts[t] / counts.total() for t in range(6)]


def test_a_step_keeps_the_best_of_all_pairs_of_draft_and_token() -> None:
    """Scores by the paper's formula, written out again, over every pair."""
    engine, prompt, corpus = tiny_engine(), text(6), [text(3_000, seed=5)]
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)) * 2
    mixing = Mixing(weight=0.4, temperature=0.5, kept=8)
    beams = Beams(engine, prompt, 3, NGrams(corpus), mixing)
    alive: dict[tuple[int, ...], float] = {(): 0.0}
    for row in logits:
        best = row.topk(8)
        logp = (best.values.double() / 0.5).log_softmax(-1)
        pairs = {}
        for tokens, score in alive.items():
            for token, sharp in zip(best.indices.tolist(), logp.tolist(), strict=True):
                mass = 0.0
                for order, weight in enumerate(ORDERS, start=1):
                    counts = shares(corpus, (prompt + tokens)[-order:])
                    mass += weight * (counts[token] / counts.total() if counts else 0)
                pairs[(*tokens, token)] = score + 0.6 * sharp + (0.4 * np.log(mass) if mass else -UNSEEN)
        pairs = {t: s for t, s in pairs.items() if t[-1] not in engine.tokenizer.ends}
        alive = dict(sorted(pairs.items(), key=lambda pair: -pair[1])[:3])
        beams.grow(row)
        assert [tokens for _, tokens in beams.alive] == list(alive)
        assert np.allclose([score for score, _ in beams.alive], list(alive.values()))
    gamma = torch.tensor(list(alive.values())).softmax(0).float()
    last = torch.tensor([tokens[-1] for tokens in alive])
    assert (beams.superposed(beams.gamma()) - gamma @ engine.model.embed(last)).abs().max() < 1e-6


def test_unsupported_tokens_fall_behind_and_n_grams_tell_drafts_apart() -> None:
    engine, prompt = tiny_engine(), (10, 11, 12)
    ngrams = NGrams([(20, 30, 31, 32)] * 3 + [(21, 40, 41, 42)] * 3)
    logits = torch.full((64,), -20.0)
    apart, same = (Beams(engine, prompt, 2, n, Mixing(kept=6)) for n in (ngrams, None))
    for one in (apart, same):
        one.alive = [(-1.0, (20,)), (-1.1, (21,))]
    logits[[30, 40, 50]] = torch.tensor([5.0, 4.9, 6.0])
    apart.grow(logits)
    same.grow(logits)
    assert [tokens for _, tokens in apart.alive] == [(20, 30), (21, 40)]
    assert [tokens for _, tokens in same.alive] == [(20, 50), (21, 50)]
    unheard = Beams(engine, prompt, 1, ngrams, Mixing(kept=2))
    unheard.grow(logits)
    assert unheard.alive[0][1] == (50,) and unheard.alive[0][0] < -UNSEEN


def test_what_a_limit_refuses_is_not_computed() -> None:
    engine, prompt = tiny_engine(), text(20)
    for cap in range(18, 32):
        engine.cache.trim(0)
        limit = Limit(Ledger(Budget(tokens=cap), reserve=0.0), "tiny")
        with counted_torch(engine.model) as work:
            found = superposed_decoding(engine, prompt, 3, 4, limit=limit)
        assert found.cost.same(limit.used) and found.cost.tokens <= cap
        assert (found.cost.calls, found.cost.evaluations) == (work.calls, work.evaluations)
        steps = max((cap - 20) // 3, 0)
        assert [len(draft.tokens) for draft in found.drafts] == ([min(steps, 4)] * 3 if steps else [])


def test_superposed_keys_stay_out_of_the_prefix_cache() -> None:
    engine, prompt = tiny_engine(), text(20)
    found = superposed_decoding(engine, prompt, 2, 6)
    plan = engine.plan([(*prompt, *draft.tokens) for draft in found.drafts])
    assert plan.cached.tolist() == [20, 20] and not sum(segment.pins for segment in _segments(engine.cache.root))


def _segments(root):  # noqa: ANN001, ANN202
    yield root
    for child in root.children.values():
        yield from _segments(child)


def test_it_continues_text_and_ended_drafts_stand_aside() -> None:
    engine = chain_engine()
    prompt = next(problems("test", Random(0))).prompt
    found = superposed_decoding(engine, prompt, k=3, tokens=40)
    assert all(draft.text == engine.tokenizer.decode(draft.tokens) for draft in found.drafts)
    ends = [draft for draft in found.drafts if draft.ended]
    assert ends and all(d.text.endswith(".") and "." not in d.text[:-1] for d in ends)


def test_prose_is_found_and_the_same_each_time() -> None:
    first = [next(reference()), *(t for t, _ in zip(documentation("json", "email"), range(40), strict=False))]
    again = [next(reference()), *(t for t, _ in zip(documentation("json", "email"), range(40), strict=False))]
    assert first == again and len(first) == 41 and all(len(t) >= 40 and "\n" not in t for t in first)
    wrapped = "A sentence that is\n  wrapped over lines and long.\n\n>>> not_prose()\n\nHEADING\n-------"
    assert list(paragraphs(wrapped)) == ["A sentence that is wrapped over lines and long."]


@pytest.mark.parametrize(
    "call, line",
    [
        (lambda e: superposed_decoding(e, "abc", k=0), "k=3, tokens=10"),
        (lambda e: superposed_decoding(e, "abc", tokens=9_000), "pass the context"),
        (lambda e: superposed_decoding(e, ""), "empty prompt"),
        (lambda e: Mixing(temperature=0), "temperature above 0"),
        (lambda e: Mixing(kept=0), "kept=0"),
        (lambda e: NGrams([()]), "needs some tokens"),
        (lambda e: NGrams([(1, 2)], order=1), "order=1"),
        (lambda e: NGrams([(1, 2)], order=2).share((1, 2), [3]), "at most 1"),
        (lambda e: list(documentation("no_such_package")), "no such package"),
    ],
)
def test_bad_calls_are_one_line(call, line) -> None:  # noqa: ANN001
    with pytest.raises(UsageError, match=line) as error:
        call(tiny_engine())
    assert "\n" not in str(error.value)


def test_a_model_that_reads_tokens_only_is_refused() -> None:
    engine = tiny_engine()
    engine.model = type("Tokens", (), {"config": engine.config})()
    with pytest.raises(Unsupported, match="reads tokens only"):
        superposed_decoding(engine, "abc")
