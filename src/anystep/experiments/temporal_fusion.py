"""Row 157: requests that arrive at random share each weight pass, against static batching and concurrent instances on
the same trace.

Traces are fixed: 32 requests, gaps exponential with a mean of two steps of a request that is alone, lengths log-uniform
from 4 to 128 (no token ends an answer, so that lengths are the trace's), at most 8 requests in a pass for every
scheduler. The first is served by the model. Passes depend on lengths alone, which is checked, and differ much from one
trace of 32 to the next, so the clauses on them are means over six traces, served by a stand-in. What is gained depends
on all this: the notes say what other gaps, spreads and bounds give. Passes count whatever they do, prompts included.

Stated time: about four minutes of CPU on SmolLM2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from anystep.calibrate.interval import bootstrap_mean
from anystep.experiments import _schedules
from anystep.experiments._figures import held, paired, table
from anystep.experiments._schedules import (
    Arrival,
    Clock,
    Served,
    fused,
    instances,
    leftward,
    stand_in,
    static,
    unordered,
)
from anystep.experiments.check import Check, Result
from anystep.language.engine.engine import Engine
from anystep.language.engine.plan import CHUNK
from anystep.language.engine.slots import Moves, window

ROW = 157
REQUESTS, TRACES, GAP, SHORTEST, LONGEST, ROWS, PIECE = 32, 6, 2.0, 4, 128, 8, 64
LONG = 500  # positions of the prompt that shows why prompts are read in pieces
EACH = 0.05  # of a pass of one position, for every further one: about what SmolLM2 takes on a CPU
NEAR = 1e-4  # logits this close are a tie
SYSTEM = "Here is a short and helpful answer to a question of a curious child about the world.\n\n"
THINGS = (
    "rain",
    "the moon",
    "bread",
    "a bridge",
    "salt",
    "the sea",
    "a clock",
    "wool",
    "glass",
    "an owl",
    "snow",
    "a kite",
)


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Engine = "smollm2-135m",
    requests: int = REQUESTS,
    traces: int = TRACES,
) -> Result:
    """Check every clause of the row. model: a name or an engine; requests: in a trace; traces: how many."""
    from anystep.language import load

    began = time.perf_counter()
    torch.set_num_threads(1)
    engine = load(model, weights="fp32") if isinstance(model, str) else model
    endless = copy(engine.tokenizer)
    endless.ends = frozenset()  # type: ignore[misc]
    made = partial(Engine, engine.model, endless, name=engine.name)
    trace = arrivals(seed, requests)
    unit = alone_step(made(), trace[0].prompt)
    real = {}
    for name, serve in {"instances": instances, "static": static, "fusion": fused}.items():
        real[name] = serve(made, trace, Clock(unit=unit), ROWS)
        progress(f"{name}: {real[name].passes} passes, {real[name].cpu:.1f} CPU seconds")
    counted = fused(made, trace, Clock(), ROWS)
    ties, wrong = apart(made(), trace, [real["fusion"], counted, real["static"]], real["instances"])
    progress("stand-in")
    like = [lookalike(one, made()) for one in (trace, *(arrivals(seed + i, requests) for i in range(1, traces)))]
    modelled = {
        clock: {name: [serve(stand_in(), t, Clock(each=each), ROWS) for t in like] for name, serve in COMPARED.items()}
        for clock, each in {"passes": 0.0, "positions": EACH}.items()
    }
    parts = {name: serve(stand_in(), like[0], Clock(), ROWS) for name, serve in PARTS.items()}
    same = modelled["passes"]["fusion"][0]
    checks = [
        Check(f"tokens that differ from the request's solo run ({ties} behind a tie excepted)", wrong, "==", 0),
        Check("passes on the model apart from those on its stand-in", abs(counted.passes - same.passes), "==", 0),
        *(check for clock, served in modelled.items() for check in fewer(clock, served)),
        *(check for clock, served in modelled.items() for check in sooner(clock, served)),
        *sooner("CPU time", {name: [one] for name, one in real.items()}),
        *evicted(same, parts, like[0], [real["fusion"], counted]),
    ]
    told = notes(real, modelled, parts, seed, requests)
    return Result("temporal_fusion", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def arrivals(
    seed: int, requests: int, gap: float = GAP, shortest: int = SHORTEST, longest: int = LONGEST
) -> list[Arrival]:
    """A seeded trace; every second prompt begins with the same sentence."""
    rng = np.random.default_rng([seed, ROW])
    at = np.cumsum(rng.exponential(gap, requests)) - gap
    lengths = np.exp(rng.uniform(np.log(shortest), np.log(longest + 1), requests)).astype(int)
    found = []
    for i, (when, length) in enumerate(zip(at.tolist(), lengths.tolist(), strict=True)):
        one, other = rng.choice(THINGS, 2, replace=False)
        question = f"Question {i + 1}: what do {one} and {other} have in common?\nAnswer:"
        found.append(Arrival(max(0.0, when), (SYSTEM if i % 2 else "") + question, int(min(length, longest))))
    return found


def alone_step(engine: Engine, prompt: str, steps: int = 16) -> float:
    """CPU seconds of one step of a request that is alone: the median."""
    tokens = tuple(engine.tokenizer.encode(prompt))
    took = []
    with engine.open(engine.plan([tokens])) as session:
        for _ in range(steps):
            began = time.thread_time()
            session.append([int(session.logits()[0].argmax())])
            took.append(time.thread_time() - began)
    return float(np.median(took))


def apart(engine: Engine, trace: Sequence[Arrival], served: Sequence[Served], solo: Served) -> tuple[int, int]:
    """Tokens that stand behind a near tie, and of the others those that are not the solo run's."""
    ties = wrong = 0
    for i, one in enumerate(trace):
        truth = solo.outputs[i]
        prompt = engine.tokenizer.encode(one.prompt)
        logits = engine.forward(torch.tensor([[*prompt, *truth]]))[0, len(prompt) - 1 : -1]
        top = logits.topk(2).values
        near = torch.nonzero(top[:, 0] - top[:, 1] < NEAR)
        sure = int(near[0]) if len(near) else len(truth)
        for other in served:
            ties += len(truth) - sure
            wrong += sum(a != b for a, b in zip(truth[:sure], other.outputs[i][:sure], strict=False))
            wrong += abs(len(truth) - len(other.outputs[i])) if sure == len(truth) else 0
    return ties, wrong


