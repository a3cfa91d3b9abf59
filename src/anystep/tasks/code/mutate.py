"""Plausible wrong programs: the reference with one slip in it, or a table of the examples that were shown.

They are the planted errors that a check is measured by. A slip may change nothing that matters; whether a program is
wrong is said by the hidden tests, never assumed.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

Rewrite = Callable[[ast.AST], Iterator[ast.AST]]

_BOUND: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
_TURN: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
_SIGN: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.FloorDiv, ast.Div: ast.FloorDiv,
}  # fmt: skip
_NAMES = {"max": "min", "min": "max", "sum": "len", "first": "last", "upper": "lower"}


@dataclass(frozen=True)
class Slip:
    """A program with one slip of some kind; what it comes to, the hidden tests say."""

    kind: str
    source: str


def slips(source: str) -> Iterator[Slip]:
    """Every program that is one slip away from `source`, each text once.

    Kinds: "bound" (< for <=), "turned" (< for >, == for !=), "sign" (+ for -), "number" (off by one), "name" (max for
    min), "edge" (a guard such as `if not xs` left out), "start" (a slice or a range that starts or ends one away).
    """
    tree, seen = ast.parse(source), {ast.unparse(ast.parse(source))}
    for at, node in enumerate(ast.walk(tree)):
        for kind, rewrite in _REWRITES.items():
            for new in rewrite(node):
                text = ast.unparse(_replaced(tree, at, new))
                if text not in seen:
                    seen.add(text)
                    yield Slip(kind, text)


def overfit(entry: str, head: str, shown: Sequence[tuple[tuple[Any, ...], Any]]) -> Slip:
    """A program that knows the examples which were shown, and nothing else."""
    names = [argument.arg for argument in _function(f"{head}\n    pass").args.args]
    asked = ", ".join(names) + ("," if len(names) == 1 else "")
    lines = [line for given, out in shown for line in (f"    if ({asked}) == {given!r}:", f"        return {out!r}")]
    return Slip("overfit", ast.unparse(ast.parse("\n".join([head, *lines, f"    return {type(shown[0][1])()!r}"]))))


def some(r: Random, every: Sequence[Slip], n: int) -> list[Slip]:
    """At most n of them, the kinds in turn, so that a kind with many places is not most of them."""
    kinds: dict[str, list[Slip]] = {}
    for slip in r.sample(list(every), len(every)):
        kinds.setdefault(slip.kind, []).append(slip)
    found: list[Slip] = []
    while len(found) < n and any(kinds.values()):
        found += [left.pop() for left in kinds.values() if left]
    return found[:n]


def _replaced(tree: ast.Module, at: int, new: ast.AST) -> ast.Module:
    """The tree with its node number `at` in walking order become `new`."""
    again = copy.deepcopy(tree)
    node = list(ast.walk(again))[at]
    node.__class__ = new.__class__
    node.__dict__.clear()
    node.__dict__.update(copy.deepcopy(new).__dict__)
    return ast.fix_missing_locations(again)


def _function(source: str) -> ast.FunctionDef:
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def _compared(table: dict[type[ast.cmpop], type[ast.cmpop]]) -> Rewrite:
    def rewrite(node: ast.AST) -> Iterator[ast.AST]:
        for i, op in enumerate(node.ops if isinstance(node, ast.Compare) else ()):
            if type(op) in table and isinstance(node, ast.Compare):
                ops = [*node.ops[:i], table[type(op)](), *node.ops[i + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)

    return rewrite


def _sign(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGN:
        yield ast.BinOp(node.left, _SIGN[type(node.op)](), node.right)
    if isinstance(node, ast.AugAssign) and type(node.op) in _SIGN:
        yield ast.AugAssign(node.target, _SIGN[type(node.op)](), node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield node.operand


def _number(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))


def _name(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Name) and node.id in _NAMES:
        yield ast.Name(_NAMES[node.id], node.ctx)
    if isinstance(node, ast.Attribute) and node.attr in _NAMES:
        yield ast.Attribute(node.value, _NAMES[node.attr], node.ctx)


def _edge(node: ast.AST) -> Iterator[ast.AST]:
    """Without a guard: a condition that leaves early, or the second half of one."""
    if isinstance(node, ast.If) and isinstance(node.body[0], ast.Return):
        yield ast.Pass()
    if isinstance(node, ast.BoolOp):
        yield from node.values
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)


def _start(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Slice):
        if node.lower is not None:
            yield ast.Slice(ast.BinOp(node.lower, ast.Add(), ast.Constant(1)), node.upper, node.step)
        if node.upper is not None:
            yield ast.Slice(node.lower, ast.BinOp(node.upper, ast.Add(), ast.Constant(1)), node.step)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        *first, last = node.args
        yield ast.Call(node.func, [*first, ast.BinOp(last, ast.Sub(), ast.Constant(1))], [])
        if not first:
            yield ast.Call(node.func, [ast.Constant(1), last], [])


_REWRITES: dict[str, Rewrite] = {
    "bound": _compared(_BOUND),
    "turned": _compared(_TURN),
    "sign": _sign,
    "number": _number,
    "name": _name,
    "edge": _edge,
    "start": _start,
}
