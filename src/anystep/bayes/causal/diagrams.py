"""String diagrams with copying and discarding: how processes are wired, before anything is said about what they do.

    smoking = StringDiagram.of_graph({"H": (), "S": ("H",), "T": ("S",), "C": ("H", "T")}, hidden=("H",))
    front = box("f", ("A",), ("B",)) >> copy("B") >> box("g", ("B",), ("C",)) @ identity("B")

Diagrams are kept in a normal form, so `==` decides equality in the free Markov category on the boxes: copying is
associative, commutative and undone by discarding, boxes slide along wires, and a box whose outputs are all discarded is
gone. Copying what a box gave and running the box twice stay different, as they must.

Source: Jacobs, Kissinger and Zanasi, Causal inference by string diagram surgery, FoSSaCS 2019 (arXiv 1811.08338).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from anystep.bayes.causal.graphs import Parents, in_order
from anystep.errors import UsageError

Types = tuple[str, ...]
Wires = tuple[int, ...]


@dataclass(frozen=True)
class Box:
    """A named process from wires of these types to wires of these types."""

    name: str
    dom: Types
    cod: Types


@dataclass(frozen=True)
class StringDiagram:
    """Boxes joined by wires; make one with `box`, `identity`, `copy`, `discard`, `swap`, `uniform`, `>>` and `@`.

    dom: the types of the wires that come in, numbered 0, 1, ... `nodes`: each a box and the wires that it reads; the
    wires that it gives are numbered on from there. `out`: the wires that go out; one named twice is copied, one never
    named is discarded. Raises UsageError where a box reads a wire of another type.
    """

    dom: Types
    nodes: tuple[tuple[Box, Wires], ...]
    out: Wires
    types: Types = field(init=False, repr=False, compare=False)  # of all wires

    def __post_init__(self) -> None:
        types = list(self.dom)
        for piece, reads in self.nodes:
            if tuple(types[w] for w in reads) != piece.dom:
                raise UsageError(f"{piece} reads wires of types {tuple(types[w] for w in reads)}; give it its own.")
            types += piece.cod
        nodes, out = _normal(self.dom, self.nodes, self.out)
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "out", out)
        object.__setattr__(self, "types", (*self.dom, *(t for piece, _ in nodes for t in piece.cod)))

    @property
    def cod(self) -> Types:
        """The types of the wires that go out."""
        return tuple(self.types[w] for w in self.out)

    def __rshift__(self, other: StringDiagram) -> StringDiagram:
        """This, then the other. Raises UsageError where what goes out is not what the other takes."""
        if self.cod != other.dom:
            raise UsageError(
                f"f >> g: f gives {self.cod}, g takes {other.dom}; `@ identity(...)` and `swap` mend that."
            )
        made = _Making(self.dom)
        return made.done(made.add(other, made.add(self, range(len(self.dom)))))

    def __matmul__(self, other: StringDiagram) -> StringDiagram:
        """This beside the other."""
        made = _Making(self.dom + other.dom)
        mine = made.add(self, range(len(self.dom)))
        return made.done(mine + made.add(other, range(len(self.dom), len(made.types_in))))

    def observing(self, names: Iterable[str]) -> StringDiagram:
        """The same, but that exactly the wires of these types go out, in this order.

        Raises UsageError for a type that is not on exactly one wire.
        """
        names = tuple(names)
        for name in names:
            if self.types.count(name) != 1:
                raise UsageError(f"observing({name!r}): one wire of that name is needed, among {sorted(self.types)}.")
        return StringDiagram(self.dom, self.nodes, tuple(self.types.index(name) for name in names))

    def replaced(self, change: Callable[[Box], StringDiagram | None]) -> StringDiagram:
        """The same with each box replaced by the diagram that `change` gives for it, None for itself: a functor."""
        made = _Making(self.dom)
        at = list(range(len(self.dom)))
        for piece, reads in self.nodes:
            new = change(piece)
            at += made.add(box(*_parts(piece)) if new is None else new, [at[w] for w in reads])
        return made.done([at[w] for w in self.out])

    @classmethod
    def of_graph(cls, parents: Parents, hidden: Sequence[str] = ()) -> StringDiagram:
        """The causal model of an acyclic graph: one box a variable, named after it, from its parents to it.

        parents: for every variable its parents. hidden: variables that do not go out; the others do, in the order of
        `parents`. Raises UsageError for cycles and unknown names.
        """
        unknown = {*hidden, *(p for some in parents.values() for p in some)} - set(parents)
        if unknown:
            raise UsageError(
                f"{sorted(unknown)}: every variable has its line, as in of_graph({{'A': (), 'B': ('A',)}})."
            )
        made, wire = _Making(()), dict[str, int]()
        for v in in_order(parents):
            (wire[v],) = made.add(box(v, tuple(parents[v]), (v,)), [wire[p] for p in parents[v]])
        return made.done([wire[v] for v in parents if v not in hidden])


def box(name: str, dom: Sequence[str], cod: Sequence[str]) -> StringDiagram:
    """The diagram of one box."""
    inputs = tuple(range(len(dom)))
    outputs = tuple(range(len(dom), len(dom) + len(cod)))
    return StringDiagram(tuple(dom), ((Box(name, tuple(dom), tuple(cod)), inputs),), outputs)


def identity(*types: str) -> StringDiagram:
    """Wires that go straight through."""
    return StringDiagram(types, (), tuple(range(len(types))))


def copy(kind: str) -> StringDiagram:
    """One wire in, the same twice out."""
    return StringDiagram((kind,), (), (0, 0))


def discard(kind: str) -> StringDiagram:
    """One wire in, none out."""
    return StringDiagram((kind,), (), ())


def swap(first: str, second: str) -> StringDiagram:
    """Two wires, crossing."""
    return StringDiagram((first, second), (), (1, 0))


UNIFORM = "uniform"  # the one box whose meaning is given: every value of its wire alike


def uniform(kind: str) -> StringDiagram:
    """The state in which every value of a wire is equally likely."""
    return box(UNIFORM, (), (kind,))


def cut(diagram: StringDiagram, *variables: str) -> StringDiagram:
    """Surgery: whatever sets these variables is cut away, and they are uniform instead.

    A functor: cut(f >> g) is cut(f) >> cut(g), and so for `@`. Raises UsageError for a box that sets one of them
    together with something else.
    """

    def change(piece: Box) -> StringDiagram | None:
        touched = [v for v in piece.cod if v in variables]
        if not touched:
            return None
        if len(piece.cod) > 1:
            raise UsageError(f"cut({touched[0]!r}): {piece} sets more than that; split it into boxes of one output.")
        return StringDiagram(piece.dom, ((Box(UNIFORM, (), piece.cod), ()),), (len(piece.dom),))

    return diagram.replaced(change)


def causal_graph(diagram: StringDiagram) -> dict[str, tuple[str, ...]]:
    """For every variable its parents. Raises UsageError for a diagram that is no causal model.

    A causal model takes nothing in, every variable is set by one box that sets nothing else, and goes out at most once.
    """
    names = [t for piece, _ in diagram.nodes for t in piece.cod]
    single = all(len(piece.cod) == 1 for piece, _ in diagram.nodes)
    if diagram.dom or not single or len(set(names)) < len(names) or len(set(diagram.out)) < len(diagram.out):
        raise UsageError(
            "A causal model has no inputs, one box a variable and each variable out at most once, as from "
            "StringDiagram.of_graph({'A': (), 'B': ('A',)})."
        )
    return {piece.cod[0]: piece.dom for piece, _ in diagram.nodes}


class _Making:
    """A diagram that grows: what is added reads wires that are there already."""

    def __init__(self, types_in: Types) -> None:
        self.types_in = types_in
        self.nodes: list[tuple[Box, Wires]] = []
        self.wires = len(types_in)

    def add(self, diagram: StringDiagram, inputs: Iterable[int]) -> list[int]:
        at = list(inputs)
        for piece, reads in diagram.nodes:
            self.nodes.append((piece, tuple(at[w] for w in reads)))
            at += range(self.wires, self.wires + len(piece.cod))
            self.wires += len(piece.cod)
        return [at[w] for w in diagram.out]

    def done(self, out: Iterable[int]) -> StringDiagram:
        return StringDiagram(self.types_in, tuple(self.nodes), tuple(out))


def _parts(piece: Box) -> tuple[str, Types, Types]:
    return piece.name, piece.dom, piece.cod


def _normal(
    dom: Types, nodes: tuple[tuple[Box, Wires], ...], out: Wires
) -> tuple[tuple[tuple[Box, Wires], ...], Wires]:
    """Boxes in the order in which the outputs, read from the first on, need them; what no output needs is left out."""
    maker: list[int | None] = [None] * len(dom)  # of a wire: which node
    for n, (piece, _) in enumerate(nodes):
        maker += [n] * len(piece.cod)

    def makers(wires: Wires) -> list[int]:
        return [n for w in wires if (n := maker[w]) is not None]

    order: dict[int, None] = {}
    waiting = makers(out)[::-1]
    while waiting:
        n = waiting[-1]
        before = [m for m in makers(nodes[n][1]) if m not in order]
        if n not in order and before:
            waiting.append(before[0])
            continue
        order.setdefault(waiting.pop())
    first = [maker.index(n) if nodes[n][0].cod else -1 for n in range(len(nodes))]
    new: Mapping[int, int] | dict[int, int] = {w: w for w in range(len(dom))}
    for n in order:
        new = {**new, **{first[n] + k: len(new) + k for k in range(len(nodes[n][0].cod))}}
    return tuple((nodes[n][0], tuple(new[w] for w in nodes[n][1])) for n in order), tuple(new[w] for w in out)
