"""Side by side with its_hub on one served model behind one counting proxy, with one step reward:

    python benchmarks/its_hub/compare.py --peer .its_hub/bin/python --items 100 --ns 4,8,16

Both sides ask the same server through the same proxy, one problem at a time, so that what the proxy counts between two
problems belongs to the first. Tokens are the proxy's: what was truly sent and made, prefixes sent again included.
Accuracy differences are paired over items, with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from service import Service, ended

from anystep import search, solve, tasks, verify
from anystep.calibrate.interval import bootstrap_mean
from anystep.errors import AnystepError
from anystep.keys import named
from anystep.language.endpoint import Endpoint
from anystep.procedure import Method
from anystep.tasks.task import Task
from anystep.testing.server import CountingProxy

MODEL = "chainlm-2m"
OPTIONS = {"temperature": 1.0, "max_tokens": 120, "max_steps": 40, "stop": "\n", "end": ".", "concurrency": 16}


@dataclass(frozen=True)
class Trial:
    """One problem, one method, one side: tokens and calls are the proxy's, reported is what the side itself said."""

    side: str
    method: str
    n: int
    item: str
    score: float
    prompt: int
    generated: int
    calls: int
    seconds: float
    reported: tuple[int, int] | None
    error: str = ""


@contextmanager
def served() -> Iterator[str]:
    """`anystep serve` on a free port; its base URL."""
    command = [sys.executable, "-m", "anystep", "serve", "--model", MODEL, "--port", "0", "--quiet"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.wait()


def ours(method: str, n: int) -> Method:
    reward = verify.chain_steps()
    made: dict[str, Callable[[], Method]] = {
        "particle_filter": lambda: search.particle_filter(n=n, potential=reward.log_odds()),
        "best_of_n": lambda: search.best_of_n(n=n, reward=reward),
        "self_consistency": lambda: search.self_consistency(n=n),
    }
    return made[method]()


class Peer:
    """The peer's process, one job at a time."""

    def __init__(self, python: str, endpoint: str, service: str) -> None:
        command = [python, str(Path(__file__).with_name("peer.py")), endpoint, service, MODEL, json.dumps(OPTIONS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **job: Any) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def ask_ours(server: Endpoint, task: Task, method: str, n: int, seed: int) -> dict[str, Any]:
    try:
        answer = solve(task, model=server, method=ours(method, n), seed=seed, temperature=OPTIONS["temperature"])
    except AnystepError as error:
        return {"text": None, "error": str(error), "reported": None}
    cost = answer.costs[server.name]
    return {"text": answer.text, "reported": [cost.prompt + cost.cached, cost.generated]}


def run(python: str, items: int, ns: list[int], seed: int) -> tuple[list[Trial], dict[str, int]]:
    problems = tasks.load("chains", items)
    trials: list[Trial] = []
    peaks: dict[str, int] = {}
    with served() as url, Service(problems) as service:
        for side in ("anystep", "its_hub"):
            with CountingProxy(url) as proxy:
                server = Endpoint(proxy.url, model=MODEL, concurrency=int(OPTIONS["concurrency"]))
                peer = Peer(python, proxy.url, service.url)
                for method in ("self_consistency", "best_of_n", "particle_filter"):
                    for n in ns:
                        for i, task in enumerate(problems):
                            before, began = proxy.counts, time.perf_counter()
                            if side == "anystep":
                                said = ask_ours(server, task, method, n, named(f"{seed}/{method}/{n}/{task.id}"))
                            else:
                                said = peer.ask(method=method, n=n, prompt=task.prompt, item=i)
                            seconds = time.perf_counter() - began
                            assert proxy.idle(30)
                            now = proxy.counts
                            trials.append(
                                Trial(
                                    side,
                                    method,
                                    n,
                                    task.id,
                                    task.score(ended(said["text"] or "")),
                                    now.prompt - before.prompt,
                                    now.generated - before.generated,
                                    now.calls - before.calls,
                                    seconds,
                                    None if said["reported"] is None else tuple(said["reported"]),
                                    said.get("error", ""),
                                )
                            )
                        print(f"{side} {method} n={n}: done", file=sys.stderr, flush=True)
                peer.close()
                peaks[side] = proxy.counts.peak
    return trials, peaks


def table(trials: list[Trial], peaks: dict[str, int]) -> str:
    """One line a method, size and side, and under each pair the paired difference."""
    lines = [
        "| method | n | side | accuracy | prompt | generated | calls | p50 s | p95 s | usage reported | failed |",
        "|---|--:|---|--:|--:|--:|--:|--:|--:|---|--:|",
    ]
    groups: dict[tuple[str, int], dict[str, list[Trial]]] = {}
    for t in trials:
        groups.setdefault((t.method, t.n), {}).setdefault(t.side, []).append(t)
    for (method, n), sides in groups.items():
        for side, mine in sides.items():
            p50, p95 = np.percentile([t.seconds for t in mine], [50, 95])
            said = [t.reported for t in mine]
            exact = sum(t.reported == (t.prompt, t.generated) for t in mine)
            told = "none" if all(r is None for r in said) else f"exact in {exact} of {len(mine)}"
            mean = [float(np.mean([getattr(t, name) for t in mine])) for name in ("prompt", "generated", "calls")]
            failed = sum(bool(t.error) for t in mine)
            lines.append(
                f"| {method} | {n} | {side} | {100 * np.mean([t.score for t in mine]):.1f} | {mean[0]:,.0f} | "
                f"{mean[1]:,.0f} | {mean[2]:.1f} | {p50:.2f} | {p95:.2f} | {told} | {failed} |"
            )
        one, other = sides["anystep"], sides["its_hub"]
        gain = bootstrap_mean([a.score - b.score for a, b in zip(one, other, strict=True)])
        ratio = sum(t.prompt + t.generated for t in one) / max(sum(t.prompt + t.generated for t in other), 1)
        lines.append(f"| | | difference | {gain} | tokens {ratio:.2f}x | | | | | | |")
    lines.append(f"\npeak in flight: {', '.join(f'{side} {peak}' for side, peak in peaks.items())}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the Python of an environment with its_hub[lm]==1.2.0")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--ns", default="4,8,16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write every trial here, as JSON lines")
    given = parser.parse_args()
    trials, peaks = run(given.peer, given.items, [int(n) for n in given.ns.split(",")], given.seed)
    if given.out:
        given.out.write_text("".join(json.dumps(asdict(t)) + "\n" for t in trials))
    print(table(trials, peaks))


if __name__ == "__main__":
    main()
