"""Language models as processes: steps, tokens, completions, and what each costs."""

import numpy as np
import pytest

from anystep import Budget, keys, search
from anystep.drive import drive
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.engine import sampling
from anystep.language.engine.engine import Engine
from anystep.language.engine.sampling import distribution, draw, nucleus
from anystep.language.engine.tokenizer import Alphabet
from anystep.ledger import Ledger, Limit
from anystep.process import Status, reward
from anystep.run import Run
from models import SYMBOLS, tiny_engine, tiny_model

KINDS = {
    "step": {"unit": "step", "stop": "\n", "max_tokens": 40},
    "token": {"unit": "token", "max_tokens": 8},
    "completion": {"unit": "completion", "max_tokens": 20},
    "ends": {"unit": "step", "stop": "a", "end": ("b", "cd"), "top_p": 0.9, "at_cap": "failed", "max_tokens": 40},
    "greedy": {"unit": "step", "stop": "a", "temperature": 0, "max_tokens": 16},
}


def process(kind="step", engine=None, prompt="Hello: 12+34=", **more):
    return LanguageProcess(engine or tiny_engine(scale=0.15), prompt, **(KINDS[kind] | more))


def some_keys(n, seed=0):
    return keys.roots(seed, (), np.arange(n))


def limit(**caps):
    return Limit(Ledger(Budget(**caps), reserve=0.0), "test")


def begun(p, n=6):
    return p.start(some_keys(n), limit()).states


@pytest.mark.parametrize("kind", KINDS)
def test_declared_cost_is_counted_work(kind):
    p = process(kind)
    counters, states, total = p.engine.counters, begun(p), 0
    for turn in range(4):
        before, account = (counters.positions, counters.passes), limit()
        reply = p.step(states, some_keys(len(states), turn), account, "step")
        spent = account.used
        assert reply.cost == spent
        assert (spent.evaluations, spent.calls) == (counters.positions - before[0], counters.passes - before[1])
        grown = sum(map(len, reply.states.tokens)) - sum(map(len, states.tokens))
        assert spent.generated == grown
        total += spent.prompt
        live = np.flatnonzero(reply.status == Status.LIVE)
        if not len(live):
            break
        states = reply.states.take(live)
    assert total == len(p.prompt)  # once, however many rows and steps


def test_a_step_ends_with_its_stop_and_a_completion_with_its_end():
    p = process("step", stop="m", end=("e", "ki"), max_tokens=400)
    reply = p.step(begun(p, 32), some_keys(32), limit(), "step")
    for text, status in zip(reply.states.texts(), reply.status, strict=True):
        ended = text.endswith(("e", "ki", "."))
        assert ended == (status == Status.DONE)
        assert ended or (text.endswith("m") and text.count("m") == 1)
    assert {Status.LIVE, Status.DONE} == set(reply.status)
    whole = p.step(begun(p, 32), some_keys(32), limit(), "done")
    assert (whole.status == Status.DONE).all()
    assert all(text.endswith(("e", "ki", ".")) for text in whole.states.texts())
    assert any("m" in text for text in whole.states.texts())
    assert p.texts(whole.states) == whole.states.texts()  # here an end is the last token there is


def test_logp_is_of_the_distribution_drawn_from():
    p = process("completion", temperature=0.7, top_p=0.8)
    reply = p.step(begun(p, 4), some_keys(4), limit(), "done")
    for row, (tokens, start) in enumerate(zip(reply.states.tokens, reply.states.starts, strict=True)):
        with p.engine.open(p.engine.plan([tokens[:i] for i in range(start, len(tokens))])) as session:
            mass = distribution(session.logits(), 0.7, 0.8)
        want = sum(np.log(mass[i - start, tokens[i]]) for i in range(start, len(tokens)))
        assert reply.logp[row] == pytest.approx(want, abs=1e-4)


def test_tokens_do_not_depend_on_the_batch():
    """Up to near ties: the draws whose uniform lies within 1e-4 of a boundary would be excepted, and none occurs."""
    engine, ties = tiny_engine(scale=0.15), 0
    together = process("completion", engine)
    all_keys = some_keys(24)
    reply = together.step(begun(together, 24), all_keys, limit(), "done")
    for row, (tokens, start) in enumerate(zip(reply.states.tokens, reply.states.starts, strict=True)):
        alone = process("completion", tiny_engine(scale=0.15))
        again = alone.step(begun(alone, 1), all_keys[[row]], limit(), "done").states.tokens[0]
        if again != tokens:
            at = next(i for i, (a, b) in enumerate(zip(again, tokens, strict=False)) if a != b)
            with engine.open(engine.plan([tokens[:at]])) as session:
                edges = distribution(session.logits(), 1.0)[0].cumsum()
            u = keys.uniforms(all_keys[[row]], np.array([at], np.uint64))[0]
            assert np.abs(edges - u).min() < 1e-4, (row, at, start)
            ties += 1
    assert ties == 0


