"""Row 6: Medusa heads on SmolLM2: fewer passes for the same tokens, trees against chains, heads alone against heads and
model trained together, and typical acceptance against an exact verifier.

Stated time: twenty minutes on one quiet core with the heads in the cache; training text, heads and the second model
take another half hour the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from anystep import search
from anystep.bench.interval import bootstrap_mean
from anystep.drive import drive
from anystep.experiments._figures import held, paired, table
from anystep.experiments._human import perplexity, prose
from anystep.experiments.check import Check, Result
from anystep.run import Run

ROW = 6
TIE = 1e-4  # a gap between the two best logits below which floating point may choose either


@dataclass(frozen=True)
class Sizes:
    """What is measured: `prompts` of them, `tokens` greedy ones each, by a tree of `nodes`; `second` of the prompts for
    the second model's own decoding; `sampled` tokens each at temperature 0.7; perplexity on `prose` tokens."""

    prompts: int = 50
    tokens: int = 64
    nodes: int = 12
    second: int = 12
    sampled: int = 24
    prose: int = 2_048


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
    model: Any = None,
    heads: Any = None,
    asked: Sequence[str] | None = None,
    longer: tuple[Any, Any] | None = None,
    joint: tuple[Any, Any] | None = None,
    sizes: Sizes | None = None,
) -> Result:
    """Check every clause of the row.

    model and heads: the engine and its Medusa-1 heads, by default SmolLM2's in float32. asked: prompts, by default held
    out ones of the training text's kind. joint: engine and heads of Medusa-2; longer: the first engine with heads
    trained as long without the model.
    """
    from anystep.language import load
    from anystep.language.train.joint import JointRecipe
    from anystep.language.train.medusa import jointly, trained
    from anystep.language.train.selftext import prompts

    began, sizes = time.perf_counter(), sizes or Sizes()
    model = model or load("smollm2-135m", weights="fp32")
    heads = heads if heads is not None else trained(model, say=progress)
    asked = asked or [text for text, chat in prompts("test", seed) if chat]
    asked = asked[: sizes.prompts]
    longer = longer or jointly(train=JointRecipe(upper=0), say=progress)
    joint = joint or jointly(say=progress)
    plain = written(model, asked, sizes.tokens)
    progress(f"plain greedy: {sum(plain.lengths):,} tokens")
    checks = list(first(model, heads, asked, plain, sizes, progress))
    checks += trees(model, heads, plain, sizes)
    own = written(joint[0], asked, sizes.tokens)
    checks += second(model, longer, joint, asked, plain, own, sizes, progress)
    checks += acceptance(model, heads, asked, sizes, progress)
    told = notes(model, heads, longer[1], joint, plain, own, sizes)
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


def first(
    engine: Any, heads: Any, asked: Sequence[str], plain: Written, sizes: Sizes, say: Callable[[str], None]
) -> Iterator[Check]:
    """The clauses on Medusa-1 and plain greedy decoding."""
    drafter = tree(heads, sizes.nodes)
    ours = written(engine, asked, sizes.tokens, drafter, nodes=sizes.nodes)
    wrong, ties = differing(engine, plain, ours)
    clause = f"Medusa-1: of {len(asked)} greedy outputs those that differ from plain ones, {ties} near ties excepted"
    yield Check(clause, wrong, "==", 0)
    passes = [n - 1 for n in plain.lengths]
    fewer = np.array(passes).sum() / sum(map(len, ours.accepted))
    each = bootstrap_mean([n / max(len(a), 1) for n, a in zip(passes, ours.accepted, strict=True)])
    yield Check(
        f"Medusa-1: plain passes over passes with a tree of {sizes.nodes} on {len(asked)} prompts (interval: of the "
        f"mean over prompts, {each.value:.3f})",
        fewer,
        ">=",
        1.5,
        (each.low, each.high),
    )
    replayed = sum(len(a) for a in accepted(heads, drafter.ranks, texts(engine, plain)))
    apart = abs(replayed - sum(map(len, ours.accepted)))
    yield Check("Medusa-1: passes apart from those counted on the plain text", apart, "<=", 4.0 * ties)
    say(f"Medusa-1: {fewer:.3f} times fewer passes")


