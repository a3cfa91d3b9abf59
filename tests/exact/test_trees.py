"""Tree passes against appending token by token, and against the model's plain causal pass."""

import numpy as np
import pytest
import torch

from anystep.errors import UsageError
from anystep.language.engine.trees import Tree
from models import text, tiny_engine

EXACT = 1e-4
SHAPES = {
    "llama": {},
    "one key head": {"kv_heads": 1, "tied": False},
    "as many key heads": {"kv_heads": 4},
    "qwen": {"qkv_bias": True, "qk_norm": True},
    "mistral": {"windows": (9, 9)},
    "gemma": {
        "windows": (5, None),
        "near_theta": 100.0,
        "qk_norm": True,
        "sandwich": True,
        "gate": "gelu",
        "query_scale": 0.7,
        "embed_scale": 5.0,
    },
}


def truth(engine, tokens):
    """The last hidden state after `tokens` in one plain causal pass."""
    return engine.model(torch.tensor([tokens]))[0, -1]


def grown(rng, nodes):
    """A random tree: every node hangs on the row or on any earlier node."""
    return Tree(
        tuple(rng.integers(3, 64, nodes).tolist()), tuple(int(rng.integers(-1, i)) if i else -1 for i in range(nodes))
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_node_of_random_trees_is_what_its_path_appended_would_be(shape):
    engine, rng = tiny_engine(**shape), np.random.default_rng(0)
    shared = text(40, seed=9)
    prompts = [text(1), text(17, 1), shared, shared, (*shared, *text(3)), (*shared, *text(70, 3))]
    with engine.open(engine.plan(prompts)) as session:
        for turn in range(8):
            rows = rng.permutation(len(prompts))[: rng.integers(1, len(prompts) + 1)].tolist()
            trees = {row: grown(rng, int(rng.integers(1, 12))) for row in rows}
            before = [list(tokens) for tokens in session.tokens]
            passes, positions = engine.counters.passes, engine.counters.positions
            hidden = session.look(trees)
            assert engine.counters.passes == passes + 1
            assert engine.counters.positions == positions + sum(map(len, trees.values()))
            assert session.tokens == before
            paths = {}
            for row, tree in trees.items():
                assert hidden[row].shape == (len(tree), 32)
                for node in range(len(tree)):
                    fed = (*before[row], *(tree.tokens[i] for i in tree.path(node)))
                    assert (hidden[row][node] - truth(engine, fed)).abs().max() < EXACT, (turn, row, node)
                paths[row] = tree.path(int(rng.integers(-1, len(tree))))
            session.keep(paths)
            for row, path in paths.items():
                assert session.tokens[row] == before[row] + [trees[row].tokens[node] for node in path]
            if turn % 2:  # a step token by token between the looks
                session.append([(5 * turn + row) % 64 for row in range(len(prompts))])
            for row, tokens in enumerate(session.tokens):
                assert (session.hidden[row] - truth(engine, tokens)).abs().max() < EXACT
                assert len(session.states(row)) == len(tokens)
                assert (session.states(row) - engine.model(torch.tensor([tokens]))[0]).abs().max() < EXACT
        ends = [tuple(tokens) for tokens in session.tokens]
    plan = engine.plan(ends)  # what was kept was written back, and nothing else
    assert plan.prefill.sum() == 0
    with engine.open(plan) as session:
        for row, tokens in enumerate(ends):
            assert (session.hidden[row] - truth(engine, tokens)).abs().max() < EXACT


def test_a_chain_is_appending_with_fewer_passes():
    one, other, prompts, tokens = tiny_engine(), tiny_engine(), [text(30), text(8, 1)], text(50, 2)
    with one.open(one.plan(prompts)) as slow, other.open(other.plan(prompts)) as quick:
        for token in tokens:
            slow.append([token, token])
        for at in range(0, 50, 10):
            quick.look({row: Tree.chain(tokens[at : at + 10]) for row in range(2)})
            quick.keep({row: range(10) for row in range(2)})
        assert (slow.hidden - quick.hidden).abs().max() < EXACT
        assert slow.tokens == quick.tokens
        assert (slow.logits() - quick.logits()).abs().max() < EXACT
        assert one.counters.passes - other.counters.passes == 45
        assert one.counters.positions == other.counters.positions


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_what_was_begun_in_the_first_layers_is_finished_in_the_others(shape):
    shape = {"layers": 4} | shape | ({"windows": shape["windows"] * 2} if "windows" in shape else {})
    engine, rng = tiny_engine(**shape), np.random.default_rng(2)
    shared = text(40, seed=9)
    prompts = [text(17, 1), shared, shared, (*shared, *text(3)), text(5, 4)]
    with engine.open(engine.plan(prompts)) as session:
        for turn in range(6):
            rows = rng.permutation(5)[: rng.integers(2, 6)].tolist()
            chains = {row: rng.integers(3, 64, int(rng.integers(1, 5))).tolist() for row in rows}
            before = [list(tokens) for tokens in session.tokens]
            for at in range(max(map(len, chains.values()))):
                fed = {row: chain[at] for row, chain in chains.items() if at < len(chain)}
                states = session.begin(fed, 3)
                for row in fed:
                    tokens = torch.tensor([before[row] + chains[row][: at + 1]])
                    want = engine.model.blocks(engine.model.embed(tokens), stop=3)[0, -1]
                    assert (states[row] - want).abs().max() < EXACT
            trees = {row: Tree.chain(chain[: int(rng.integers(1, len(chain) + 1))]) for row, chain in chains.items()}
            if turn == 5:
                trees[rows[0]] = Tree.chain((1, *chains[rows[0]][1:]))  # another token: all layers for all
            assert session.begun_layers(trees) == (0 if turn == 5 else 3)
            passes, positions = engine.counters.passes, engine.counters.positions
            hidden = session.look(trees)
            assert engine.counters.passes == passes + 1
            assert engine.counters.positions == positions + sum(map(len, trees.values()))
            for row, tree in trees.items():
                for node in range(len(tree)):
                    fed = (*before[row], *tree.tokens[: node + 1])
                    assert (hidden[row][node] - truth(engine, fed)).abs().max() < EXACT, (turn, row, node)
            session.keep({row: range(int(rng.integers(0, len(tree) + 1))) for row, tree in trees.items()})
            for row, tokens in enumerate(session.tokens):
                assert (session.hidden[row] - truth(engine, tokens)).abs().max() < EXACT


def test_rows_go_back_and_on_as_if_nothing_had_been():
    engine, prompts = tiny_engine(), [text(20), text(7, 1)]
    with engine.open(engine.plan(prompts)) as session:
        session.look({0: Tree.chain((5, 6, 7, 8)), 1: Tree.chain((9, 10))})
        session.keep({0: range(4), 1: range(2)})
        session.rewind({0: 22, 1: 7})
        assert session.tokens == [[*prompts[0], 5, 6], list(prompts[1])]
        session.append([11, 12])
        for row, tokens in enumerate(session.tokens):
            assert (session.hidden[row] - truth(engine, tokens)).abs().max() < EXACT
        for length in (19, 24):
            with pytest.raises(UsageError, match="goes back to 20..23"):
                session.rewind({0: length})


def test_forks_look_at_their_prompt_by_reference():
    engine, prompt, rng = tiny_engine(), text(100), np.random.default_rng(1)
    engine.open(engine.plan([prompt])).close()
    with engine.open(engine.plan([prompt] * 16)) as session:
        session.look({row: grown(rng, 6) for row in range(16)})
        session.keep({row: [0] for row in range(16)})
        assert engine.counters.copied_prompt_bytes == 0
        assert engine.counters.copied_own_bytes == 0  # node 0 lies where it belongs
        assert session.rows.buffer.shape[4] < 64


def test_a_tree_is_its_branches():
    tree = Tree.of([(5, 6, 7), (5, 8), (9,), (5, 6)])
    assert tree == Tree((5, 6, 7, 8, 9), (-1, 0, 1, 0, -1))
    assert tree.depths.tolist() == [0, 1, 2, 1, 0]
    assert tree.under(4) == Tree((4, 5, 6, 7, 8, 9), (-1, 0, 1, 2, 1, 0))
    assert tree.first(3) == Tree.chain((5, 6, 7))
    assert tree.children() == [0, 4] and tree.children(0) == [1, 3]
    assert tree.path(2) == [0, 1, 2] and tree.path(-1) == []
    assert np.flatnonzero(tree.lineage[2]).tolist() == [0, 1, 2] and np.flatnonzero(tree.lineage[4]).tolist() == [4]


def test_its_price_is_what_a_look_takes():
    engine, trees = tiny_engine(), [Tree.of([(5, 6), (7,)]), Tree.chain((5, 6, 7))]
    each, once = engine.look([10, 20], trees)
    assert once.calls == 1
    assert [cost.evaluations for cost in each] == [3, 3]
    assert [cost.attended for cost in each] == [11 + 12 + 11, 21 + 22 + 23]
    assert [cost.flops for cost in each] == [engine.flops(3, 34, 3), engine.flops(3, 66, 3)]
    assert each[1].flops == sum(engine.feed([n])[0][0].flops for n in (21, 22, 23))  # as token by token
    assert engine.look([10], [Tree((), ())])[1].calls == 0


def test_what_cannot_be_meant_is_refused_in_one_line():
    engine = tiny_engine(context=12)
    with pytest.raises(UsageError, match="one parent before each node"):
        Tree((5, 6), (-1, 1))
    with engine.open(engine.plan([text(10), text(11), text(3)])) as session:
        session.drop([2])
        for trees in ({2: Tree.chain((5,))}, {0: Tree((), ())}, {7: Tree.chain((5,))}):
            with pytest.raises(UsageError, match="look"):
                session.look(trees)
        with pytest.raises(UsageError, match="context of 12"):
            session.look({0: Tree.chain((5, 6)), 1: Tree.chain((5, 6))})
        with pytest.raises(UsageError, match="keep"):
            session.keep({0: [0]})
        session.look({0: Tree.of([(5, 6), (7,)])})
        for path in ([1], [0, 2], [3], [-1]):
            with pytest.raises(UsageError, match="from a root down"):
                session.keep({0: path})
            session.look({0: Tree.of([(5, 6), (7,)])})
        session.append([5], [1])
        with pytest.raises(UsageError, match="keep"):  # an append forgets
            session.keep({0: [0]})
        for tokens, layers in (({0: 5}, 2), ({0: 5}, 0), ({2: 5}, 1)):
            with pytest.raises(UsageError, match="begin"):
                session.begin(tokens, layers)
