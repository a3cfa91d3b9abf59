"""Row 6: Medusa heads on SmolLM2: fewer passes for the same tokens, trees against chains, heads alone against heads and
model trained together, and typical acceptance against an exact verifier.

Stated time: twenty minutes on one quiet core with the heads in the cache; training text, heads and the second model
take another half hour the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.drive import drive
from anystep.experiments._figures import held, paired, table
from anystep.experiments._human import perplexity, prose
from anystep.experiments.check import Check, Result
from anystep.process import Floats
from anystep.run import Run

ROW = 6
TIE = 1e-4  # a gap between the two best logits below which floating point may choose either


@dataclass(frozen=True)
class Sizes:
    """What is measured: `prompts` of them, `tokens` greedy ones each, by a tree of `nodes`; `second` of the prompts for
    the second model's own decoding; `sampled` tokens each at temperature 0.7; perplexity on `prose` tokens."""

    prompts: int = 50
    tokens: int = 48
    nodes: int = 12
    second: int = 8
    sampled: int = 32
    prose: int = 8_192


@dataclass
class Written:
    """What was written for each prompt: its tokens, prompt included, where they start, and guesses accepted in each
    pass after the prompt's (empty where none were made)."""

    tokens: list[tuple[int, ...]]
    starts: list[int]
    accepted: list[list[int]] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        return [len(t) - s for t, s in zip(self.tokens, self.starts, strict=True)]


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    engines: tuple[Any, Any] | None = None,
    heads: Any = None,
    asked: Sequence[str] | None = None,
    longer: Any = None,
    joint: tuple[Any, Any, Any] | None = None,
    sizes: Sizes | None = None,
) -> Result:
    """Check every clause of the row.

    engines: the model in float32, in which outputs are compared, and in a faster form, in which what is accepted is
    counted; by default SmolLM2 in fp32 and int8. heads: its Medusa-1 heads. asked: prompts, by default held-out ones of
    the training text's kind. joint: both forms of Medusa-2, and its heads; longer: heads trained as long alone.
    """
    from anystep.language import load
    from anystep.language.train.joint import JointRecipe
    from anystep.language.train.medusa import jointly, trained
    from anystep.language.train.selftext import prompts

    began, sizes = time.perf_counter(), sizes or Sizes()
    exact, quick = engines or (load("smollm2-135m", weights="fp32"), load("smollm2-135m", weights="int8"))
    heads = heads if heads is not None else trained(exact, say=progress)
    asked = (asked or [text for text, chat in prompts("test", seed) if chat])[: sizes.prompts]
    longer = longer if longer is not None else jointly(train=JointRecipe(upper=0), say=progress)[1]
    joint = joint or (jointly(weights="fp32", say=progress)[0], *jointly(say=progress))
    checks = list(first(exact, heads, asked, sizes, progress))
    plain, own = written(quick, asked, sizes.tokens), written(joint[1], asked, sizes.tokens)
    found = {
        "Medusa-1": (heads, texts(quick, plain)),
        "Medusa-1, as long": (longer, texts(quick, plain)),
        "Medusa-2": (joint[2], texts(joint[1], own)),
    }
    checks += trees(*found["Medusa-1"], sizes)
    checks += second(joint[0], joint[2], asked, sizes)
    theirs, ours = (spread(*found[name], sizes.nodes) for name in ("Medusa-1, as long", "Medusa-2"))
    more = paired(ours, theirs)
    clause = "guesses accepted a pass, Medusa-2 on its own text minus Medusa-1 with heads trained as long"
    checks.append(held(clause, more, ">", 0.0))
    checks += drift(quick, joint[1], asked, sizes, progress)
    checks += acceptance(quick, heads, asked, sizes, progress)
    told = notes(quick, found, sizes)
    return Result("medusa", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def written(
    engine: Any,
    asked: Sequence[str],
    tokens: int,
    drafter: Any = None,
    verifier: Any = None,
    nodes: int = 0,
    **law: Any,
) -> Written:
    """What the model writes for all prompts side by side, plainly or with `nodes` drafted for every pass."""
    from anystep.experiments._noted import Noted
    from anystep.language import LanguageProcess
    from anystep.language.accelerate import Thrift, speculate

    settings: dict[str, Any] = {"unit": "completion", "max_tokens": tokens, "temperature": 0.0} | law
    processes: list[Any] = [LanguageProcess(engine, text, **settings) for text in asked]
    noting = Noted(drafter) if drafter is not None else None
    if noting is not None:
        processes = [speculate(each, noting, verifier, Thrift(fixed=nodes)) for each in processes]
    runs = [Run(each, search.sample(n=1), None, seed) for seed, each in enumerate(processes)]
    drive(*runs)
    states = [r.answer.population.states for r in runs if r.answer is not None and r.answer.population is not None]
    found = Written([s.tokens[0] for s in states], [s.starts[0] for s in states])
    if noting is not None:
        found.accepted = [noting.accepted[t[:s]][1:] for t, s in zip(found.tokens, found.starts, strict=True)]
    return found


def differing(engine: Any, plain: Written, other: Written) -> tuple[int, int]:
    """Prompts whose tokens differ, and how many more differ behind a near tie."""
    import torch

    wrong = ties = 0
    for ours, theirs in zip(other.tokens, plain.tokens, strict=True):
        if ours == theirs:
            continue
        at = next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
        )
        best = engine.forward(torch.tensor([theirs[:at]]))[0, -1].topk(2).values
        tie = bool(best[0] - best[1] < TIE)
        wrong, ties = wrong + (not tie), ties + tie
    return wrong, ties


