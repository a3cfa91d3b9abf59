"""What is compared: a method as a family over n, with the n it is tried at."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from anystep import search
from anystep.errors import UsageError
from anystep.naming import Asks, named_method
from anystep.procedure import Method
from anystep.process import Reward
from anystep.tasks.task import Task

NS = (1, 4, 16, 64)
SIZES = {  # the option that grows; n for all others
    "ab_mcts": "rounds",
    "astar": "expansions",
    "beam": "width",
    "consistency_check_loop": "rounds",
    "mcts": "rounds",
    "step_beam": "width",
    "tree_of_thoughts": "expansions",
}


@dataclass(frozen=True)
class Entry:
    """One line of a comparison: `family(n, task)` is its method at size n.

    greedy: run on the model's greedy process, once. oracle: it reads the answer key, so it is an upper bound and is
    labelled so. key: what tells it from another of the same label. Raises UsageError for an
    empty or non-positive `ns`.
    """

    label: str
    family: Callable[[int, Task], Method]
    ns: tuple[int, ...] = NS
    greedy: bool = False
    oracle: bool = False
    key: str = ""

    def __post_init__(self) -> None:
        check_ns(self.ns)
        if self.greedy and self.ns != (1,):
            object.__setattr__(self, "ns", (1,))  # a deterministic process has one answer


def check_ns(ns: Sequence[int]) -> tuple[int, ...]:
    """The sizes, ascending and once each; UsageError where there is none or one is below 1."""
    if not ns or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in ns):
        raise UsageError(f"compare(ns={tuple(ns)}): ns are whole numbers, 1 or more; call compare(..., ns=(1, 4, 16)).")
    return tuple(sorted(set(ns)))


def greedy() -> Entry:
    """One sample at temperature 0."""
    return Entry("greedy", lambda n, task: search.sample(n=1), ns=(1,), greedy=True)


def entry(
    text: str,
    ns: Sequence[int] = NS,
    label: str | None = None,
    methods: Mapping[str, Callable[..., Method]] | None = None,
    rewards: Mapping[str, Callable[..., Reward]] | None = None,
    asks: Asks | None = None,
) -> Entry:
    """An entry from a method's text without its size, `best_of_n(reward=chain_steps)`; with its size it is one point.

    methods, rewards: of the caller's own, by name. asks: as in `named_method`. Raises UsageError for a text that is no
    method; its rewards are made for each task when it runs.
    """
    text = text.strip()
    if text == "greedy":
        return greedy()
    name, options = _read(text)
    size = SIZES.get(name, "n")
    fixed = {k.arg: k.value for k in options}.get(size)
    try:
        points = (int(ast.literal_eval(fixed)),) if fixed is not None else check_ns(ns)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise UsageError(f"{text[:80]!r}: {size} is a whole number; write {name}({size}=16).") from None

    def family(n: int, task: Task) -> Method:
        kept = [f"{k.arg}={ast.unparse(k.value)}" for k in options if k.arg != size]
        return named_method(f"{name}({', '.join([f'{size}={n}', *kept])})", task, methods, rewards, asks).method

    oracle = any(isinstance(k.value, ast.Name) and k.value.id == "oracle" for k in options)
    return Entry(label or text, family, points, oracle=oracle, key=text)


def baselines(entries: Sequence[Entry], ns: Sequence[int] = NS) -> tuple[Entry, ...]:
    """The entries with greedy and self-consistency in front, where they are not among them."""
    have = {e.label.partition("(")[0] for e in entries}
    mine = [greedy()] if not any(e.greedy for e in entries) else []
    mine += [entry("self_consistency", ns)] if "self_consistency" not in have else []
    return (*mine, *entries)


def _read(text: str) -> tuple[str, list[ast.keyword]]:
    """A method's name and options as written; what they mean is `named_method`'s to judge."""
    shape = "write it without its size, like best_of_n(reward=chain_steps)"
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UsageError(f"cannot read the method {text[:80]!r}; {shape}.") from None
    if isinstance(node, ast.Name):
        return node.id, []
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.args:
        raise UsageError(f"{text[:80]!r} is not a method with its options by name; {shape}.")
    if any(k.arg is None for k in node.keywords):
        raise UsageError(f"{text[:80]!r} is not a method with its options by name; {shape}.")
    return node.func.id, node.keywords