def lookalike(trace: Sequence[Arrival], engine: Engine) -> list[Arrival]:
    """The trace for the stand-in: as many tokens in each prompt and output, and as many at the start in common."""
    shared, letters = len(engine.tokenizer.encode(SYSTEM)), np.random.default_rng(ROW)
    found = []
    for one in trace:
        length = len(engine.tokenizer.encode(one.prompt))
        common = shared if one.prompt.startswith(SYSTEM) else 0
        own = "".join(letters.choice(list(_schedules.LETTERS[1:]), length - common))
        found.append(Arrival(one.at, "a" * common + own, min(one.longest, engine.config.context - length)))
    return found


COMPARED: dict[str, Callable[..., Served]] = {"instances": instances, "static": static, "fusion": fused}
PARTS: dict[str, Callable[..., Served]] = {
    "no reordering": partial(fused, arrange=unordered),
    "left compaction": partial(fused, arrange=leftward),
    "prompts in one piece": partial(fused, chunk=CHUNK),
}


def fewer(clock: str, served: dict[str, list[Served]]) -> Iterator[Check]:
    """The clause on passes, against both ways to serve without fusion."""
    for name in ("static", "instances"):
        ratios = [theirs.passes / ours.passes for theirs, ours in zip(served[name], served["fusion"], strict=True)]
        clause = f"clock of {clock}: weight passes of {name} over fusion's, mean of {len(ratios)} traces"
        yield held(clause, bootstrap_mean(ratios), ">=", 2.0)


def sooner(clock: str, served: dict[str, list[Served]]) -> Iterator[Check]:
    """The clause on latency, request by request."""
    ours = np.concatenate([s.latency for s in served["fusion"]])
    for name in ("static", "instances"):
        saved = paired(ours, np.concatenate([s.latency for s in served[name]]))
        yield held(f"clock of {clock}: latency of fusion minus that of {name}, in solo steps", saved, "<", 0.0)


