"""What our own code costs beside the model: the share of a run on SmolLM2, and the time a round of a large tree.

    python benchmarks/overhead.py
    python benchmarks/overhead.py trees      # without the language model

Both are processor time of this process, so that they mean the same on a busy machine. "outside" is all that is not the
performing of a call: the procedure, the run, its books and keys. "around the model" is what performing takes beside the
network: laying out rows, sampling, the ledger. For the trees the process is a hidden Markov model of 60 steps, whose
own time is left out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from anystep import Budget, reward, search
from anystep.keys import uniforms
from anystep.language import load
from anystep.procedure import Method
from anystep.process import Process, Reward
from anystep.run import Run
from anystep.solve import process_for
from anystep.testing.oracles import HiddenMarkov

NODES, STEPS = 10_000, 60
QUESTION = "Tom has 3 apples and buys 4 more. How many apples does he have? Think in short steps."
LENGTHS = reward(lambda states: np.array([len(output) % 7 / 7 for output in states.outputs()]), "length")


def scattered(states: Any) -> Any:
    """Any figure in [0, 1) that differs from state to state."""
    return uniforms(states.t.astype(np.uint64), states.z[:, :8].astype(np.int64).sum(1).astype(np.uint64))


ANY: Reward = reward(scattered, "any")


def small(r: Reward) -> dict[str, Method]:
    """On the language model."""
    return {
        "self_consistency(16)": search.self_consistency(n=16),
        "particle_filter(16)": search.particle_filter(n=16, potential=r.log_odds()),
        "beam(4)": search.beam(width=4, reward=r),
        "mcts(16)": search.mcts(rounds=16, reward=r),
    }


def large(r: Reward) -> dict[str, Callable[[int], Method]]:
    """Trees and populations by how many nodes they are to have, on the oracle."""
    return {
        "mcts": lambda nodes: search.mcts(reward=r, rounds=nodes // 8),
        "mcts, puct and a value": lambda nodes: search.mcts(reward=r, rounds=nodes // 4, select="puct", value=r),
        "ab_mcts": lambda nodes: search.ab_mcts(r, rounds=nodes),
        "coat": lambda nodes: search.coat(r, relevance=r, rounds=nodes // 4),
        "astar_decode": lambda nodes: search.astar_decode(r, branch=4, expansions=nodes // 4, goals=nodes),
        "tree_of_thoughts, dfs": lambda nodes: search.tree_of_thoughts(
            r, order="dfs", branch=4, prune=0.0, expansions=nodes // 4
        ),
        "rebase": lambda nodes: search.rebase(n=nodes // 60, reward=r),
        "dvts": lambda nodes: search.dvts(trees=nodes // 240, reward=r),
        "beam": lambda nodes: search.beam(width=nodes // 240, reward=r),
        "particle_filter": lambda nodes: search.particle_filter(n=nodes // 60, potential=r.log_odds()),
    }


def timed(process: Process, method: Method, budget: Budget | None = None) -> tuple[Run, float, float, int]:
    """A run, its processor seconds, those of performing its calls, and how many rounds of calls it had."""
    run, began, performing, rounds = Run(process, method, budget), time.process_time(), 0.0, 0
    while run.calls:
        before = time.process_time()
        replies = [call.perform() for call in run.calls]
        performing += time.process_time() - before
        run.tell(replies)
        rounds += 1
    return run, time.process_time() - began, performing, rounds


def main() -> None:
    if "trees" not in sys.argv:
        small_model()
    print(f"{'on an oracle':28} {'nodes':>8} {'ms a round':>10} {'us a node':>9} {'ms a round, a tenth as large':>28}")
    for name, made in large(ANY).items():
        figures = []
        for nodes in (NODES // 10, NODES):
            run, total, performing, rounds = timed(HiddenMarkov(seed=0, steps=STEPS), made(nodes))
            seconds = 1e3 * (total - performing)
            figures.append((len(run.books.family), seconds / rounds))
        nodes, each = figures[1][0], 1e3 * seconds / figures[1][0]
        print(f"{name:28} {nodes:8} {figures[1][1]:10.3f} {each:9.1f} {figures[0][1]:28.3f}", flush=True)


def small_model() -> None:
    print(f"{'on SmolLM2-135M':28} {'seconds':>8} {'outside':>9} {'around the model':>17}")
    engine = load("smollm2-135m")
    for name, method in small(LENGTHS).items():
        with network(engine) as inside:
            _, total, performing, _ = timed(
                process_for(QUESTION, engine, temperature=1.0), method, Budget(tokens=1_500)
            )
        outside, around = (total - performing) / total, (performing - inside.seconds) / total
        print(f"{name:28} {total:8.2f} {outside:9.3%} {around:17.1%}", flush=True)
    print()


class network:
    """Processor seconds that go by in an engine's network and its logits."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.seconds = engine, 0.0

    def __enter__(self) -> network:
        self.run, self.logits = self.engine.run, self.engine.model.logits
        self.engine.run, self.engine.model.logits = self.watched(self.run), self.watched(self.logits)
        return self

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            began = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += time.process_time() - began

        return call

    def __exit__(self, *raised: object) -> None:
        self.engine.run, self.engine.model.logits = self.run, self.logits


if __name__ == "__main__":
    sys.exit(main())
