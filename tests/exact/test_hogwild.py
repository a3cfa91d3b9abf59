"""Workers over one cache: against keys rotated one by one, ordinary decoding, and a slow whole-model reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from anystep import search
from anystep.drive import drive
from anystep.errors import Unsupported, UsageError
from anystep.keys import roots
from anystep.language import LanguageProcess
from anystep.language.accelerate import Hogwild, HogwildEngine
from anystep.language.accelerate.blocks import Blocks
from anystep.language.accelerate.transcripts import Board
from anystep.language.engine.engine import Engine
from anystep.language.engine.llama import rotate
from anystep.ledger import Budget, Ledger, Limit
from anystep.run import Run
from models import text, tiny_engine

SCALED = (1.0, 2.0, 4.0, 8.0)
SHAPES = [{}, {"rope_factors": SCALED}, {"windows": (7, None), "near_theta": 500.0, "rope_factors": SCALED}]


def unlimited() -> Limit:
    return Limit(Ledger(), "hogwild")


def common(engine: Engine, prompt: tuple[int, ...]) -> Tensor:
    with engine.open(engine.plan([prompt])) as session:
        return torch.cat([span.keys for span in session.paths[0]], 3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", [True, False])
def test_turned_queries_equal_turned_keys(shape: dict[str, object], shared: bool) -> None:
    """Attention over blocks against plain softmax over every key rotated to its place, with unwritten room poisoned."""
    engine, generator = tiny_engine(**shape), torch.Generator().manual_seed(0)
    blocks = Blocks(engine.config, common(engine, text(20)), 3, shared)
    for step in range(40):  # past the room first reserved
        workers = [0, 1, 2] if step % 3 else [0, 2]
        for w in range(3):
            blocks.own[:, :, w, :, blocks.sizes[w] :] = 1e3
        attend = blocks.write(workers)
        for layer in range(2):
            q, k, v = (torch.randn(len(workers), n, 1, 8, generator=generator) for n in (4, 2, 2))
            out = attend(layer, q, k, v)
            for i, worker in enumerate(workers):
                keys, values = blocks.laid(worker, layer)
                at = keys.shape[1] - 1
                assert at + 1 == blocks.seen(worker)
                turned = rotate(q[i : i + 1], *blocks.rotary(layer)(torch.tensor([[at]])))[0]
                scores = turned @ keys.repeat_interleave(2, 0).transpose(-1, -2) / 8**0.5
                window = engine.config.window(layer)
                scores[:, :, : at + 1 - window if window and at >= window else 0] = -torch.inf
                want = scores.softmax(-1) @ values.repeat_interleave(2, 0)
                assert (want - out[i]).abs().max() < 1e-5
        if shared and step % 10 == 9:
            blocks.join(step // 10 % 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_worker_is_ordinary_decoding(shape: dict[str, object], temperature: float) -> None:
    """The same keys draw the same tokens, paragraphs that join the history included."""
    engine = tiny_engine(scale=0.15, **shape)
    options = {"temperature": temperature, "max_tokens": 40}
    plain = LanguageProcess(engine, "Hello: 12+34=", unit="completion", **options)
    keys = roots(0, (), np.arange(6))
    want = plain.step(plain.start(keys, unlimited()).states, keys, unlimited(), "done")
    stop = Counter("".join(plain.texts(want.states))).most_common(1)[0][0]
    ours = Hogwild(engine, "Hello: 12+34=", workers=1, stop=stop, **options)
    found = ours.step(ours.start(keys, unlimited()).states, keys, unlimited(), "done")
    outputs = tuple(tuple(token for (token,) in rounds) for rounds in found.states.rounds)
    assert outputs == want.states.outputs()
    assert np.allclose(found.logp, want.logp, atol=1e-3) and found.cost.generated == want.cost.generated
    joined = [Board.of(ours, rounds).finished for rounds in found.states.rounds]
    assert max(map(len, joined)) >= 2  # else no paragraph was moved


def slow(engine: Engine, prompt: tuple[int, ...], rounds: list[dict[int, int]], joins: dict[int, list[int]]) -> Tensor:
    """Logits of two workers after `rounds`; `joins[r]` are the workers whose blocks join the history after round r.

    Every key is kept as it was before rotation, and laid out and rotated anew for every worker at every layer."""
    model, config = engine.model, engine.config
    raw: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(config.layers)]  # by token, in order of writing
    history, own = list(range(len(prompt))), {0: list[int](), 1: list[int]()}

    def gather(layer: int, q: Tensor, k: Tensor, v: Tensor, views: list[list[int]]) -> Tensor:
        raw[layer] += [(k[i, :, 0], v[i, :, 0]) for i in range(len(k))]
        out = []
        for i, view in enumerate(views):
            place = torch.arange(len(view))
            keys = torch.stack([raw[layer][t][0] for t in view], 1)[None]
            values = torch.stack([raw[layer][t][1] for t in view], 1).repeat_interleave(2, 0)
            turned = rotate(keys, *model.rotary(place[None]))[0].repeat_interleave(2, 0)
            query = rotate(q[i : i + 1], *model.rotary(place[None, -1:]))[0]
            out.append((query @ turned.transpose(-1, -2) / config.head_dim**0.5).softmax(-1) @ values)
        return torch.stack(out)

    def once(tokens: list[int], views: list[list[int]]) -> Tensor:
        fed = torch.tensor(tokens)[:, None]
        return model(fed, torch.zeros_like(fed), lambda layer, q, k, v: gather(layer, q, k, v, views))[:, 0]

    for t in range(len(prompt)):
        hidden = once([prompt[t]], [list(range(t + 1))])
    total, last = len(prompt), {0: hidden[0], 1: hidden[0]}
    for r, tokens in enumerate(rounds):
        for i, worker in enumerate(sorted(tokens)):
            own[worker].append(total + i)
        views = [[*history, *own[1 - w], *own[w]] for w in sorted(tokens)]
        for w, state in zip(sorted(tokens), once([tokens[w] for w in sorted(tokens)], views), strict=True):
            last[w] = state
        total += len(tokens)
        for w in joins.get(r, []):
            history += own[w]
            own[w] = []
    return model.logits(torch.stack([last[0], last[1]]))


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_whole_model_equals_a_slow_reference(shape: dict[str, object]) -> None:
    engine, prompt = tiny_engine(**shape), text(12)
    rng, joins = np.random.default_rng(1), {6: [1], 11: [0, 1], 20: [0]}
    rounds = [{w: int(rng.integers(3, 64)) for w in ((0, 1) if r % 5 else (r % 2,))} for r in range(24)]
    ours = HogwildEngine(engine, prompt)
    before = engine.counters.positions
    for r, tokens in enumerate(rounds):
        cost = ours.price(sorted(tokens))
        ours.feed(tokens)
        assert cost.attended == sum(ours.blocks.seen(w) for w in tokens) and cost.evaluations == len(tokens)
        for worker in joins.get(r, []):
            ours.blocks.join(worker)
    assert engine.counters.positions - before == sum(map(len, rounds))  # no body token is encoded twice
    with torch.inference_mode():
        want = slow(engine, prompt, rounds, joins)
    assert (ours.logits([0, 1]) - want).abs().max() < 1e-4


def test_what_one_writes_the_other_reads_unless_they_are_blind() -> None:
    def after(shared: bool, token: int) -> tuple[Tensor, Tensor]:
        ours = HogwildEngine(tiny_engine(), text(12), shared=shared)
        ours.feed({0: 9, 1: 9})
        ours.feed({0: token, 1: 30})
        same_pass = ours.logits([1])
        ours.feed({0: 40, 1: 31})
        return same_pass, ours.logits([1])

    (now, then), (other_now, other_then) = after(True, 20), after(True, 21)
    assert (then - other_then).abs().max() > 1e-2 and (now - other_now).abs().max() > 1e-2
    (now, then), (other_now, other_then) = after(False, 20), after(False, 21)
    assert torch.equal(then, other_then) and torch.equal(now, other_now)


def test_a_copy_goes_on_apart() -> None:
    one = HogwildEngine(tiny_engine(), text(12))
    one.feed({0: 5, 1: 6})
    other = one.copy()
    before = one.logits([0, 1])
    other.feed({0: 7, 1: 8})
    other.blocks.join(0)
    assert torch.equal(one.logits([0, 1]), before) and one.blocks.sizes == [1, 1] and one.blocks.length == 12
    one.feed({0: 7, 1: 8})
    assert (one.logits([0, 1]) - other.logits([0, 1])).abs().max() < 1e-5


def test_states_share_their_passes_and_read_nothing_of_each_other() -> None:
    process = Hogwild(tiny_engine(scale=0.15), "Hello: 12+34=", names=("A", "B"), heading="{name}:", stop=" ")
    keys, limit, calls = roots(0, (), np.arange(4)), unlimited(), []
    found = process.step(process.start(keys, limit).states, keys, limit, "done")
    assert limit.used.calls == max(map(len, found.states.rounds))  # the prompt's pass, and none after the last round
    for i in range(4):
        one, alone = np.array([i]), unlimited()
        again = process.step(process.start(keys[one], alone).states, keys[one], alone, "done")
        assert again.states == found.states.take(one)
        calls.append(alone.used.calls)
    assert sum(calls) > limit.used.calls


def test_a_dropped_cache_is_fed_again_and_charged() -> None:
    process = Hogwild(tiny_engine(scale=0.15), "Hello: 12+34=", names=("A", "B"), heading="{name}:", stop=" ")
    keys = roots(0, (), np.arange(3))
    half = Limit(Ledger(Budget(tokens=90), reserve=0.0), "hogwild")
    states = process.step(process.start(keys, unlimited()).states, keys, half, "done").states
    kept, lost = unlimited(), unlimited()
    want = process.step(states, keys, kept, "done")
    fed = sum(t >= 0 for rounds in states.rounds for tokens in rounds[:-1] for t in tokens)
    process.forget()
    found = process.step(states, keys, lost, "done")
    assert found.states == want.states and lost.used.prompt - kept.used.prompt == fed + len(process.prompt)
    process.forget()
    process.warm(states)
    again = unlimited()
    process.step(states, keys, again, "done")
    assert again.used.same(kept.used)


def test_paragraphs_join_the_history_and_the_transcript_reads_in_order() -> None:
    process = Hogwild(tiny_engine(scale=0.15), "Hello: 12+34=", names=("A", "B"), heading="{name}:", stop="\n")
    encode = process.engine.tokenizer.encode
    board = Board(process.heads, process.engine.tokenizer, "\n", joins=True)
    ended = []
    for first, second in zip("A:go\nA:x.", "B:\nB:more", strict=True):
        token = -1 if board.ended[0] else encode(first)[0]
        ended.append(board.write((token, encode(second)[0])))
    assert ended == [[], [], [1], [], [0], [], [], [], []]
    assert board.text() == "B:\nA:go\nA:x.\nB:more" and board.ended == [True, False] and board.writing == [1]
    shown = Board.of(Hogwild(process.engine, "x", shared=False), [])
    assert not shown.joins and shown.text() == ""


def test_it_runs_under_a_budget_like_any_process() -> None:
    process = Hogwild(tiny_engine(scale=0.15), "Hello: 12+34=", names=("A", "B"), heading="{name}:", max_tokens=30)
    (short,) = drive(Run(process, search.sample(n=3), Budget(tokens=120), seed=1))
    assert 60 < short.cost.tokens <= 120 and short.stopped_because == "tokens"
    (whole,) = drive(Run(process, search.first_finish(n=3), seed=1))
    assert whole.text is not None and whole.text.count("A:") == 1 and "B:" in whole.text


@pytest.mark.parametrize(
    "call, line",
    [
        (lambda e: Hogwild(e, "abc", workers=0), "workers=0"),
        (lambda e: Hogwild(e, "abc", names=("A", "B", "C")), "a name for each"),
        (lambda e: Hogwild(e, "abc", names=("A", "B"), heading="{name}:", max_tokens=2), "no room"),
        (lambda e: Hogwild(e, "abc", temperature=-1), "greedy"),
        (lambda e: HogwildEngine(e, text(3), workers=0), "one worker at least"),
    ],
)
def test_bad_calls_are_one_line(call: Callable[[Engine], object], line: str) -> None:
    with pytest.raises(UsageError, match=line) as error:
        call(tiny_engine())
    assert "\n" not in str(error.value)


def test_a_model_that_hides_its_rotation_is_refused_and_so_are_foreign_states() -> None:
    engine = tiny_engine()
    process = Hogwild(engine, "abc", names=("A", "B"), heading="")
    for wrong in (b"[[[1]]]", b"[[[1, 64]]]", b"[[[1, -2]]]"):
        with pytest.raises(ValueError, match="a round has 2 tokens"):
            process.load(wrong)
    engine.model = type("Tokens", (), {"config": engine.config})()
    with pytest.raises(Unsupported, match="out of sight"):
        HogwildEngine(engine, text(3))