def accepted(heads: Any, ranks: Any, found: Sequence[Any]) -> list[list[int]]:
    from anystep.language.train.heads import accepted as one

    return [one(heads, ranks, text) for text in found]


def mean(runs: Sequence[Sequence[int]]) -> np.ndarray:
    """Guesses accepted in a pass, by prompt."""
    return np.array([np.mean(a) if a else 0.0 for a in runs])


def trees(engine: Any, heads: Any, plain: Written, sizes: Sizes) -> Iterator[Check]:
    """The clauses on trees and single chains."""
    from anystep.language.accelerate.medusa import chain, grow

    found, deep = texts(engine, plain), len(heads)
    single = mean(accepted(heads, chain(deep), found))
    accuracy = heads.accuracy.double().numpy()
    for clause, ranks in (
        (f"equal depth ({deep}), {sizes.nodes} nodes", grow(accuracy, sizes.nodes)),
        (f"equal nodes ({deep})", grow(accuracy, deep)),
    ):
        more = paired(mean(accepted(heads, ranks, found)), single)
        yield held(f"guesses accepted a pass, tree minus single chain at {clause}", more, ">", 0.0)


def second(
    engine: Any,
    longer: tuple[Any, Any],
    joint: tuple[Any, Any],
    asked: Sequence[str],
    plain: Written,
    own: Written,
    sizes: Sizes,
    say: Callable[[str], None],
) -> Iterator[Check]:
    """The clauses on Medusa-2."""
    other, heads = joint
    some = asked[: sizes.second]
    ours = written(other, some, sizes.tokens, tree(heads, sizes.nodes), nodes=sizes.nodes)
    wrong, ties = differing(other, Written(own.tokens[: len(some)], own.starts[: len(some)]), ours)
    clause = (
        f"Medusa-2: of {len(some)} outputs those that differ from its own greedy decoding, {ties} near ties excepted"
    )
    yield Check(clause, wrong, "==", 0)
    theirs = mean(accepted(longer[1], tree(longer[1], sizes.nodes).ranks, texts(engine, plain)))
    more = paired(mean(accepted(heads, tree(heads, sizes.nodes).ranks, texts(other, own))), theirs)
    yield held("guesses accepted a pass, Medusa-2 minus Medusa-1 with heads trained as long", more, ">", 0.0)
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


def notes(
    engine: Any, heads: Any, longer: Any, joint: tuple[Any, Any], plain: Written, own: Written, sizes: Sizes
) -> str:
    """Guesses accepted by size of tree, and what the heads cost."""
    from anystep.language.accelerate.medusa import chain, grow

    found, other, rows = texts(engine, plain), texts(joint[0], own), []
    for name, each, read in (
        ("Medusa-1", heads, found),
        ("Medusa-1, as long", longer, found),
        ("Medusa-2", joint[1], other),
    ):
        accuracy = each.accuracy.double().numpy()
        one = mean(accepted(each, chain(len(each)), read)).mean()
        many = [mean(accepted(each, grow(accuracy, n), read)).mean() for n in (4, 8, 16, 32, 64)]
        rows.append([name, ", ".join(f"{a:.3f}" for a in accuracy[:, 0]), float(one), *map(float, many)])
    head = ["heads", "first guesses right", "chain of 4", *(f"tree of {n}" for n in (4, 8, 16, 32, 64))]
    share = heads.flops / engine.flops(1, 1, heads=1)
    told = f"{len(plain.tokens)} prompts of held-out pairs of form and topic, {sizes.tokens} greedy tokens each. "
    told += f"The heads take {heads.flops / 1e6:.0f} MFLOP a draft, {share:.2f} of a position of the model with its "
    return f"{told}logits. Guesses accepted a pass, mean over prompts:\n\n{table(head, rows)}"
