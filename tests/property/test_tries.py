"""Tries count what they were told, and never hold more than they may."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from anystep.language.accelerate.lookahead import below, best, one, score, several
from anystep.language.accelerate.trie import Memory, Node, Tails, after, nodes_below

texts = st.lists(st.integers(0, 3), max_size=40).map(tuple)


def entered(memory: Memory, trie: Node, text: tuple[int, ...]) -> None:
    tails = Tails()
    for token in text:
        memory.enter(trie, tails, token)


def stretches(text: tuple[int, ...], length: int) -> Counter[tuple[int, ...]]:
    return Counter(text[i:j] for i in range(len(text)) for j in range(i + 1, min(len(text), i + length) + 1))


def counts(node: Node, path: tuple[int, ...] = ()) -> dict[tuple[int, ...], float]:
    found = {} if not path else {path: node.count}
    for token, child in node.children.items():
        found |= counts(child, (*path, token))
    return found


@given(st.lists(texts, max_size=4), st.integers(1, 6))
def test_a_node_counts_how_often_its_stretch_was_seen(several: list[tuple[int, ...]], length: int) -> None:
    memory = Memory(10**6, length)
    for text in several:
        entered(memory, memory.outputs, text)
    want = sum((stretches(text, length) for text in several), Counter())
    assert counts(memory.outputs) == dict(want) and memory.size == len(want) == nodes_below(memory.outputs)


@settings(max_examples=60)
@given(st.lists(texts, min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 60), st.booleans())
def test_capacity_holds_after_every_token(
    several: list[tuple[int, ...]], length: int, capacity: int, decay: bool
) -> None:
    memory, prompts = Memory(capacity, length, decay), []
    for i, text in enumerate(several):
        prompts.append(Node())
        trie = memory.outputs if i % 2 else prompts[-1]
        tails = Tails()
        for token in text:
            memory.enter(trie, tails, token)
            held = nodes_below(memory.outputs) + sum(nodes_below(prompt) for prompt in prompts)
            assert held == memory.size <= memory.largest <= capacity
    for prompt in prompts:
        memory.drop(prompt)
    assert memory.size == nodes_below(memory.outputs)
    memory.clear()
    assert memory.size == 0


def test_what_was_seen_once_is_forgotten_first() -> None:
    memory = Memory(1000, 3)
    for _ in range(3):
        entered(memory, memory.outputs, (1, 2))
    entered(memory, memory.outputs, (7, 8))
    memory.halve()
    assert counts(memory.outputs) == {(1,): 1.5, (1, 2): 1.5, (2,): 1.5}
    memory.halve()
    assert memory.size == 0


def test_a_text_goes_on_after_what_it_stood_on_was_forgotten() -> None:
    memory, tails = Memory(1000, 4), Tails()
    for token in (1, 2, 3):
        memory.enter(memory.outputs, tails, token)
    memory.halve()
    memory.enter(memory.outputs, tails, 4)
    assert counts(memory.outputs) == {(4,): 1} and memory.size == 1


@given(texts, texts, st.integers(0, 12), st.integers(1, 5))
def test_guesses_are_the_best_nodes_and_stand_on_their_beginnings(
    prompt: tuple[int, ...], said: tuple[int, ...], count: int, depth: int
) -> None:
    memory, own = Memory(10**6, 6), Node()
    entered(memory, own, prompt)
    entered(memory, memory.outputs, said)
    paths = several((own, memory.outputs), count, depth)
    every = list(best((own, memory.outputs), depth, score))
    assert len(paths) == len(set(paths)) == min(count, len(every)) and max(map(len, paths), default=0) <= depth
    assert all(path[:-1] in paths for path in paths if len(path) > 1)
    chain = one((own, memory.outputs), count)
    assert all(path[:-1] == before for before, path in zip([(), *chain], chain, strict=False))
    if chain:
        ways = below((own, memory.outputs))
        assert score(ways[chain[0][0]]) == max(score(way) for way in ways.values())
        assert after(own, chain[-1]) or after(memory.outputs, chain[-1])
