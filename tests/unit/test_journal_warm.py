"""A resumed run of a language model costs what it would have cost: caches are filled again, at nobody's cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anystep import Budget, Run, journal, search, tasks, verify
from anystep.language import LanguageProcess
from anystep.ledger import Ledger, Limit
from anystep.procedure import Method
from anystep.process import potential
from anystep.solve import engine_for, process_for
from anystep.testing.counting import counted_torch
from anystep.testing.oracles import JudgePotential, JudgeReward
from anystep.testing.runs import finish, near_outcome
from models import tiny_engine

SHORT, LONG = "Hello: 12+34=", "Hello: 12+34= and then a good deal more than thirty-two positions:"
KINDS: dict[str, dict[str, Any]] = {
    "step": {"unit": "step", "stop": "a", "max_tokens": 30},
    "token": {"unit": "token", "max_tokens": 6},
    "completion": {"unit": "completion", "max_tokens": 12},
    "failing": {"unit": "step", "stop": "a", "end": ("b", "cd"), "top_p": 0.9, "at_cap": "failed", "max_tokens": 24},
}


def worth(states: Any) -> np.ndarray:
    return np.array([(sum(tokens) % 17) / 17 for tokens in states.tokens])


JUDGE, HOPE = JudgeReward(worth, "judge"), JudgePotential(worth, "hope")
FREE = potential(lambda states: np.zeros(len(states)), "free")
METHODS = [
    search.best_of_n(4, JUDGE),
    search.first_finish(n=4, k=2),
    search.particle_filter(4, HOPE, ess=1),
    search.beam(3, JUDGE, branch=3),
    search.mcts(JUDGE, rounds=4, branch=2),
    search.astar(FREE, branch=3, expansions=10),
    search.together(search.mcts(JUDGE, rounds=3, branch=2), search.particle_filter(3, HOPE)),
]


def processes(prompts: Sequence[str], kind: str) -> list[LanguageProcess]:
    """One a prompt, on an engine that has computed nothing."""
    engine = tiny_engine(scale=0.15)
    return [LanguageProcess(engine, prompt, **KINDS[kind]) for prompt in prompts]


def costs(run: Run) -> dict[str, Any]:
    """All figures but time, by whom they were paid for."""
    figures = ("prompt", "cached", "generated", "attended", "evaluations", "calls")
    return {by: {f: getattr(c, f) for f in figures} | {"flops": round(c.flops)} for by, c in run.ledger.by.items()}


def lines(path: Path) -> tuple[list[bytes], list[int]]:
    """A journal's lines, and where its rounds are among them."""
    raw = path.read_bytes().splitlines(keepends=True)
    return raw, [i for i, line in enumerate(raw) if b'"kind":"round"' in line]


def same_after_resuming(
    folder: Path, prompts: Sequence[str], kind: str, methods: Sequence[Method], budget: Budget | None, stops: int = 2
) -> None:
    """Runs side by side on one engine, left off at some round and taken up on another engine."""
    paths = [folder / f"{i}.journal" for i in range(len(prompts))]
    for path in paths:
        path.unlink(missing_ok=True)
    made = zip(processes(prompts, kind), methods, paths, strict=True)
    whole = [Run(p, m, budget, seed=i, journal=journal.open(path)) for i, (p, m, path) in enumerate(made)]
    finish(*whole)
    written = [lines(path) for path in paths]
    most = max(len(rounds) for _, rounds in written)
    for at in sorted(set(np.linspace(1, most - 1, stops).round().astype(int).tolist())):
        for path, (raw, rounds) in zip(paths, written, strict=True):
            path.write_bytes(b"".join(raw[: rounds[at] if at < len(rounds) else rounds[-1] + 1]))
        again = [
            journal.resume(path, p, m) for path, p, m in zip(paths, processes(prompts, kind), methods, strict=True)
        ]
        finish(*again)
        for one, other in zip(whole, again, strict=True):
            near_outcome(one, other, f"resuming after {at} of {most} rounds ({kind}, {budget})")
            assert costs(one) == costs(other), f"{one.method} ({kind}, {budget}), resumed after {at} of {most} rounds"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["short", "long"])
def test_costs_after_a_resume_are_those_of_an_uninterrupted_run(prompt: str, kind: str, tmp_path: Path) -> None:
    for method in METHODS:
        same_after_resuming(tmp_path, [prompt], kind, [method], None)


@pytest.mark.parametrize("budget", [None, Budget(tokens=90), Budget(calls=9)], ids=repr)
def test_runs_that_were_merged_and_cut_go_on_side_by_side(budget: Budget | None, tmp_path: Path) -> None:
    for kind in ("step", "token", "failing"):
        for pair in ((METHODS[2], METHODS[4]), (METHODS[0], METHODS[3])):
            same_after_resuming(tmp_path, [LONG, LONG[:5] + "!" + LONG[6:]], kind, pair, budget)


def test_without_warming_a_resumed_run_pays_more(tmp_path: Path) -> None:
    path = tmp_path / "run.journal"
    whole = Run(processes([LONG], "token")[0], METHODS[2], journal=journal.open(path))
    finish(whole)
    raw, rounds = lines(path)
    paid = []
    for warm in (True, False):
        path.write_bytes(b"".join(raw[: rounds[len(rounds) // 2]]))
        process = processes([LONG], "token")[0]
        with journal.open(path) as mine, counted_torch(process.engine.model) as work:
            run = mine.resume(Run(process, METHODS[2], journal=mine), warm=warm)
            assert (work.calls > 0) == warm and run.spent.calls <= whole.spent.calls
            finish(run)
        paid.append(run.spent.evaluations)
    assert paid[0] == whole.spent.evaluations < paid[1]


def test_the_step_reward_fills_its_cache_again(tmp_path: Path) -> None:
    task, path = tasks.load("chains", 3)[2], tmp_path / "run.journal"
    engine, judge = engine_for("chainlm-2m"), verify.chain_steps()

    def fresh(method: Method) -> LanguageProcess:
        engine.cache.trim(0)
        judge.forget()
        process = process_for(task, engine)
        assert isinstance(process, LanguageProcess) and method.rewards()
        return process

    for method in (search.beam(2, judge, branch=2), search.particle_filter(4, judge.log_odds())):
        path.unlink(missing_ok=True)
        whole = Run(fresh(method), method, journal=journal.open(path))
        finish(whole)
        raw, rounds = lines(path)
        for at in (len(rounds) // 2, len(rounds) - 1):
            path.write_bytes(b"".join(raw[: rounds[at]]))
            run = journal.resume(path, fresh(method), method)
            finish(run)
            near_outcome(whole, run, f"resuming after {at} rounds")
            assert costs(run) == costs(whole), f"{method}, resumed after {at} rounds"


def test_a_score_that_was_refused_warms_nothing() -> None:
    process = process_for(tasks.load("chains", 1)[0], engine_for("chainlm-2m"))
    judge = verify.chain_steps()
    run = Run(process, search.best_of_n(3, judge))
    while run.calls[0].verb != "score":
        run.tell([call.perform() for call in run.calls])
    judge.forget()
    (call,) = run.calls
    ledger = Ledger()
    ledger.cancel()
    refused = judge(call.states, Limit(ledger, "judge"))
    assert np.isnan(refused.values).all()
    call.warm(refused)
    assert judge.engine.cache.bytes == 0
    call.warm(judge(call.states, Limit(Ledger(), "judge")))
    assert judge.engine.cache.bytes > 0
    run.cancel()
    finish(run)