def texts(engine: Any, found: Written) -> list[Any]:
    """With the hidden states, which the cache has."""
    from anystep.language.train.selftext import Written as Text

    with engine.lock, engine.open(engine.plan(found.tokens)) as session:
        states = [session.states(row) for row in range(len(found.tokens))]
    return [Text(t, s, h) for t, s, h in zip(found.tokens, found.starts, states, strict=True)]


def tree(heads: Any, nodes: int) -> Any:
    from anystep.language.accelerate.medusa import Medusa

    return Medusa.of(heads, nodes)


def first(engine: Any, heads: Any, asked: Sequence[str], sizes: Sizes, say: Callable[[str], None]) -> Iterator[Check]:
    """The clauses on Medusa-1 and plain greedy decoding."""
    plain = written(engine, asked, sizes.tokens)
    say(f"plain greedy: {sum(plain.lengths):,} tokens")
    drafter = tree(heads, sizes.nodes)
    ours = written(engine, asked, sizes.tokens, drafter, nodes=sizes.nodes)
    wrong, ties = differing(engine, plain, ours)
    clause = f"Medusa-1: of {len(asked)} greedy outputs those that differ from plain ones, {ties} near ties excepted"
    yield Check(clause, wrong, "==", 0)
    passes = [n - 1 for n in plain.lengths]
    fewer = float(np.sum(passes) / sum(map(len, ours.accepted)))
    each = bootstrap_mean([n / max(len(a), 1) for n, a in zip(passes, ours.accepted, strict=True)])
    clause = f"Medusa-1: plain passes over passes with a tree of {sizes.nodes} on {len(asked)} prompts"
    clause += f" (interval: of the mean over prompts, {each.value:.3f})"
    yield Check(clause, fewer, ">=", 1.5, (each.low, each.high))
    replayed = sum(len(a) for a in accepted(heads, drafter.ranks, texts(engine, plain)))
    apart = abs(replayed - sum(map(len, ours.accepted)))
    yield Check("Medusa-1: passes apart from those counted on the plain text", apart, "<=", 4.0 * ties)
    say(f"Medusa-1: {fewer:.3f} times fewer passes")


def accepted(heads: Any, ranks: Any, found: Sequence[Any]) -> list[list[int]]:
    from anystep.language.train.heads import accepted as one

    return [one(heads, ranks, text) for text in found]


def mean(runs: Sequence[Sequence[int]]) -> Floats:
    """Guesses accepted in a pass, by prompt."""
    return np.array([np.mean(a) if a else 0.0 for a in runs])


def spread(heads: Any, found: Sequence[Any], nodes: int) -> Floats:
    """Guesses accepted in a pass by the best tree of `nodes`, by prompt."""
    return mean(accepted(heads, tree(heads, nodes).ranks, found))


