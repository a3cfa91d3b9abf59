"""Causal diagrams to check inference on: random channels, random terms with their matrices, and all small graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction as F
from functools import reduce
from itertools import combinations, product
from typing import Any

import numpy as np
import torch

from anystep.bayes.causal import StringDiagram, box, copy, discard, identity, swap
from anystep.process import Floats

SMOKING = {"H": (), "S": ("H",), "T": ("S",), "C": ("H", "T")}  # hidden trait, smoking, tar, cancer
TRAIT = {  # those with the trait smoke more and fall ill less, so that smoking looks healthy
    "H": (F(1, 2), F(1, 2)),
    "S": ((F(9, 10), F(1, 10)), (F(1, 10), F(9, 10))),
    "T": ((F(9, 10), F(1, 10)), (F(1, 10), F(9, 10))),
    "C": (((F(2, 5), F(3, 5)), (F(1, 5), F(4, 5))), ((F(9, 10), F(1, 10)), (F(3, 4), F(1, 4)))),
}
WORKED: dict[str, Any] = {name: np.array(table, dtype=object) for name, table in TRAIT.items()}
Graph = Mapping[str, tuple[str, ...]]


def smoking() -> StringDiagram:
    """The front-door diagram."""
    return StringDiagram.of_graph(SMOKING, hidden=("H",))


def random_channels(
    graph: Graph, sizes: Mapping[str, int], rng: np.random.Generator, least: float = 1e-3
) -> dict[str, Floats]:
    """A Dirichlet(1) row for every value of the parents, mixed with the uniform so that no entry is below `least`."""
    tables = {}
    for v, parents in graph.items():
        rows = rng.dirichlet(np.ones(sizes[v]), [sizes[p] for p in parents])
        tables[v] = least + (1 - least * sizes[v]) * rows
    return tables


def small_graphs(names: str = "ABC") -> Iterator[tuple[dict[str, tuple[str, ...]], tuple[str, ...]]]:
    """Every acyclic graph on the names in this order, with every choice of pairs that share a hidden cause."""
    pairs = list(combinations(names, 2))
    for arrows, shares in product(product((0, 1), repeat=len(pairs)), repeat=2):
        shared = [a + b for (a, b), there in zip(pairs, shares, strict=True) if there]
        graph: dict[str, tuple[str, ...]] = {h: () for h in shared}
        for v in names:
            above = [a for (a, b), there in zip(pairs, arrows, strict=True) if there and b == v]
            graph[v] = (*(h for h in shared if v in h), *above)
        yield graph, tuple(shared)


def determined(graph: Graph, hidden: tuple[str, ...], do: str, of: str, given: tuple[str, ...], seed: int) -> bool:
    """Whether, near a random model, the joint determines P(of | given, do(do)): by the rank of derivatives.

    Observed variables have 2 values, hidden ones 4. The effect is a function of the joint only if its derivatives by
    the model's parameters are combinations of the joint's; nothing here knows of combs.
    """
    draw = torch.Generator().manual_seed(seed)
    names = list(graph)
    size = {v: 4 if v in hidden else 2 for v in names}
    shapes = [[size[p] for p in graph[v]] + [size[v]] for v in names]
    counts = [int(np.prod(s)) for s in shapes]
    theta = torch.randn(sum(counts), generator=draw, dtype=torch.float64)

    def table(parameters: torch.Tensor, keep: tuple[str, ...], cut: str | None) -> torch.Tensor:
        spelt: list[Any] = []
        for v, shape, part in zip(names, shapes, torch.split(parameters, counts), strict=True):
            if v != cut:
                spelt += [part.reshape(shape).softmax(-1), [names.index(p) for p in (*graph[v], v)]]
        return torch.einsum(*spelt, [names.index(v) for v in keep])

    def effect(parameters: torch.Tensor) -> torch.Tensor:
        if any(do in graph[v] for v in names):
            both = table(parameters, (do, *given, of), do)
        else:
            both = table(parameters, (*given, of), do).expand(2, *[2] * (len(given) + 1))
        return (both / both.sum(-1, keepdim=True)).flatten()

    seen = tuple(v for v in names if v not in hidden)
    joint = torch.func.jacrev(lambda p: table(p, seen, None).flatten())(theta)
    wanted = torch.func.jacrev(effect)(theta)
    values, left = torch.linalg.svd(joint, full_matrices=False)[1:]
    basis = left[values > 1e-9 * values[0]]
    rest = wanted - wanted @ basis.T @ basis
    return float(rest.norm()) < 1e-6 * max(float(wanted.norm()), 1e-3)


Term = tuple[StringDiagram, Any]  # a diagram and the matrix built beside it, by products of matrices alone
WIRES = {"a": 2, "b": 3, "c": 4}


def generators(rng: np.random.Generator) -> tuple[list[Term], dict[str, Floats]]:
    """Boxes with random tables, and copy, discard, swap and identity with the matrices that define them."""
    ends = [("f", "a", "b"), ("g", "b", "ca"), ("h", "ca", "a"), ("k", "c", "b"), ("s", "", "a"), ("m", "ab", "c")]
    tables: dict[str, Floats] = {}
    found: list[Term] = []
    for name, dom, cod in ends:
        rows, columns = (int(np.prod([WIRES[t] for t in side])) for side in (dom, cod))
        matrix = rng.dirichlet(np.ones(columns), rows)
        tables[name] = matrix.reshape([WIRES[t] for t in dom + cod])
        found.append((box(name, tuple(dom), tuple(cod)), matrix))
    for t, n in WIRES.items():
        twice = np.zeros((n, n * n))
        twice[np.arange(n), np.arange(n) * (n + 1)] = 1
        found += [(identity(t), np.eye(n)), (copy(t), twice), (discard(t), np.ones((n, 1)))]
    for t, u in product(WIRES, WIRES):
        n, m = WIRES[t], WIRES[u]
        crossed = np.eye(n * m).reshape(n, m, n, m).transpose(0, 1, 3, 2).reshape(n * m, n * m)
        found.append((swap(t, u), crossed))
    return found, tables


def random_term(pieces: list[Term], rng: np.random.Generator, layers: int = 4) -> Term:
    """Layers of generators side by side, each fitting what the layer before gives."""
    wires: tuple[str, ...] = tuple(rng.choice(list(WIRES), rng.integers(1, 4)))
    term: Term = (identity(*wires), np.eye(int(np.prod([WIRES[w] for w in wires]))))
    for _ in range(layers):
        row = [p for p in pieces if not p[0].dom and len(wires) < 3 and rng.random() < 0.5]  # a state beside it
        left = list(wires)
        while left:
            fit = [p for p in pieces if p[0].dom and p[0].dom == tuple(left[: len(p[0].dom)])]
            fit = [p for p in fit if len(wires) < 3 or len(p[0].cod) <= len(p[0].dom)]
            chosen = fit[rng.integers(len(fit))]
            row.append(chosen)
            left = left[len(chosen[0].dom) :]
        layer: Term = reduce(lambda x, y: (x[0] @ y[0], np.kron(x[1], y[1])), row)
        term = (term[0] >> layer[0], term[1] @ layer[1])
        wires = term[0].cod
        if not wires:
            break
    return term