def test_prompts_of_several_problems_share_a_batch_and_a_shared_prompt_is_paid_once():
    engine = tiny_engine(scale=0.15)
    prompts = ["Aa: 1+2=", "Bb: 3*4=", "Aa: 1+2=", "a much longer question, 12:34 "]
    processes = [process("step", engine, prompt) for prompt in prompts]
    assert len({p.merges() for p in processes}) == 1
    merged = drive(*[Run(p, search.self_consistency(n=3), seed=7) for p in processes])
    passes = engine.counters.passes
    engine.cache.trim(0)
    alone = [drive(Run(p, search.self_consistency(n=3), seed=7))[0] for p in processes]
    assert [a.text for a in merged] == [a.text for a in alone]
    assert engine.counters.passes - passes > 2 * passes
    for one, other in zip(merged, alone, strict=True):
        assert one.cost.generated == other.cost.generated
    assert [a.cost.prompt for a in merged] == [8, 8, 0, 30]


def test_a_budget_is_never_overshot_and_a_cut_step_goes_on_unchanged():
    p = process("completion")
    whole = p.step(begun(p), some_keys(6), limit(), "done")
    p.forget()
    account = limit(tokens=60)
    part = p.step(begun(p), some_keys(6), account, "done")
    assert account.used.tokens <= 60 and part.cut.any() and (part.status[part.cut] == Status.LIVE).all()
    rows = np.flatnonzero(part.cut)
    rest = p.step(part.states.take(rows), some_keys(6)[rows], limit(), "done")
    ended = part.states.take(np.flatnonzero(~part.cut)).tokens
    assert set(rest.states.tokens + ended) == set(whole.states.tokens)
    assert part.logp[rows] + rest.logp == pytest.approx(whole.logp[rows])
    nothing = limit(tokens=5)
    none = p.step(begun(p), some_keys(6), nothing, "done")
    assert nothing.used.tokens == 0 and none.cut.all()


def test_expand_gives_the_likeliest_tokens():
    p = process("token")
    states = begun(p, 2)
    reply = p.expand(states, 5, some_keys(10), limit())
    assert reply.parent.tolist() == [0] * 5 + [1] * 5
    logits = p.engine.open(p.engine.plan(list(states.tokens))).logits()
    want = logits[0].topk(5).indices.tolist()
    assert [t[-1] for t in reply.states.tokens[:5]] == want
    assert (np.diff(reply.logp[:5]) <= 0).all() and np.exp(reply.logp[:5]).sum() < 1
    a_lot = reward(lambda states: np.array([text.count("a") for text in states.texts()]), "a_lot", (0.0, 8.0))
    best = drive(Run(p, search.beam(width=3, reward=a_lot, branch=64), seed=1))[0]
    assert best.text == "a" * 8  # all 64 children are there, so it finds them


def test_at_the_cap_a_completion_is_done_or_failed():
    failing, fine = process("ends", max_tokens=2), process("ends", max_tokens=2, at_cap="done")
    reply = failing.step(begun(failing, 16), some_keys(16), limit(), "done")
    failed = np.flatnonzero(reply.status == Status.FAILED)
    assert len(failed) and set(reply.errors) == set(failed.tolist())
    assert all("max_tokens=2" in text for text in reply.errors.values())
    reply = fine.step(begun(fine, 16), some_keys(16), limit(), "done")
    assert (reply.status == Status.DONE).all() and not reply.errors


def test_the_context_is_a_cap_too():
    p = process("completion", tiny_engine(context=20), at_cap="failed")
    reply = p.step(begun(p, 8), some_keys(8), limit(), "done")
    assert max(map(len, reply.states.tokens)) <= 20
    assert any("context" in text for text in reply.errors.values())


def test_what_is_streamed_is_the_text():
    pieces: dict[int, str] = {}

    def show(key, piece):
        pieces[key] = pieces.get(key, "") + piece

    p, some = process("completion"), some_keys(3)
    reply = p.step(begun(p, 3), some, Limit(Ledger(show=show), "test"), "done")
    assert [pieces[int(k)] for k in some] == list(reply.states.texts())