def single(heads: Any, found: Sequence[Any]) -> Floats:
    """Guesses accepted in a pass by one chain as deep as there are heads, by prompt."""
    from anystep.language.accelerate.medusa import chain

    return mean(accepted(heads, chain(len(heads)), found))


def trees(heads: Any, found: Sequence[Any], sizes: Sizes) -> Iterator[Check]:
    """The clauses on trees and single chains."""
    deep = len(heads)
    for clause, nodes in ((f"depth ({deep}), {sizes.nodes} nodes", sizes.nodes), (f"nodes ({deep})", deep)):
        more = paired(spread(heads, found, nodes), single(heads, found))
        yield held(f"guesses accepted a pass, tree minus single chain at equal {clause}", more, ">", 0.0)


def second(engine: Any, heads: Any, asked: Sequence[str], sizes: Sizes) -> Iterator[Check]:
    """The clause on what Medusa-2 writes."""
    some = asked[: sizes.second]
    plain = written(engine, some, sizes.tokens)
    ours = written(engine, some, sizes.tokens, tree(heads, sizes.nodes), nodes=sizes.nodes)
    wrong, ties = differing(engine, plain, ours)
    clause = (
        f"Medusa-2: of {len(some)} outputs those that differ from its own greedy decoding, {ties} near ties excepted"
    )
    yield Check(clause, wrong, "==", 0)


def drift(engine: Any, other: Any, asked: Sequence[str], sizes: Sizes, say: Callable[[str], None]) -> Iterator[Check]:
    """The clauses on Medusa-2's perplexity: on what the model itself writes at temperature 1, and on people's prose."""
    drawn = written(engine, asked, sizes.sampled, temperature=1.0)
    samples = list(zip(drawn.tokens, drawn.starts, strict=True))
    for what, read in (
        ("people's prose", prose(engine, sizes.prose)),
        ("the base's samples at temperature 1", samples),
    ):
        if not read:
            continue
        before, after = perplexity(engine, read), perplexity(other, read)
        say(f"perplexity of {what}: {before:.3f}, of Medusa-2 {after:.3f}")
        yield Check(f"Medusa-2: perplexity of {what} over the base's ({before:.2f})", after / before, "<=", 1.02)


def acceptance(
    engine: Any, heads: Any, asked: Sequence[str], sizes: Sizes, say: Callable[[str], None]
) -> Iterator[Check]:
    """The clause on typical acceptance."""
    from anystep.language.accelerate import Reject, Typical

    write = partial(written, engine, asked, sizes.sampled, tree(heads, sizes.nodes), nodes=sizes.nodes, temperature=0.7)
    typical, exact = write(verifier=Typical(epsilon=0.09, delta=0.3)), write(verifier=Reject())
    more = paired(mean(typical.accepted), mean(exact.accepted))
    each = f"typical {mean(typical.accepted).mean():.3f}, rejection {mean(exact.accepted).mean():.3f}"
    say(f"temperature 0.7, guesses accepted a pass: {each}")
    yield held("guesses accepted a pass at temperature 0.7, typical minus rejection sampling", more, ">", 0.0)


def notes(engine: Any, found: Mapping[str, tuple[Any, Sequence[Any]]], sizes: Sizes) -> str:
    """Guesses accepted by size of tree, and what the heads cost."""
    counts, rows = (4, 8, 16, 32, 64), []
    for name, (heads, read) in found.items():
        right = ", ".join(f"{a:.3f}" for a in heads.accuracy[:, 0].tolist())
        many = [float(spread(heads, read, n).mean()) for n in counts]
        rows.append([name, right, float(single(heads, read).mean()), *many])
    head = ["heads", "first guesses right", "chain of 4", *(f"tree of {n}" for n in counts)]
    heads, read = found["Medusa-1"]
    share = heads.flops / engine.flops(1, 1, heads=1)
    told = f"{len(read)} prompts of held-out pairs of form and topic, {sizes.tokens} greedy tokens each. Outputs are "
    told += "compared in fp32; what is accepted, and perplexities, are measured in int8. The heads take "
    told += f"{heads.flops / 1e6:.0f} MFLOP a draft, {share:.2f} of a position of the model with its logits. Guesses "
    return f"{told}accepted a pass, mean over prompts:\n\n{table(head, rows)}"
