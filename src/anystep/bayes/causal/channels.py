"""What a string diagram means: the functor to finite stochastic matrices, and what surgery does to the meaning.

A channel is a table of shape (*inputs, *outputs): table[a, b] is P(b | a), so that it sums to one over its outputs.
Composition is the product of matrices, `@` the Kronecker product, copying and discarding what their names say. Tables
of `fractions.Fraction` (arrays of dtype object) stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from anystep.bayes.causal.diagrams import UNIFORM, StringDiagram, causal_graph, cut
from anystep.bayes.programs import Effects, Finite, Program, Sample
from anystep.errors import UsageError

Array = np.ndarray[Any, Any]
Channels = Mapping[str, Any]


def interpret(diagram: StringDiagram, channels: Channels, sizes: Mapping[str, int] | None = None) -> Array:
    """The stochastic matrix that a diagram means, of shape (*sizes of dom, *sizes of cod).

    channels: for each box's name its table. sizes: of wires that touch no box with a table. Preserves composition and
    tensor exactly, up to rounding. Raises UsageError for tables that are missing, of another shape, negative or not
    summing to one.
    """
    tables, size = _tables(diagram, channels, dict(sizes or {}))
    inputs = len(diagram.dom)
    exact = any(t.dtype == object for t in tables)
    # The table so far has one axis for every input of the diagram (labels -1, -2, ...) and one for every live wire.
    labels = [*(-1 - k for k in range(inputs)), *range(inputs)]
    so_far = np.ones(()) if not exact else np.array(1, dtype=object)
    for k, name in enumerate(diagram.dom):
        so_far = np.multiply.outer(so_far, _eye(size[name], exact))
        labels[2 * k : 2 * k + 2] = [-1 - k, k]
    next_wire = inputs
    for n, ((piece, reads), table) in enumerate(zip(diagram.nodes, tables, strict=True)):
        gives = list(range(next_wire, next_wire + len(piece.cod)))
        next_wire += len(gives)
        needed = {w for _, later in diagram.nodes[n + 1 :] for w in later} | set(diagram.out)
        kept = [w for w in [*labels, *gives] if w < 0 or w in needed]
        so_far = _contracted([(so_far, labels), (table, [*reads, *gives])], kept)
        labels = kept
    ends = list(range(next_wire, next_wire + len(diagram.out)))  # one axis each, though a wire may go out twice
    for end, w in zip(ends, diagram.out, strict=True):
        so_far = _contracted([(so_far, labels), (_eye(size[diagram.types[w]], exact), [w, end])], [*labels, end])
        labels = [*labels, end]
    return _contracted([(so_far, labels)], [*(-1 - k for k in range(inputs)), *ends])


def intervene(
    diagram: StringDiagram,
    channels: Channels,
    do: str | Sequence[str],
    of: str | Sequence[str],
    given: str | Sequence[str] = (),
) -> Array:
    """P(of | given, do(do)) of the whole model, hidden variables and all: an array (*do, *given, *of).

    The diagram is cut at `do`, interpreted, and conditioned on what `do` and `given` are; the uniform state that
    surgery puts in cancels. Raises UsageError for what is no causal model and for conditions of mass 0.
    """
    do, given, of = _names(do), _names(given), _names(of)
    causal_graph(diagram)
    sizes = _tables(diagram, channels, {})[1]
    joint = interpret(cut(diagram.observing([*do, *given, *of]), *do), channels, sizes)
    return conditional(joint, len(do) + len(given))


def conditional(joint: Array, first: int) -> Array:
    """P(last axes | first axes) of a joint table; `first`: how many. Raises UsageError where a condition has mass 0."""
    mass = joint.sum(axis=tuple(range(first, joint.ndim)), keepdims=True)
    if not np.all(mass > 0):
        raise UsageError("A condition has mass 0: give a joint that is positive where it is conditioned on.")
    return joint / mass


def as_program(diagram: StringDiagram, channels: Channels, do: Mapping[str, int] | None = None) -> Program:
    """The same model as a probabilistic program that returns the values of the wires that go out.

    do: variables that are set, and to what. `bayes.measure` enumerates it: with tables of fractions, exactly.
    """
    causal_graph(diagram)
    tables, _ = _tables(diagram, channels, {})
    fixed = dict(do or {})

    def program() -> Effects:
        values: list[int] = []
        for (piece, reads), table in zip(diagram.nodes, tables, strict=True):
            if piece.cod[0] in fixed:
                values.append(fixed[piece.cod[0]])
            else:
                row = table[tuple(values[w] for w in reads)]
                values.append((yield Sample(Finite(tuple(range(len(row))), tuple(row)))))
        return tuple(values[w] for w in diagram.out)

    return program


def _names(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _tables(diagram: StringDiagram, channels: Channels, size: dict[str, int]) -> tuple[list[Array], dict[str, int]]:
    """The boxes' tables in order, and the size of every type of wire."""
    for piece, _ in diagram.nodes:
        if piece.name != UNIFORM:
            if piece.name not in channels:
                raise UsageError(f"interpret(...): no table for {piece}; channels={{{piece.name!r}: table, ...}}.")
            shape = np.shape(channels[piece.name])
            ends = (*piece.dom, *piece.cod)
            if len(shape) != len(ends) or any(size.setdefault(t, s) != s for t, s in zip(ends, shape, strict=True)):
                wanted = ", ".join(f"{t}: {size.get(t, 'any')}" for t in ends)
                raise UsageError(f"The table of {piece.name!r} has shape {shape}; it needs one axis each for {wanted}.")
    missing = set(diagram.types) - set(size)
    if missing:
        raise UsageError(f"How many values have {sorted(missing)}? interpret(..., sizes={{{min(missing)!r}: 2}}).")
    return [_table(piece.name, channels, piece.cod, size) for piece, _ in diagram.nodes], size


def _table(name: str, channels: Channels, cod: Sequence[str], size: Mapping[str, int]) -> Array:
    if name == UNIFORM:
        n = size[cod[0]]
        exact = any(np.asarray(t).dtype == object for t in channels.values())
        return np.array([Fraction(1, n)] * n, dtype=object) if exact else np.full(n, 1 / n)
    table = np.asarray(channels[name])
    table = table if table.dtype == object else table.astype(np.float64)
    total = table.sum(axis=tuple(range(table.ndim - len(cod), table.ndim)))
    if not (np.all(table >= 0) and np.all(np.abs(np.asarray(total, dtype=np.float64) - 1) < 1e-9)):
        raise UsageError(
            f"The table of {name!r} is no channel: entries of 0 or more that sum to one over {tuple(cod)}."
        )
    return table


def _eye(n: int, exact: bool) -> Array:
    return np.eye(n, dtype=int).astype(object) if exact else np.eye(n)


def _contracted(factors: list[tuple[Array, list[int]]], kept: list[int]) -> Array:
    """The sum over all labels but those kept of the product of tables; labels are any numbers."""
    short = {w: k for k, w in enumerate(dict.fromkeys(w for _, ws in factors for w in ws))}
    spelt = [part for table, ws in factors for part in (table, [short[w] for w in ws])]
    return np.asarray(np.einsum(*spelt, [short[w] for w in kept]))
