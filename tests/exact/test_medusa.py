"""Medusa against oracles: trees against all trees, losses and least squares against closed forms, output against plain
decoding."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anystep import search
from anystep.drive import drive
from anystep.errors import ModelError, UsageError
from anystep.language import LanguageProcess
from anystep.language.accelerate import Follow, Medusa, Reject, Thrift, Typical, speculate
from anystep.language.accelerate.drafts import Draft
from anystep.language.accelerate.medusa import Heads, chain, grow
from anystep.language.accelerate.verify import Place
from anystep.language.engine.sampling import distribution
from anystep.language.engine.trees import Tree
from anystep.language.train.heads import HeadRecipe, accepted, accuracies, fit, least_squares, positions, surprise
from anystep.language.train.joint import JointRecipe, joint, merged
from anystep.language.train.medusa import load_heads, save_heads, trained
from anystep.language.train.selftext import Written, write
from anystep.run import Run
from models import text, tiny_engine, tiny_model

QUIET = lambda line: None  # noqa: E731
RECIPE = HeadRecipe(heads=3, words=40, others=16, epochs=2, batch=32)


@cache
def own() -> list[Written]:
    return list(write(tiny_engine(), [text(6, seed=i) for i in range(64)], 24, [i % 2 * 0.7 for i in range(64)]))


@cache
def heads() -> Heads:
    return fit(tiny_engine(), own(), RECIPE, QUIET)


def answers(process: LanguageProcess, n: int = 1) -> tuple[tuple[int, ...], ...]:
    run = Run(process, search.sample(n=n), None, 3)
    (answer,) = drive(run)
    assert answer.population is not None
    return answer.population.states.tokens


def test_the_greedy_tree_accepts_as_much_as_the_best_of_all_trees() -> None:
    accuracy = np.array([[0.5, 0.2, 0.1], [0.4, 0.3, 0.05]])
    every = [(i,) for i in range(3)] + list(product(range(3), range(3)))

    def worth(paths: Iterable[tuple[int, ...]]) -> float:
        return sum(float(np.prod([accuracy[k, i] for k, i in enumerate(path)])) for path in paths)

    for nodes in range(1, 7):
        trees = (t for t in combinations(every, nodes) if all(len(p) == 1 or p[:1] in t for p in t))
        assert worth(grow(accuracy, nodes)) == pytest.approx(max(map(worth, trees)))
        assert grow(accuracy, 6)[:nodes] == grow(accuracy, nodes)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("thrift", [Thrift(fixed=9), Thrift()])
def test_what_is_written_is_plain_decodings(temperature: float, thrift: Thrift) -> None:
    engine = tiny_engine()
    plain = LanguageProcess(
        engine, "what is next", unit="completion", temperature=temperature, max_tokens=40, chat=False
    )
    fast = speculate(plain, Medusa.of(heads(), 9), Follow(), thrift)
    n = 3 if temperature else 1
    assert answers(fast, n) == answers(plain, n)
    assert fast.rounds.tokens >= 40 and (thrift.fixed is None or fast.rounds.accepted > 0)


def test_passes_counted_on_the_text_are_the_passes_taken() -> None:
    engine = tiny_engine()
    medusa = Medusa.of(heads(), 12)
    for seed in range(6):
        prompt = engine.tokenizer.decode(text(9, seed=seed))
        plain = LanguageProcess(engine, prompt, unit="completion", temperature=0.0, max_tokens=30, chat=False)
        fast = speculate(plain, medusa, thrift=Thrift(fixed=12))
        (tokens,) = answers(fast)
        with engine.open(engine.plan([tokens])) as session:
            found = Written(tokens, len(plain.prompt), session.states(0))
        assert len(accepted(heads(), medusa.ranks, found)) == fast.rounds.looks - 1  # one draws from the prompt's pass


def test_guesses_are_the_formulas_and_trees_hold_them() -> None:
    h = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    each = heads()
    for k in range(3):
        z = F.silu(h @ each.inner[k] + each.bias[k]) + h @ each.skip[k] + each.offset[k]
        best = each.words[(z @ each.outer.T).argsort(-1, descending=True)[:, : each.accuracy.shape[1]]]
        assert torch.equal(each.guesses(h)[:, k], best)
    assert each.flops == 2 * 3 * (2 * 32 * 32 + 32 * 40)
    assert chain(3) == ((0,), (0, 0), (0, 0, 0))


def test_typical_acceptance_keeps_the_longest_plausible_path() -> None:
    p = torch.tensor([[0.6, 0.3, 0.06, 0.04], [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25], [0.4, 0.3, 0.2, 0.1]])
    tree = Tree((1, 2, 0), (-1, -1, 0))  # 1 passes, then 0; 2 does not
    place = Place(p.log(), Draft(tree), np.uint64(7), 5)
    verdict = Typical().verify([place], 1.0, 1.0)[0]
    assert verdict.nodes == (0, 2) and verdict.logp[:2] == pytest.approx(np.log([0.3, 0.97]), abs=1e-6)
    typical = Typical(epsilon=0.09, delta=0.3)
    for row in p.double().numpy():
        entropy = -(row * np.log(row)).sum()
        assert np.array_equal(typical.plausible(row), row > min(0.09, 0.3 * np.exp(-entropy)))
    assert typical.plausible(np.full(1000, 0.001)).all()  # at the limit the likeliest still pass


def test_typical_output_is_plausible_throughout_and_greedy_at_zero() -> None:
    engine = tiny_engine()
    plain = LanguageProcess(engine, "and so", unit="completion", temperature=0.7, max_tokens=30, chat=False)
    (tokens,) = answers(speculate(plain, Medusa.of(heads(), 9), Typical(), Thrift(fixed=9)))
    start, read = len(plain.prompt), torch.tensor([tokens])
    for at, p in enumerate(distribution(engine.forward(read)[0, start - 1 : -1], 0.7)):
        assert Typical().plausible(p)[tokens[start + at]]
    greedy = LanguageProcess(engine, "and so", unit="completion", temperature=0.0, max_tokens=30, chat=False)
    assert answers(speculate(greedy, Medusa.of(heads(), 9), Typical())) == answers(greedy)
    assert answers(speculate(greedy, Medusa.of(heads(), 9), Reject())) == answers(greedy)


def test_the_sampled_loss_is_the_whole_one_where_all_words_are_drawn() -> None:
    each = heads()
    learn = positions(own()[:8], 3, each.words, 64)
    some, weigh = torch.arange(40), torch.tensor([1.0, 0.8, 0.64])
    logits, later = each(learn.hidden[some].float()), learn.later[some].T
    whole = (
        sum(weigh[k] * F.cross_entropy(logits[k], later[k], ignore_index=-1, reduction="sum") for k in range(3)) / 40
    )
    assert surprise(each, learn, some, weigh, torch.arange(40)).item() == pytest.approx(float(whole), rel=1e-5)


def test_least_squares_finds_a_linear_future() -> None:
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    texts = []
    for _ in range(30):
        states = [torch.randn(8, generator=generator)]
        for _ in range(9):
            states.append(states[-1] @ turn + 0.5)
        texts.append(Written((0,) * 10, 1, torch.stack(states)))
    each = Heads(2, torch.arange(4), torch.randn(4, 8, generator=generator))
    least_squares(each, positions(texts, 2, torch.arange(4), 4), 1e-9)
    state = torch.randn(3, 8, generator=generator)
    torch.testing.assert_close(each.ahead(state)[0], state @ turn + 0.5, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(each.ahead(state)[1], (state @ turn + 0.5) @ turn + 0.5, atol=1e-3, rtol=1e-3)


def test_accuracies_count_every_position_that_has_a_token() -> None:
    each, held = heads(), positions(own()[:16], 3, heads().words, 64)
    right = np.zeros((3, each.accuracy.shape[1]))
    total = np.zeros(3)
    for one in own()[:16]:
        guesses = each.guesses(one.hidden)
        for i in range(one.start - 1, len(one.tokens)):
            for k in range(3):
                if i + k + 2 < len(one.tokens):
                    total[k] += 1
                    right[k] += (guesses[i, k] == one.tokens[i + k + 2]).numpy()
    np.testing.assert_allclose(accuracies(each, held).numpy(), right / total[:, None], atol=1e-6)


def test_joint_training_moves_the_model_little_and_leaves_the_first_alone() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = JointRecipe(texts=48, epochs=2, rows=8, upper=1, rank=4, others=16)
    other, added = joint(model, heads(), own(), recipe, QUIET)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert len(added) == 7 and all(name.startswith("layers.1.") for name in added)
    after = merged(model, added)
    changed = {name for name, tensor in after.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed == set(added)
    read = torch.tensor([own()[0].tokens])
    was, now = (m.logits(m(read)).log_softmax(-1) for m in (model, after))
    assert 0 < F.kl_div(now, was, log_target=True, reduction="none").sum(-1).mean() < 0.1
    assert not torch.equal(other.inner, heads().inner)
    _, nothing = joint(model, heads(), own(), JointRecipe(texts=16, epochs=1, rows=8, upper=0, others=16), QUIET)
    assert not nothing


def test_heads_are_kept_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "models" / "heads.safetensors"
    save_heads(heads(), path, {"layers.0.x|0": torch.ones(2)})
    again = load_heads(path)
    assert torch.equal(again.words, heads().words)
    torch.testing.assert_close(again.inner, heads().inner, atol=2e-3, rtol=2e-3)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="holds no Medusa heads"):
        load_heads(path)


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(UsageError, match="no path of 3 heads"):
        Medusa(heads(), ((0,), (0, 0), (0, 0, 0), (0, 0, 0, 0)))
    with pytest.raises(UsageError, match="after its beginning"):
        Medusa(heads(), ((0, 0), (0,)))
    with pytest.raises(UsageError, match="epsilon=2"):
        Typical(epsilon=2)
    with pytest.raises(UsageError, match="train them with"):
        trained(tiny_engine())
    with pytest.raises(UsageError, match="at least 32 texts"):
        fit(tiny_engine(), own()[:5], RECIPE, QUIET)
    wide = tiny_engine(dim=48)
    process = LanguageProcess(wide, "and so", unit="completion", max_tokens=8, chat=False)
    with pytest.raises(UsageError, match=r"Medusa.load\(engine\)"):
        answers(speculate(process, Medusa.of(heads(), 9)))