def evicted(ours: Served, parts: dict[str, Served], like: Sequence[Arrival], real: Sequence[Served]) -> Iterator[Check]:
    """The clauses on rows after an eviction, and what each part of the method does."""
    every = [ours, *real]
    yield Check("passes over other rows than the active requests'", sum(s.uneven for s in every), "==", 0)
    yield Check("positions computed that no request paid for", sum(abs(s.unpaid) for s in every), "==", 0)
    more = 0

    def counted(active: np.ndarray, total: int) -> tuple[int, int, Moves]:
        nonlocal more
        found = window(active, total)
        more += len(found[2]) - fewest(active.tolist(), total)
        return found

    fused(stand_in(), like, Clock(), ROWS, arrange=counted)
    yield Check("rows moved beyond the fewest that brute force finds", more, "==", 0)
    moved = parts["left compaction"].moved / max(1, ours.moved)
    yield Check("ablation, left compaction: rows moved over fusion's", moved, ">", 1.0)
    idle = parts["no reordering"].positions / ours.positions
    yield Check("ablation, no reordering: positions over fusion's", idle, ">", 1.0)
    yield Check("positions of the largest pass", max(s.largest for s in every), "<=", PIECE + ROWS)
    long = [*like[:5], replace(like[5], prompt="b" * LONG), *like[6:]]
    pieces, whole = (fused(stand_in(), long, Clock(), ROWS, chunk=chunk).largest for chunk in (PIECE, CHUNK))
    yield Check(f"positions of the largest pass, where a prompt has {LONG}", pieces, "<=", PIECE + ROWS)
    yield Check("ablation, prompts in one piece: positions of the largest pass over fusion's", whole / pieces, ">", 1.0)


def fewest(active: Sequence[int], total: int) -> int:
    """Moves to the nearest window without a hole, by trying all of them."""
    n = len(active)
    return min(sum(not low <= slot < low + n for slot in active) for low in range(total - n + 1))


def notes(
    real: dict[str, Served],
    modelled: dict[str, dict[str, list[Served]]],
    parts: dict[str, Served],
    seed: int,
    requests: int,
) -> str:
    """What each schedule took, and what the gain is on other traces."""
    rows: list[list[object]] = []
    first = {clock: {name: every[0] for name, every in served.items()} for clock, served in modelled.items()}
    for clock, served in {"CPU time": real, "passes": first["passes"] | parts, "positions": first["positions"]}.items():
        for name, s in served.items():
            spent = f"{s.cpu:.1f}" if served is real else ""
            rows.append([clock, name, s.passes, s.positions, float(s.latency.mean()), spent, s.moved, s.largest])
    each = zip(modelled["passes"]["static"], modelled["passes"]["fusion"], strict=True)
    ratios = ", ".join(f"{theirs.passes / ours.passes:.2f}" for theirs, ours in each)
    head = ["clock", "scheduler", "passes", "positions", "mean latency", "CPU s", "rows moved", "largest pass"]
    return (
        f"Traces of {requests} requests, latencies in steps of a request that is alone; the first trace:\n\n"
        f"{table(head, rows)}\n\nThe clocks of passes and of positions (1, and {EACH} for each position beyond the "
        f"first) run on a stand-in with the same lengths. Static's passes over fusion's, trace by trace: {ratios}. "
        f"Lengths of 4 to 64, tried first, gave less. Others, by the clock of passes:\n\n{others(seed, requests)}"
    )


def others(seed: int, requests: int) -> str:
    """What fusion gains over static batching where requests come at other rates, vary less, or share more rows."""
    made, found = stand_in(), []
    for gap in (0.5, 2.0, 8.0, 32.0):
        for longest in (64, 256):
            for most in (8, 32):
                trace = [replace(a, prompt="a question") for a in arrivals(seed, requests, gap, SHORTEST, longest)]
                ours, theirs = fused(made, trace, Clock(), most), static(made, trace, Clock(), most)
                waited = float(theirs.latency.mean() / ours.latency.mean())
                found.append([gap, f"{SHORTEST} to {longest}", most, theirs.passes / ours.passes, waited])
    return table(["mean gap", "lengths", "rows at most", "static's passes over fusion's", "its latency over"], found)
