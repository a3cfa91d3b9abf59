"""Can a small model be searched into using a calculator? `python benchmarks/tools.py` (SmolLM2-135M, 25 minutes).

40 questions, half of them products of two two-digit numbers, half a word problem of a product and a difference. Two
examples in the prompt show how to call `calculate`. One line a method: the share of right answers with its interval,
each half's, and the mean tokens (prompt and generated; what is found in the cache is free). The reward is no oracle: it
asks whether a call came to a number, and whether the answer is the last such number.
"""

from __future__ import annotations

import ast
import contextlib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from anystep import AnystepError, Run, drive, reward, search
from anystep.calibrate.interval import level
from anystep.language import LanguageProcess, load
from anystep.language.tools import ToolProcess, tool
from anystep.procedure import Method

OPERATIONS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
THINGS = (
    "A farm has {} crates of {} apples and gives away {} apples. How many apples are left?",
    "A school has {} rooms of {} chairs and breaks {} chairs. How many chairs are left?",
)
HALF = 20


@tool
def calculate(expression: str) -> str:
    """Evaluate an arithmetic expression, such as 12*(3+4)."""
    return f"{_value(ast.parse(expression, mode='eval').body):g}"


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float()):
            return float(node.value)  # type: ignore[arg-type]
        case ast.BinOp(left, op, right) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op, operand) if type(op) in OPERATIONS:
            return OPERATIONS[type(op)](_value(operand))
    raise ValueError("only numbers and + - * /")


def shown(question: str, expression: str, result: str) -> list[dict[str, str]]:
    """An example of a question answered with the calculator."""
    call = f'<tool_call>\n{{"name": "calculate", "arguments": {{"expression": "{expression}"}}}}\n</tool_call>'
    said = [("user", question), ("assistant", call), ("tool", result), ("assistant", f"The answer is {result}.")]
    return [{"role": role, "content": content} for role, content in said]


SHOTS = [
    *shown("What is 12 times 11?", "12*11", "132"),
    *shown("A shop has 7 boxes of 15 pens and sells 20 pens. How many pens are left?", "7*15-20", "85"),
]
PLAIN = [m for m in SHOTS if m["role"] != "tool" and "<tool_call>" not in m["content"]]


def questions() -> list[tuple[str, int]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(HALF):
        a, b = rng.integers(12, 99, 2).tolist()
        found.append((f"What is {a} times {b}?", a * b))
    for i in range(HALF):
        a, b, c = int(rng.integers(3, 20)), int(rng.integers(11, 40)), int(rng.integers(5, 30))
        found.append((THINGS[i % 2].format(a, b, c), a * b - c))
    return found


def number(text: str) -> float | None:
    """The last number in a text."""
    found = re.findall(r"-?\d+(?:\.\d+)?", text.replace(",", ""))
    return float(found[-1]) if found else None


@reward
def grounded(states: Any) -> list[float]:
    """0.1 before a call has come to a number, then 0.5, and 0.9 for an answer that is the last such number."""
    return [_grounded(row) for row in states.rows]


def _grounded(row: Any) -> float:
    told = [m["content"] for m in row.messages[len(SHOTS) + 1 :] if m["role"] == "tool"]
    results = [text for text in told if not text.startswith("Error")]
    if not results:
        return 0.1
    return 0.9 if row.final is not None and number(row.final) == number(results[-1]) else 0.5


@dataclass(frozen=True)
class Entry:
    """A method, and whether it has the calculator."""

    name: str
    tools: bool
    temperature: float
    method: Method


ENTRIES = (
    Entry("no tools, greedy", False, 0.0, search.sample(n=1)),
    Entry("no tools, majority of 8", False, 0.7, search.self_consistency(n=8)),
    Entry("tools, greedy", True, 0.0, search.sample(n=1)),
    Entry("tools, one sample", True, 0.7, search.sample(n=1)),
    Entry("tools, majority of 8", True, 0.7, search.self_consistency(n=8)),
    Entry("tools, best of 8", True, 0.7, search.best_of_n(n=8, reward=grounded)),
    Entry("tools, particle filter of 8", True, 0.7, search.particle_filter(n=8, potential=grounded.log_odds())),
)


def process(engine: Any, entry: Entry, question: str) -> Any:
    asked = {"role": "user", "content": question}
    options: dict[str, Any] = {"temperature": entry.temperature, "max_tokens": 60, "extract": number}
    if entry.tools:
        return ToolProcess(engine, [*SHOTS, asked], [calculate], max_turns=4, **options)
    return LanguageProcess(engine, [*PLAIN, asked], unit="completion", **options)


def main() -> None:
    engine, asked = load("smollm2-135m"), questions()
    for entry in ENTRIES:
        engine.cache.trim(0)
        runs = [Run(process(engine, entry, q), entry.method, seed=i) for i, (q, _) in enumerate(asked)]
        for at in range(0, len(runs), 8):
            with contextlib.suppress(AnystepError):  # of a run whose trajectories all failed: no answer, and wrong
                drive(*runs[at : at + 8])
        pairs = zip(runs, asked, strict=True)
        right = [float(run.answer is not None and run.answer.value == a) for run, (_, a) in pairs]
        halves = f"{np.mean(right[:HALF]):.2f} of products, {np.mean(right[HALF:]):.2f} of word problems"
        tokens = np.mean([run.spent.tokens for run in runs])
        print(f"{entry.name:28s} {level(right)}   {halves}   {tokens:.0f} tokens", flush=True)


if __name__ == "__main__":
    main()
