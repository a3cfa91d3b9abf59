"""What can be read off an acyclic graph, some of whose variables are hidden."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from graphlib import CycleError, TopologicalSorter
from itertools import combinations

from anystep.errors import UsageError

Parents = Mapping[str, Sequence[str]]
Pairs = Set[frozenset[str]]


def in_order(parents: Parents) -> list[str]:
    """Parents before children, and otherwise as they were given. Raises UsageError for a cycle."""
    sorter = TopologicalSorter({v: parents[v] for v in parents})
    try:
        sorter.prepare()
    except CycleError as error:
        raise UsageError(f"The graph has a cycle, {' <- '.join(error.args[1])}; a cause is not its effect.") from error
    rank, order, ready = {v: i for i, v in enumerate(parents)}, list[str](), list[str]()
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=rank.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def ancestors(parents: Parents, of: Iterable[str]) -> set[str]:
    """These and all that stands above them, within the graph given."""
    found: set[str] = set()
    waiting = list(of)
    while waiting:
        v = waiting.pop()
        if v not in found:
            found.add(v)
            waiting += [p for p in parents[v] if p in parents]
    return found


def within(parents: Parents, kept: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The graph on these variables alone."""
    kept = set(kept)
    return {v: tuple(p for p in some if p in kept) for v, some in parents.items() if v in kept}


def projected(parents: Parents, observed: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], set[frozenset[str]]]:
    """The graph on the observed variables (latent projection): arrows, and the pairs that share a hidden cause.

    An arrow stands for a path through hidden variables alone; a pair shares a cause if a hidden one reaches both so.
    """
    children: dict[str, list[str]] = {v: [] for v in parents}
    for v, some in parents.items():
        for p in some:
            children[p].append(v)

    def reached(v: str) -> set[str]:
        found, waiting = set[str](), list(children[v])
        while waiting:
            w = waiting.pop()
            if w not in found:
                found.add(w)
                waiting += children[w] if w not in observed else []
        return found & set(observed)

    reach = {v: reached(v) for v in parents}
    shared = {frozenset(two) for h in parents if h not in observed for two in combinations(sorted(reach[h]), 2)}
    return {v: tuple(u for u in observed if v in reach[u]) for v in observed}, shared


def components(variables: Iterable[str], shared: Pairs) -> list[tuple[str, ...]]:
    """The c-components: variables that are joined by hidden common causes, directly or through each other."""
    groups: list[tuple[str, ...]] = []
    for v in variables:
        joined = [g for g in groups if any(frozenset((v, w)) in shared for w in g)]
        groups = [g for g in groups if g not in joined] + [(*(w for g in joined for w in g), v)]
    return groups


def separated(parents: Parents, left: Set[str], right: Set[str], given: Set[str]) -> bool:
    """d-separation: whether the graph alone makes left and right independent given the rest named."""
    graph = within(parents, ancestors(parents, left | right | given))
    near: dict[str, set[str]] = {v: set() for v in graph}
    for v, some in graph.items():  # the moral graph: parents of one child are joined
        for a, b in combinations((v, *some), 2):
            near[a].add(b)
            near[b].add(a)
    found, waiting = set[str](), [v for v in left if v not in given]
    while waiting:
        v = waiting.pop()
        if v not in found:
            found.add(v)
            waiting += near[v] - given
    return not found & right
