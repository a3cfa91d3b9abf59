"""From a started Python to a model's first token, phase by phase: `python benchmarks/first_token.py`.

Each repeat is a process of its own, whose model comes from the cache folder; imports are done before the clock starts
(the cold import of torch is said apart). Printed: median CPU seconds of each phase, wall seconds of the whole, what is
resident after loading and at its peak, weights held and those that a pass reads, and the bytes that 64 forks of a
1,000-token prompt hold beside those of one. Phases that a form of weights does not have are not in its lines.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROMPT = "The capital of France is"
FORKS, LONG, NEW = 64, 1000, 64
LOADING = "anystep.language.loading"
PHASES = {  # where the functions are looked up, what they are called there, and what to call them
    "read tensors": ("anystep.language.engine.weights", "read_tensors"),
    "tokenizer": ("anystep.language.engine.tokenizer", "Subwords.from_folder"),
    "lay out": ("anystep.language.engine.weights", "Llama"),
    "convert weights": ("anystep.language.engine.weights", "quantise"),
    "keep weights": ("anystep.language.engine.weights", "shelve"),
    "kept weights": ("anystep.language.engine.weights", "shelved"),
}


class Watch:
    """CPU seconds inside named pieces of work, those inside one another counted once, for the inner."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.inner: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.inner.append(0.0)
        before = time.process_time()
        yield
        whole = time.process_time() - before
        inside = self.inner.pop()
        self.spent[name] = self.spent.get(name, 0.0) + whole - inside
        if self.inner:
            self.inner[-1] += whole

    def around(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **named: Any) -> Any:
            with self.phase(name):
                return work(*args, **named)

        return watched

    def put(self, name: str, module: str, path: str) -> None:
        """Watches module.path from now on, if it is there."""
        owner: Any = importlib.import_module(module)
        *parents, last = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent, None)
        if hasattr(owner, last):
            setattr(owner, last, self.around(name, getattr(owner, last)))


def once(model: str, weights: str, cache: bool) -> dict[str, Any]:
    """In a fresh process: load, read one prompt, choose a token; then, with `cache`, hold many forks."""
    before = time.process_time()
    import torch

    from anystep.language import load
    from anystep.language.engine.tokenizer import begun
    from anystep.language.measure.memory import forget_peak, held, resident

    imports = time.process_time() - before
    watch = Watch()
    for name, (module, path) in PHASES.items():
        watch.put(name, module, path)
    forget_peak()
    empty = resident()
    start, wall = time.process_time(), time.perf_counter()
    with watch.phase("rest of load"):
        engine = load(model, weights=weights)
    with watch.phase("encode"):
        prompt = begun(engine.tokenizer, PROMPT)
    with watch.phase("prefill"):
        session = engine.open(engine.plan([prompt]))
    with watch.phase("logits"):
        token = int(session.logits().argmax())
    total, walls = time.process_time() - start, time.perf_counter() - wall
    full = resident()
    session.close()
    found = {
        "imports": imports,
        "phases": watch.spent,
        "total": total,
        "wall": walls,
        "text": engine.tokenizer.decode([token]),
        "resident": {k: full[k] - empty[k] for k in full} if full else {},
        "held": sum(held(engine.model).values()),
        "threads": torch.get_num_threads(),
    }
    if cache:
        found["packed"], found["forks"] = forked(engine)
    return found


def forked(engine: Any) -> tuple[int, dict[str, int]]:
    """Weight bytes that a pass reads; and bytes of keys, values and hidden states: of a long prompt alone, and of it
    with all that its forks hold, as they are read off the tensors while the session is open."""
    import torch

    from anystep.language.engine.native.watch import watched
    from anystep.language.measure.memory import held
    from anystep.testing.operators import counted_operators

    tokens = [i % engine.config.vocab for i in range(LONG)]
    engine.cache.trim(0)
    engine.open(engine.plan([tokens])).close()
    one = engine.cache.bytes
    with engine.open(engine.plan([tokens] * FORKS)) as session:
        for _ in range(NEW):
            session.append([1] * FORKS)
        with counted_operators(held(engine.model)) as seen, watched(seen.add):
            session.logits()
            engine.run(torch.tensor([[1]]), None)
        together = engine.cache.bytes + session.bytes
    return seen.read_bytes, {"one": one, "all": together, "own": FORKS * NEW * engine.bytes_per_position}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a model's first token from the cache, phase by phase.")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--weights", default="auto", help="forms of weights, with commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write every run here")
    parser.add_argument("--once", help="(used by itself)")
    options = parser.parse_args()
    if options.once:
        print(json.dumps(once(options.model, options.weights, options.once == "cache")))
        return
    runs: dict[str, list[dict[str, Any]]] = {}
    for form in options.weights.split(","):
        for repeat in range(-1, options.repeats):  # the first may prepare what later ones find in the cache folder
            what = "cache" if repeat == 0 else "time"
            command = [sys.executable, __file__, "--model", options.model, "--weights", form, "--once", what]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            if repeat >= 0:
                runs.setdefault(form, []).append(json.loads(done.stdout.splitlines()[-1]))
        tell(form, runs[form])
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1), encoding="utf-8")


def tell(form: str, runs: list[dict[str, Any]]) -> None:
    first = runs[0]
    totals = [run["total"] for run in runs]
    print(
        f"{form}: first token {first['text']!r} after {statistics.median(totals):.2f} CPU-s "
        f"[{min(totals):.2f}-{max(totals):.2f}], {statistics.median(run['wall'] for run in runs):.2f} s of wall time, "
        f"{first['threads']} thread(s); imports before it {statistics.median(run['imports'] for run in runs):.2f} CPU-s"
    )
    for name in first["phases"]:
        print(f"  {name:16} {statistics.median(run['phases'][name] for run in runs):.3f} CPU-s")
    held, packed, forks = first["held"], first["packed"], first["forks"]
    print(f"  weights: {held / 1e6:.0f} MB held, {packed / 1e6:.0f} MB read in a pass: {held / packed:.2f} times")
    if first["resident"]:
        now, own, peak = (statistics.median(run["resident"][k] for run in runs) / 1e6 for k in ("now", "own", "peak"))
        print(f"  process: grew by {now:.0f} MB, {own:.0f} of them its own; {peak:.0f} at the peak of loading")
    ratio = (forks["all"] - forks["own"]) / forks["one"]
    print(
        f"  cache: {forks['one'] / 1e6:.1f} MB for a prompt of {LONG}; {forks['all'] / 1e6:.1f} MB for {FORKS} forks "
        f"with {NEW} new tokens each, {forks['own'] / 1e6:.1f} of them theirs: {ratio:.2f} times",
        flush=True,
    )


if __name__ == "__main__":
    main()
