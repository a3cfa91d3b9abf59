"""SIGKILL at random moments of `anystep compare`: nothing is lost, nothing is paid twice, the table is the same.

ANYSTEP_KILLS says how often each kind is killed (3 by default).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from anystep.bench import Report
from anystep.bench.queue import LANES
from anystep.testing.server import FakeServer
from anystep.testing.server.faults import Exchanging, Fault

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("ANYSTEP_KILLS", "3"))
AT_ONCE = 4  # requests in flight

# Chains that begin with the same 45 characters, one token each: who pays for them must not change.
SHARED = "Pp>a:pq,xv,pj,hq,pv,xq,jv,xh,qa,xa,yv,qv,pa,xj,"
ENDS = ["hv", "ha", "jq", "ja", "va", "qy", "px", "hy"]


def begin(*args: str) -> subprocess.Popen[str]:
    path = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random"}
    command = [sys.executable, "-m", "anystep", "compare", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=path)


def finished(*args: str) -> str:
    process = begin(*args)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def killed_at(delay: float, *args: str) -> str | None:
    """Kill the command so many seconds after its work has begun; what it printed, where it was faster."""
    process = begin(*args)
    assert process.stderr is not None and process.stdout is not None
    said: list[str] = []
    out, err = (threading.Thread(target=lambda f=f: said.append(f.read())) for f in (process.stdout, process.stderr))
    out.start()  # from the first: one that has nothing left to run prints its report and waits for its reader
    for line in process.stderr:
        if " run " in line:
            break
    err.start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for thread in (out, err):
        thread.join()
    process.stdout.close()
    process.stderr.close()
    if process.returncode == 0:
        return next(text for text in said if text.startswith("{") or "method" in text)
    assert process.returncode == -signal.SIGKILL, said
    return None


def timeless(text: str) -> tuple[str, str]:
    """A report's trials and points, costs included, and the tables that are printed, without what is timing."""
    from anystep.view import cost_rows, point_rows, text_table

    report, record = Report.from_json(text), json.loads(text)
    for trial in record["trials"]:
        trial["cost"]["seconds"] = 0
    for point in record["points"]:
        point["seconds"] = 0
    kept = {k: v for k, v in record.items() if k not in ("seconds", "date", "hardware")}
    return text_table(*point_rows(report)) + text_table(*cost_rows(report)), json.dumps(kept, indent=1)


def survive(first: list[str], store: Path, longest: float, seed: int) -> tuple[str, int]:
    """Kill the comparison KILLS times, then let it end; its report and how often it was killed in the middle."""
    r, kills, out = random.Random(seed), 0, None
    for i in range(KILLS):
        args = first if i == 0 or not store.exists() else ["--store", str(store), "--json"]
        out = killed_at(r.uniform(0.0, longest), *args)
        if out is not None:
            break
        kills += 1
    return out or finished("--store", str(store), "--json"), kills


def test_a_local_comparison_survives_being_killed(tmp_path: Path) -> None:
    data, store = tmp_path / "chains.jsonl", tmp_path / "killed.db"
    data.write_text("".join(json.dumps({"question": f"{SHARED}{end}?", "answer": "pa."}) + "\n" for end in ENDS))
    asked = ["--data", str(data), "--model", "chainlm-2m", "--max-tokens", "24", "--ns", "1,4,8", "--rows", "48"]
    asked += ["--seed", "0", "--seed", "1", "--json"]
    asked += [
        "--methods",
        "best_of_n(reward=chain_steps); particle_filter(potential=chain_steps); beam(reward=chain_steps)",
    ]
    whole = finished(*asked)
    costs = [trial["cost"] for trial in json.loads(whole)["trials"]]
    assert any(cost["cached"] > 32 for cost in costs) and any(cost["prompt"] > 45 for cost in costs)
    seconds = json.loads(whole)["seconds"]
    killed, kills = survive([*asked, "--store", str(store)], store, 2.2 * seconds / (KILLS + 1), seed=1)
    print(f"local: {kills} kills in {seconds:.1f} s of work")
    assert kills >= KILLS // 2
    assert timeless(killed) == timeless(whole)


class Slow(Fault):
    """A token takes a moment, so that there is always something in flight."""

    async def at(self, exchange: Exchanging, made: int) -> None:
        await asyncio.sleep(0.004)


def test_a_comparison_on_an_endpoint_survives_being_killed_and_asks_nothing_twice(tmp_path: Path) -> None:
    data, store = tmp_path / "toy.jsonl", tmp_path / "killed.db"
    data.write_text("".join(json.dumps({"question": f"What comes after {i}?", "answer": "α"}) + "\n" for i in range(6)))

    def asked(server: FakeServer) -> list[str]:
        found = ["--data", str(data), "--model", f"{server.url}#toy", "--ns", "1,4,16", "--json"]
        found += ["--seed", "0", "--seed", "1"]
        return [*found, "--prices", "0.5,1.5", "--concurrency", str(AT_ONCE), "--method", "best_of_n(reward=equations)"]

    with FakeServer(faults=Slow()) as server:
        whole = finished(*asked(server))
        once = server.counts
        total = sum(trial["cost"]["calls"] for trial in json.loads(whole)["trials"])
    assert total == sum(n for route, n in once.requests.items() if route.endswith("completions"))
    seconds = json.loads(whole)["seconds"]
    with FakeServer(faults=Slow(), port=0) as server:
        killed, kills = survive([*asked(server), "--store", str(store)], store, 2.2 * seconds / (KILLS + 1), seed=2)
        assert server.idle(30)
        again = server.counts
    print(
        f"endpoint: {kills} kills in {seconds:.1f} s of work; {once.completed} requests, {again.completed} with kills"
    )
    assert kills >= KILLS // 2
    assert costless(killed) == costless(whole)
    asked_again = sum(again.requests.values()) - sum(once.requests.values())
    starts = (kills + 1) * 4  # each life looks once at what the server is: its models, its abilities
    lost = AT_ONCE + LANES  # on the wire, and for each run a reply that had come and was not on the disk yet
    assert asked_again <= kills * lost + starts
    assert again.completed <= once.completed + kills * lost + starts


def costless(text: str) -> Any:
    table, record = timeless(text)
    lines = [line for line in record.splitlines() if "127.0.0.1" not in line]  # each server has a port of its own
    return table, lines