def test_two_models_that_share_a_reward_are_each_read_in_their_own_alphabet():
    """Merged scoring may not join states of different vocabularies: one would be decoded as the other."""
    other = Engine(tiny_model(), Alphabet(SYMBOLS[::-1]), name="backwards")
    digits = reward(lambda states: [sum(c.isdigit() for c in text) / 40 for text in states.texts()], "digits")
    makers = [lambda: process("completion"), lambda: process("completion", other)]
    method = search.best_of_n(n=4, reward=digits)
    alone = [drive(Run(make(), method))[0].population.scores.tolist() for make in makers]
    merged = drive(*(Run(make(), method) for make in makers))
    assert [answer.population.scores.tolist() for answer in merged] == alone


def test_states_are_their_content():
    p = process()
    states = p.step(begun(p), some_keys(6), limit(), "step").states
    assert p.load(p.dump(states)) == states
    forked = states.take(np.array([2, 2, 0])).join(states)
    assert forked.tokens[0] is forked.tokens[1] is states.tokens[2] and len(forked) == 9
    assert set(states.prompts()) == {"Hello: 12+34="}
    p.forget()
    assert p.engine.cache.bytes == 0


def test_answers_are_read_by_extract():
    p = process(extract=lambda text: text[:1] if text.startswith("1") else None)
    states = begun(p, 1)
    one, two = (
        states.__class__(((*states.tokens[0], *p.engine.tokenizer.encode(t)),), states.starts, states.tokenizer)
        for t in ("1a", "2a")
    )
    assert p.answers(one.join(two)) == ("1", None)


def test_draws_follow_the_distribution():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]]))
    import torch

    rows = torch.from_numpy(np.repeat(logits, 1000, 0))
    u = (np.arange(1000) + 0.5) / 1000
    tokens, logp = draw(rows, u, 1.0)
    assert np.bincount(tokens).tolist() == [500, 300, 150, 50]
    assert np.allclose(np.exp(logp), np.array([0.5, 0.3, 0.15, 0.05])[tokens])
    tokens, _ = draw(rows, u, 1.0, top_p=0.75)
    assert np.bincount(tokens).tolist() == [625, 375]
    tokens, logp = draw(rows, u, 0.0)
    assert not tokens.any() and not logp.any()


def test_rows_drawn_in_blocks_are_those_drawn_at_once(monkeypatch):
    import torch

    logits = torch.randn(9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before, u = logits.clone(), np.random.default_rng(0).random(9)
    p = distribution(logits, 0.7)
    want = keys.choose(p, u)
    for block in (1 << 16, 120, 1):
        monkeypatch.setattr(sampling, "BLOCK", block)
        tokens, logp = draw(logits, u, 0.7)
        assert np.array_equal(tokens, want) and np.array_equal(logp, np.log(p[np.arange(9), want]))
    assert torch.equal(logits, before)  # what was given is left as it was
    assert [len(x) for x in draw(logits[:0], u[:0], 0.7)] == [0, 0]


@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.95, 0.999, 1 - 1e-12, 1 - 2**-53])
@pytest.mark.parametrize("size", [2, 64, 5000])
def test_a_nucleus_is_that_of_all_tokens_in_order(size, top_p):
    """Exactly: sorting all of them gives the same set, ties included."""
    generator = np.random.default_rng(size)
    for scale in (0.0, 0.1, 1.0, 10.0):
        scores = (generator.normal(size=size) * scale).round(1)  # with many ties
        p = np.exp(scores) / np.exp(scores).sum()
        order = np.argsort(-p, kind="stable")
        before = np.cumsum(p[order]) - p[order]
        assert np.flatnonzero(nucleus(p, top_p)).tolist() == sorted(order[before < top_p].tolist())


@pytest.mark.parametrize(
    "options, line",
    [
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": "a" * 5000}, "5,000 tokens"),
        ({"unit": "word"}, "unit='word'"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": "hot"}, "temperature='hot'"),
        ({"top_p": True}, "top_p=True"),
        ({"end": 5}, "each is a text"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"at_cap": "stop"}, "at_cap='stop'"),
        ({"stop": ""}, "empty"),
        ({"prompt": [{"role": "user", "content": "x"}], "chat": False}, "chat=False"),
        ({"prompt": [{"role": "user", "content": "x"}]}, "chat template"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(options, line):
    from anystep.errors import AnystepError

    with pytest.raises(AnystepError, match=line) as error:
        process("step", **options)
    assert "\n" not in str(error.value) and isinstance(error.value, (UsageError, AnystepError))
