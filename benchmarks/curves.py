"""Every method on the same two tasks at growing true cost, beside greedy and a vote that may spend as much.

    python benchmarks/curves.py                  # what docs/curves.json has not yet
    python benchmarks/curves.py beam mcts        # these again

The tasks are ChainLM's countdown problems, where the learned step reward tells right from wrong, and its path problems,
where it hardly does: one shows what a method can gain, the other what it loses when its reward is poor. Accuracy is on
100 held-out problems a task, at one seed; every token of models and rewards counts. `tools/curves_page.py` makes the
pages of it. Ten minutes on one quiet core for all of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anystep import search, verify
from anystep.experiments._equal import MethodFor, Outcomes, outcomes
from anystep.experiments._figures import paired
from anystep.language import load
from anystep.procedure import Method
from anystep.solve import process_for
from anystep.tasks.chains import chains
from anystep.tasks.task import Task

DATA = Path(__file__).resolve().parent.parent / "docs" / "curves.json"
PROBLEMS, SEED = 100, 0
TASKS = {"countdown": "C", "paths": "P"}
VOTES = (1, 4, 8, 16, 32, 64)

Family = Callable[[int], MethodFor]
STEP, LEAST = verify.chain_steps(), verify.chain_steps(aggregate="min")

METHODS: dict[str, tuple[Sequence[int], Family]] = {
    "sample": ((1,), lambda n: search.sample(n=1)),
    "best_of_n": ((4, 16), lambda n: search.best_of_n(n=n, reward=STEP)),
    "first_finish": ((4, 16), lambda n: search.first_finish(n=n)),
    "adaptive_self_consistency": ((8, 32), lambda n: search.adaptive_self_consistency(n=n)),
    "perplexity_consistency": ((4, 16), lambda n: search.perplexity_consistency(n=n)),
    "best_of_majority": ((4, 16), lambda n: search.best_of_majority(n=n, reward=STEP, threshold=0.05)),
    "particle_filter": ((4, 16), lambda n: search.particle_filter(n=n, potential=STEP.log_odds())),
    "beam": ((2, 4), lambda n: search.beam(width=n, reward=STEP)),
    "complexity_vote": ((4, 16), lambda n: search.complexity_vote(n=n, k=n // 2, complexity=verify.steps(end="."))),
    "dvts": ((1, 4), lambda n: search.dvts(trees=n, reward=STEP)),
    "rebase": ((4, 16), lambda n: search.rebase(n=n, reward=STEP)),
    "astar_decode": ((16, 64), lambda n: search.astar_decode(reward=LEAST, branch=1, expansions=n, reopen=0.4)),
    "particle_gibbs": ((2, 4), lambda n: search.particle_gibbs(n=n, sweeps=4, potential=STEP.log_odds())),
    "particle_islands": ((1, 4), lambda n: search.particle_islands(islands=n, n=4, potential=STEP.log_odds())),
    "tree_of_thoughts": ((4, 16), lambda n: search.tree_of_thoughts(reward=LEAST, order="dfs", expansions=n)),
    "ab_mcts": ((8, 32), lambda n: search.ab_mcts(reward=STEP, rounds=n, batch=4, rollout=True)),
    "mcts": ((2, 8), lambda n: search.mcts(rounds=n, reward=STEP)),
}


def main(names: Sequence[str]) -> None:
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    engine = load("chainlm-2m")
    for title, family in TASKS.items():
        here = found.setdefault(title, {})
        tasks = chains(PROBLEMS, "test", SEED, families=family)
        if "greedy" not in here:
            cold = outcomes(
                engine, tasks, search.sample(n=1), SEED, process_of=lambda t: process_for(t, engine, temperature=0.0)
            )
            here["greedy"] = [point(1, cold)]
        if "self_consistency" not in here:
            here["self_consistency"] = [point(k, outcomes(engine, tasks, vote(k), SEED)) for k in VOTES]
        for name, (ns, method) in METHODS.items():
            if name in names or name not in here:
                here[name] = [beside(measured(engine, tasks, n, method), here["self_consistency"]) for n in ns]
                for p in here[name]:
                    print(
                        f"{title:10} {name:30} n={p['n']:<4} {p['tokens']:7.0f} tokens {p['accuracy']:.3f}", flush=True
                    )
                save(found)


def vote(k: int) -> Method:
    return search.self_consistency(n=k)


def measured(engine: Any, tasks: Sequence[Task], n: int, family: Family) -> dict[str, Any]:
    return point(n, outcomes(engine, tasks, family(n), SEED))


def point(n: int, found: Outcomes) -> dict[str, Any]:
    """One point of a curve; `right` has a figure a problem, in order, for paired differences."""
    level = found.accuracy
    bits = [round(float(r), 3) for r in found.right]
    figures = {"accuracy": level.value, "low": level.low, "high": level.high, "tokens": found.cost}
    return {"n": n, **{k: round(v, 4) for k, v in figures.items()}, "right": bits}


def beside(found: dict[str, Any], votes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The point with its paired difference from the cheapest vote that spends at least as much, or the largest."""
    equal = next((v for v in votes if v["tokens"] >= found["tokens"]), votes[-1])
    over = paired(np.array(found["right"]), np.array(equal["right"]))
    return found | {"vote": equal["n"], "over": [round(x, 4) for x in (over.value, over.low, over.high)]}


def save(found: dict[str, Any]) -> None:
    lines = [
        f"  {json.dumps(title)}: {{\n"
        + ",\n".join(f"    {json.dumps(k)}: {json.dumps(v)}" for k, v in here.items())
        + "\n  }"
        for title, here in found.items()
    ]
    DATA.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
