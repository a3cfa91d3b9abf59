"""What speculation saves and takes, drafter by drafter: `python benchmarks/speculation.py [model] [weights]`.

Each prompt is decoded alone, plainly and with each drafter, one after the other; CPU time is this thread's, without
the prompt's own pass, and given as a ratio to plain decoding's of the same prompt. The line of costs (`slope`) is
measured first, to be held against the one that `Thrift` assumes. Tokens are compared; what differs is counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from anystep import search
from anystep.drive import drive
from anystep.experiments._figures import table
from anystep.experiments._texts import free, noise, quoting
from anystep.language import LanguageProcess, load
from anystep.language.accelerate import Drafter, EarlyLayers, PromptLookup, Thrift, TrieLookahead, speculate
from anystep.language.engine.trees import Tree
from anystep.run import Run

NEW = 48  # tokens a completion
EACH = 3  # prompts of a kind
WIDTHS = (1, 2, 4, 8, 16, 32)


def line(engine: Any) -> tuple[list[float], float]:
    """CPU milliseconds of a pass over WIDTHS positions of one row behind 128 others, medians of nine, and the slope of
    the straight line through them, in passes over one position."""
    took = []
    with engine.open(engine.plan([tuple(range(100, 228))])) as session:
        for width in WIDTHS:
            times = []
            for _ in range(9):
                began = time.thread_time()
                engine.model.logits(session.look({0: Tree.chain(range(5, 5 + width))})[0])
                times.append(1e3 * (time.thread_time() - began))
            took.append(float(np.median(times)))
    slope, base = np.polyfit(WIDTHS, took, 1)
    return took, float(slope / (slope + base))


def once(engine: Any, prompt: str, chat: bool | None, temperature: float, drafter: Drafter | None) -> Any:
    """Tokens, passes, positions and CPU seconds after the prompt's own pass."""
    engine.cache.trim(0)
    plain = LanguageProcess(engine, prompt, unit="completion", temperature=temperature, max_tokens=NEW, chat=chat)
    engine.open(engine.plan([plain.prompt])).close()
    process = plain if drafter is None else speculate(plain, drafter, thrift=Thrift())
    passes, positions, began = engine.counters.passes, engine.counters.positions, time.thread_time()
    run = Run(process, search.sample(n=1), seed=0)
    drive(run)
    took = time.thread_time() - began
    assert run.answer is not None and run.answer.population is not None
    tokens = run.answer.population.states.outputs()[0]
    return tokens, engine.counters.passes - passes, engine.counters.positions - positions, took


def measured(engine: Any, kinds: Sequence[tuple[str, Sequence[str], bool | None, float]]) -> str:
    rows: list[list[object]] = []
    for kind, prompts, chat, temperature in kinds:
        plain = [once(engine, prompt, chat, temperature, None) for prompt in prompts]
        early = EarlyLayers(engine.config.layers // 3)
        for drafter in (TrieLookahead(remember=False), PromptLookup(), early):
            fast = [once(engine, prompt, chat, temperature, drafter) for prompt in prompts]
            ratios = [f[3] / p[3] for p, f in zip(plain, fast, strict=True)]
            rows.append(
                [
                    kind,
                    drafter.name,
                    sum(p[0] != f[0] for p, f in zip(plain, fast, strict=True)),
                    sum(f[1] for f in fast) / sum(p[1] for p in plain),
                    sum(f[2] for f in fast) / sum(p[2] for p in plain),
                    float(np.median(ratios)),
                    f"{min(ratios):.2f}..{max(ratios):.2f}",
                ]
            )
            print(*rows[-1], file=sys.stderr, flush=True)
    return table(["text", "drafter", "differ", "passes", "positions", "CPU time", "spread"], rows)


def main() -> None:
    torch.set_num_threads(1)
    name, weights = (sys.argv[1:] + ["smollm2-135m", "auto"][len(sys.argv) - 1 :])[:2]
    engine = load(name, weights=weights)
    took, slope = line(engine)
    each = ", ".join(f"{width}: {ms:.1f}" for width, ms in zip(WIDTHS, took, strict=True))
    print(f"{name}, {weights}: CPU milliseconds a pass by positions {each}; slope {slope:.3f}")
    kinds = (
        ("quoting, greedy", quoting(EACH, 0), None, 0.0),
        ("free, greedy", free(EACH), None, 0.0),
        ("free, temperature 0.8", free(EACH), None, 0.8),
        ("noise, temperature 2", noise(EACH, 0, engine.tokenizer, engine.config.vocab), False, 2.0),
    )
    print("Ratios to plain decoding of the same prompts:\n")
    print(measured(engine, kinds))


if __name__ == "__main__":
    main()
