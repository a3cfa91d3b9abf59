"""Raises runs and kills them: each in a fork of its own, its journal on disk, SIGKILL at a chosen moment.

Run as a script with PYTHONHASHSEED set; it reads one JSON list of lives from standard input, each
`{"case": name, "path": journal, "die": moment or null}`, and prints one JSON line a life: what the run concluded where
it lived, and which rounds it performed. A moment is a number: before a call, after it, in the middle of writing a line,
before it is synced, after that.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from anystep import Process, Run, journal, search
from anystep.answer import AllFailed
from anystep.journal import lines
from anystep.procedure import Method
from anystep.testing.oracles import (
    Critic,
    EnumerableLM,
    FaultyLM,
    HiddenMarkov,
    JudgePotential,
    JudgeReward,
    LinearGaussian,
    Metropolis,
    MixtureDiffusion,
    Reviser,
)
from anystep.testing.runs import outcome

ORACLES: dict[str, Process] = {
    "tokens": EnumerableLM(length=4),
    "expanding": EnumerableLM(length=4, expands=True),
    "hidden markov": HiddenMarkov(steps=3),
    "linear gaussian": LinearGaussian(steps=3),
    "diffusion": MixtureDiffusion(steps=3),
    "faulty": FaultyLM(share=0.2, length=4),
    "truncated endless": search.truncate(Metropolis(), 3),
}


def progress(states: Any) -> np.ndarray:
    """A value in [0, 1] of any state here: how far it is."""
    inner = getattr(states, "states", states)
    if hasattr(inner, "starts"):
        return np.array([(sum(tokens) % 17) / 17 for tokens in inner.tokens])
    return np.asarray((inner.size if hasattr(inner, "size") else inner.t) / 10)


REWARD, POTENTIAL = JudgeReward(progress, "judge"), JudgePotential(progress, "hope")
TO_GO = JudgePotential(lambda states: progress(states) - 1, "to_go")


def methods(process: Process) -> dict[str, Method]:
    found = {
        "sample": search.sample(n=3),
        "best_of_n": search.best_of_n(n=3, reward=REWARD),
        "self_consistency": search.self_consistency(n=3),
        "first_finish": search.first_finish(n=4, k=2),
        "particle_filter": search.particle_filter(n=4, potential=POTENTIAL, ess=1.0),
        "beam": search.beam(width=2, reward=REWARD, branch=2),
        "mcts": search.mcts(reward=REWARD, rounds=3, branch=2),
        "together": search.together(search.sample(n=2), search.particle_filter(n=2, potential=POTENTIAL)),
    }
    if process.logp == "mass":
        found["astar"] = search.astar(heuristic=TO_GO, branch=2, expansions=5)
    if isinstance(process, EnumerableLM):
        found["refine"] = search.refine(n=2, critic=Critic(process), reviser=Reviser(process), reward=REWARD)
    return found


def oracle_cases() -> dict[str, tuple[Process, Method]]:
    return {f"{m} on {name}": (p, method) for name, p in ORACLES.items() for m, method in methods(p).items()}


def language_cases() -> dict[str, tuple[Process, Method]]:
    """A tiny random engine, a prompt under and one over the length worth sharing; and ChainLM under its judge."""
    from anystep import tasks
    from anystep.language import LanguageProcess
    from anystep.naming import named_method
    from anystep.solve import engine_for, process_for
    from models import tiny_engine

    found: dict[str, tuple[Process, Method]] = {}
    for prompt in ("Hello: 12+34=", "Hello: 12+34= and now a good deal more than thirty-two positions:"):
        for unit, stop, cap in (("step", "a", 30), ("token", "\n", 6)):
            process = LanguageProcess(tiny_engine(scale=0.15), prompt, unit=unit, stop=stop, max_tokens=cap)
            some = ("particle_filter", "astar", "mcts") if unit == "token" else ("first_finish", "beam", "together")
            for name in some:
                found[f"{name} on {unit}s after {len(prompt)}"] = process, methods(process)[name]
    task = tasks.load("chains", 2)[1]
    for text in ("particle_filter(n=4, potential=chain_steps)", "beam(width=2, reward=chain_steps, branch=3)"):
        found[text] = process_for(task, engine_for("chainlm-2m")), named_method(text, task).method
    return found


CASES: dict[str, Callable[[], dict[str, tuple[Process, Method]]]] = {
    "oracles": oracle_cases,
    "language": language_cases,
}


SUMS = ("logp", "logw", "weights", "scores")  # a model's floats may round differently after a resume


def concluded(run: Run) -> dict[str, Any]:
    """All that must not depend on an interruption: as text what is exact, as numbers what adds up model outputs."""
    family, answer = run.books.family, run.answer
    population = None if answer is None else answer.population
    exact = {k: repr(v) for k, v in sorted(outcome(run).items()) if k not in (*SUMS, "evidence")}
    sums = {k: [] if population is None else getattr(population, k).tolist() for k in SUMS}
    return {
        "exact": exact,
        "family": repr((family.parents, family.by, family.status, sorted(family.errors.items()))),
        "ledger": {by: repr(cost_of(cost)) for by, cost in sorted(run.ledger.by.items())},
        "sums": sums | {"evidence": [] if answer is None or answer.evidence is None else [answer.evidence]},
        "scored": sorted([by.name, i, s] for (by, i), s in family.scores.items()),
    }


def cost_of(cost: Any) -> dict[str, Any]:
    figures = ("prompt", "cached", "generated", "attended", "evaluations", "calls")
    return {name: int(getattr(cost, name)) for name in figures} | {"flops": round(cost.flops)}


class Moments:
    """Counts the moments at which a run might die, and dies at one."""

    def __init__(self, die: int | None) -> None:
        self.die, self.now = die, 0

    def __call__(self) -> None:
        if self.now == self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        self.now += 1


def live(process: Process, method: Method, path: Path, die: int | None, log: Callable[[str], None]) -> Run:
    """Resume the run at `path`, or begin it, and drive it until it ends or dies."""
    moment, write = Moments(die), lines._write

    def halves(file: int, data: bytes) -> None:
        write(file, data[: len(data) // 2])
        moment()
        write(file, data[len(data) // 2 :])
        moment()

    lines._write = halves
    try:
        kept = journal.open(path)
        run = kept.resume(Run(process, method, seed=5, journal=kept))
        while run.calls:
            moment()
            log(f"performed {run.rounds}")
            replies = [call.perform() for call in run.calls]
            moment()
            try:
                run.tell(replies)
            except AllFailed:
                break
            moment()
        log(f"moments {moment.now}")
        return run
    finally:
        lines._write = write


def raise_one(process: Process, method: Method, path: Path, die: int | None) -> dict[str, Any]:
    """One life in a fork: what it concluded (None where it died), and its log."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            run = live(process, method, path, die, lambda text: void(os.write(into, f"{text}\n".encode())))
            os.write(into, f"concluded {json.dumps(concluded(run))}\n".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(into)
    with open(out, encoding="utf-8") as pipe:
        log = pipe.read().splitlines()
    _, status = os.waitpid(child, 0)
    end = next((json.loads(line.removeprefix("concluded ")) for line in log if line.startswith("concluded ")), None)
    return {"killed": os.WIFSIGNALED(status), "code": os.waitstatus_to_exitcode(status), "end": end, "log": log}


def void(_: object) -> None:
    """For a call whose value nobody wants."""


def main() -> None:
    kind = sys.argv[1]
    cases = CASES[kind]()
    for life in json.load(sys.stdin):
        process, method = cases[life["case"]]
        print(json.dumps(raise_one(process, method, Path(life["path"]), life["die"])), flush=True)


if __name__ == "__main__":
    main()
