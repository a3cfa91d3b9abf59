"""The semi-autoregressive drafter: it reads in use as in training, its trees are the likeliest, outputs stay."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from anystep import keys as lineage
from anystep.errors import UsageError
from anystep.language import LanguageProcess
from anystep.language.accelerate import speculate
from anystep.language.accelerate.semi_autoregressive import (
    FalconNetwork,
    Foresight,
    Growing,
    SemiAutoregressiveDrafter,
)
from anystep.language.accelerate.thrift import Thrift
from anystep.language.train.falcon import Distilling, FalconRecipe, Lesson, begin, train
from anystep.language.train.selftext import Written, write
from anystep.ledger import Ledger, Limit
from models import SYMBOLS, text, tiny_engine

K = 3


def untrained(engine, k=K, seed=0):
    torch.manual_seed(seed)
    network = FalconNetwork(engine.config, k, torch.arange(2, 60))
    network.skip.normal_(0, 0.1)
    return network


def written(engine, count=6, longest=24):
    starts = [text(5 + i, seed=i) for i in range(count)]
    return list(write(engine, starts, longest, [0.0, 0.9] * (count // 2)))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_reading_piece_by_piece_foresees_what_training_does(k):
    engine = tiny_engine()
    network = untrained(engine, k).eval()
    one = written(engine)[1]
    features, after = one.hidden[:-1].float(), one.tokens[1:]
    foresight, distilling = Foresight(network, engine), Distilling(network, engine, FalconRecipe(k=k))
    branch, at = foresight.root, 0
    for size in (k, 1, 2, 4, 1, 7):
        (branch,), ahead, _ = foresight.go_on([branch], [features[at : at + size]], [after[at : at + size]])
        at += size
        place = torch.arange(at) + (-at) % k  # the last block ends where the text does
        with torch.no_grad():
            whole = network.feature(distilling.forward(features[None, :at], torch.tensor([after[:at]]), place)[0, -k:])
        assert torch.allclose(ahead[0], whole, atol=1e-5)
    assert foresight.passes == 6 and branch.length == at


def test_branches_of_different_lengths_do_not_touch_each_other():
    engine = tiny_engine()
    foresight = Foresight(untrained(engine), engine)
    some = written(engine)
    alone = [foresight.go_on([foresight.root], [s.hidden[:-1].float()], [s.tokens[1:]]) for s in some]
    roots = [foresight.root] * len(some)
    together, ahead, logp = foresight.go_on(roots, [s.hidden[:-1].float() for s in some], [s.tokens[1:] for s in some])
    for i, ((one,), own, own_logp) in enumerate(alone):
        assert torch.allclose(ahead[i], own[0], atol=1e-5) and torch.allclose(logp[i], own_logp[0], atol=1e-5)
        assert torch.allclose(together[i].keys, one.keys, atol=1e-5) and together[i].length == one.length


def test_a_grown_tree_has_the_likeliest_paths():
    rng = np.random.default_rng(0)
    for _ in range(20):
        logp = np.log(rng.dirichlet(np.ones(4), size=3))
        choices = [
            sorted(((float(p), 10 * j + t) for t, p in enumerate(row)), reverse=True) for j, row in enumerate(logp)
        ]
        tree = Growing()
        tree.block(-1, choices, 12, 0)
        paths = [p for size in (1, 2, 3) for p in product(*choices[:size])]
        best = sorted((sum(p for p, _ in path) for path in paths), reverse=True)[:12]
        assert np.allclose(sorted(tree.whole, reverse=True), best)
        draft = tree.likeliest(5)
        assert len(draft) == 5 and all(parent < i for i, parent in enumerate(draft.tree.parents))
        for i, parent in enumerate(tree.parents):
            assert tree.whole[i] == pytest.approx(tree.own[i] + (tree.whole[parent] if parent >= 0 else 0.0))


def test_a_second_pass_goes_on_from_the_likeliest_ends():
    tree = Growing()
    tree.block(-1, [[(-0.1, 1), (-2.0, 2)], [(-0.2, 3), (-1.0, 4)]], 6, 7)
    ends = tree.best_ends(2)
    assert [tree.along(node, 2) for node, _ in ends] == [[1, 3], [1, 4]] and {branch for _, branch in ends} == {7}
    assert tree.best_ends(2) == []
    tree.block(ends[0][0], [[(-0.1, 5)]], 3, 0)
    assert tree.tokens[-1] == 5 and tree.whole[-1] == pytest.approx(-0.4)


def run(process, n=4, seed=0):
    keys = lineage.roots(seed, (0,), np.arange(n))
    ledger = Ledger()
    started = process.start(keys, Limit(ledger, "test"))
    return process.step(started.states, keys, Limit(ledger, "test"), "done").states.tokens, ledger.spent


@pytest.fixture(scope="module")
def trained():
    engine = tiny_engine()
    return engine, train(engine, written(engine, 8, 40), FalconRecipe(work=8_000, batch=4, kept=1), lambda line: None)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("tree", [True, False])
def test_output_is_plain_decodings(trained, temperature, tree):
    engine, network = trained
    drafter = SemiAutoregressiveDrafter(engine, network, tree=tree)
    plain = LanguageProcess(
        engine, SYMBOLS[5:19], unit="completion", temperature=temperature, max_tokens=40, chat=False
    )
    fast = speculate(plain, drafter, thrift=Thrift(fixed=9))
    expected, cost = run(plain)
    found, spent = run(fast)
    assert found == expected
    assert fast.rounds.shown > fast.rounds.accepted >= int(tree) and spent.generated == cost.generated
    assert drafter.foresight.passes > 0 and spent.flops > cost.flops


def test_glancing_shows_block_beginnings_and_none_in_the_end():
    engine = tiny_engine()
    recipe = FalconRecipe(k=3, kept=1)
    some = written(engine, 8, 60)
    distilling = Distilling(begin(engine, some, recipe), engine, recipe)
    lesson = Lesson.of(some, 3)
    place = torch.arange(lesson.told.shape[1]) + 1
    nobody = torch.full(lesson.told.shape, -1)  # no guess is right
    share = torch.stack([distilling.shown(lesson, nobody, place, 0.4)[lesson.told].float().mean() for _ in range(200)])
    assert abs(share.mean() - 0.4) < 5 * share.std() / 200**0.5  # false alarms: less than one in a million
    shown = distilling.shown(lesson, nobody, place, 0.4)
    at = place % 3
    assert not shown[:, at == 2].any()  # runs are shorter than a block, from its beginning on
    assert not (
        shown[:, 1:][:, at[1:] == 1] & ~shown[:, :-1][:, at[1:] == 1] & lesson.told[:, :-1][:, at[1:] == 1]
    ).any()
    cost = [distilling.loss(lesson, done)[1] / lesson.told.numel() for done in (0.0, 1.0)]
    assert cost == [4, 3]  # the pass beforehand is paid for, and not made once nothing is shown


def test_lessons_look_k_ahead():
    one = Written(tuple(range(30)), 20, torch.arange(30.0)[:, None].expand(30, 4).half())
    lesson = Lesson.of([one], 3)
    first = 20 - 16
    assert torch.equal(lesson.goal[0, :, 0], lesson.features[0, :, 0] + 3)
    assert torch.equal(lesson.after[0].float(), lesson.features[0, :, 0] + 1)
    assert lesson.features[0, 0, 0] == first and lesson.told[0].sum() == 11  # states from the prompt's last token on


def test_what_cannot_be_drafted_for_is_refused():
    engine = tiny_engine()
    network = untrained(engine)
    with pytest.raises(UsageError, match="at least 1"):
        SemiAutoregressiveDrafter(engine, network, passes=0)
    other = LanguageProcess(tiny_engine(1), "abc", chat=False)
    with pytest.raises(UsageError, match="another engine"):
        run(speculate(other, SemiAutoregressiveDrafter(engine, network), thrift=Thrift(fixed=4)))
