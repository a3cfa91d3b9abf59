"""Step labels from rollouts: a step is right if the policy, going on from there, can still end right.

Source: Wang et al., "Math-Shepherd: Verify and Reinforce LLMs Step-by-step without Human Annotations" (2024), whose
hard estimate is `rule="any"`. A prefix that several chains of a problem share is rolled out once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from anystep.language.engine.llama import Llama
from anystep.language.train.sampler import sample_many
from anystep.tasks.chains import CHAIN_END, STEP_END, Alphabet
from anystep.tasks.chains.family import split
from anystep.tasks.chains.outcome import outcome


@dataclass(frozen=True)
class Labelling:
    """Labels by problem, chain and step, and what they took: tokens read and written, and seconds of processor."""

    labels: list[list[tuple[bool | None, ...]]]
    read: int
    written: int
    cpu_seconds: float

    @property
    def tokens(self) -> int:
        return self.read + self.written


def rolled_out(
    model: Llama,
    alphabet: Alphabet,
    problems: Sequence[tuple[str, Sequence[str]]],
    r: int = 8,
    rule: Literal["any", "most"] = "any",
    seed: int = 0,
    rows: int = 512,
) -> Labelling:
    """Labels for every step of finished chains, (prompt, chains) a problem, from `r` rollouts of unfinished prefixes.

    About `rows` of them are drawn side by side. The last step's label is whether the chain ends right. Ends are
    checked, not steps, as where no checker is at hand.
    """
    began = time.process_time()
    prefixes = {p + head: p for p, chains in problems for chain in chains for head in heads(chain)}
    starts = sorted(prefixes)
    drawn = sample_many(model, alphabet, starts, r, seed=seed, rows=rows)
    hits = {
        start: sum(outcome(prefixes[start], start[len(prefixes[start]) :] + text) for text in some)
        for start, some in zip(starts, drawn, strict=True)
    }
    need = 1 if rule == "any" else r // 2 + 1
    labels: list[list[tuple[bool | None, ...]]] = [
        [(*(hits[p + head] >= need for head in heads(chain)), outcome(p, chain)) for chain in chains]
        for p, chains in problems
    ]
    written = sum(len(text) for some in drawn for text in some)
    return Labelling(labels, sum(map(len, starts)), written, time.process_time() - began)


def heads(chain: str) -> list[str]:
    """The unfinished prefixes of a finished chain, each up to the end of a line."""
    lines = [text for text, _ in split(chain)][:-1] if CHAIN_END in chain else []
    return ["".join(line + STEP_END for line in lines[: i + 1]) for i in range(len(lines))]
