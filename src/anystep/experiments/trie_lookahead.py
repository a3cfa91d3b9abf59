"""Row 174: lookahead tries on answers that quote their context, on free answers, and on noise, against plain decoding.

Stated time: two minutes on one quiet core, with SmolLM2 on disk. Rows of a kind are decoded side by side,
which changes neither tokens nor passes: what is drafted for a row is decided as if it were alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from anystep import search
from anystep.calibrate.interval import bootstrap_mean
from anystep.drive import drive
from anystep.experiments._figures import held, table
from anystep.experiments._texts import free, noise, quoting
from anystep.experiments.check import Check, Result
from anystep.language.accelerate.drafts import Drafter
from anystep.language.accelerate.lookahead import TrieLookahead
from anystep.language.accelerate.prompt_lookup import PromptLookup
from anystep.language.accelerate.speculative import speculate
from anystep.language.accelerate.thrift import Thrift
from anystep.language.process import LanguageProcess
from anystep.run import Run

ROW = 174
SLOPE = 0.1  # of the table of costs
EQUAL = 12  # draft tokens a pass, where branches are compared at equal numbers of them
ROOM = 20_000  # nodes, where capacity is tried: ten prompts take most of it
COLD = TrieLookahead(remember=False)
TIE = 1e-4  # logits nearer than this are a tie


@dataclass(frozen=True)
class Ran:
    """What a prompt's completion was and took: target passes, those over the prompts counted as one, and draft tokens
    shown. Plain decoding takes a pass a token."""

    tokens: tuple[int, ...]
    prompt: int
    passes: int
    shown: int


@dataclass(frozen=True)
class Kind:
    """Prompts of one kind, and how they are continued."""

    name: str
    prompts: tuple[str, ...]
    temperature: float
    chat: bool | None = None


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    weights: str = "int8",
    prompts: int = 15,
    requests: int = 100,
    max_tokens: int = 64,
) -> Result:
    """Check every clause of the row.

    model: SmolLM2's name or any engine. weights: the form in which it is loaded by name, one where a row rounds alike
    whatever else is in its pass. prompts: of the quoting kind; there are a third as many of each other kind. requests:
    through one trie with little room.
    """
    from anystep.language import load

    began = time.perf_counter()
    engine = load(model, weights=weights) if isinstance(model, str) else model
    vocab = engine.config.vocab
    few = max(2, prompts // 3)
    quotes = Kind("quoting", tuple(quoting(prompts, seed)), 0.0)
    others = (
        Kind("free", tuple(free(few)), 0.0),
        Kind("after noise", tuple(noise(few, seed, engine.tokenizer, vocab)), 0.0, chat=False),
        Kind("noise, drawn at temperature 2", tuple(noise(few, seed + 1, engine.tokenizer, vocab)), 2.0, chat=False),
    )
    checks, rows = [], []
    for kind in (quotes, *others):
        plain = ran(engine, kind, None, max_tokens, seed)
        fast = ran(engine, kind, COLD, max_tokens, seed)
        rows.append(row(f"{kind.name}: cold trie", plain, fast))
        progress(f"{kind.name}: {passes(plain)} passes, {passes(fast)} with a cold trie")
        checks += list(lossless(engine, kind, plain, fast))
        checks.append(thrifty(kind, plain, fast))
        if kind is quotes:
            saved = bootstrap_mean([p.passes / f.passes for p, f in zip(plain, fast, strict=True)])
            checks.append(
                held("quoting, greedy: target passes of plain decoding over those with the trie", saved, ">=", 1.8)
            )
            found = list(ablations(engine, kind, plain, max_tokens, seed, progress))
            rows += [each for _, each in found]
            checks += [check for check, _ in found if check is not None]
    quick = load(model, weights="int8") if isinstance(model, str) else model  # no token is compared here
    checks += capacity(quick, requests, seed, progress)
    notes = table(["what", "passes, plain", "passes", "ratio", "drafted a pass", "accepted a pass"], rows)
    form = f", weights={weights}" if isinstance(model, str) else ""
    said = f"{engine.name}{form}, {torch.get_num_threads()} thread(s); slope {SLOPE}; passes count the prompt's."
    return Result("trie_lookahead", ROW, tuple(checks), time.perf_counter() - began, seed, f"{said}\n\n{notes}")


def ran(
    engine: Any, kind: Kind, drafter: Drafter | None, max_tokens: int, seed: int, thrift: Thrift | None = None
) -> list[Ran]:
    """All prompts side by side, each from an empty cache, decoded plainly or with `drafter`."""
    engine.cache.trim(0)
    runs, fed = [], []
    for prompt in kind.prompts:
        one = LanguageProcess(
            engine, prompt, unit="completion", temperature=kind.temperature, max_tokens=max_tokens, chat=kind.chat
        )
        fast = one if drafter is None else speculate(one, drafter, thrift=thrift or Thrift(SLOPE, crowd=1))
        fed.append(one.prompt)
        runs.append(Run(fast, search.sample(n=1), seed=seed))
    fills = engine.plan(fed).passes  # over all prompts side by side
    drive(*runs)
    found = []
    for each in runs:
        assert each.answer is not None and each.answer.population is not None
        states, cost = each.answer.population.states, each.spent
        (tokens,), start = states.outputs(), states.starts[0]
        looks = len(tokens) - 1 if drafter is None else cost.calls - fills
        found.append(Ran(tokens, start, looks + 1, cost.evaluations - cost.prompt - looks))
    return found


def passes(found: Sequence[Ran]) -> int:
    return sum(each.passes for each in found)


def row(what: str, plain: Sequence[Ran], fast: Sequence[Ran]) -> list[object]:
    rounds = passes(fast) - len(fast)
    shown, accepted = sum(f.shown for f in fast), sum(len(f.tokens) for f in fast) - len(fast) - rounds
    return [what, passes(plain), passes(fast), passes(plain) / passes(fast), shown / rounds, accepted / rounds]


def lossless(engine: Any, kind: Kind, plain: Sequence[Ran], fast: Sequence[Ran]) -> Iterator[Check]:
    """Equal tokens up to the first near tie, and never a pass more than there are tokens, which is what plain decoding
    takes for the same output."""
    apart = sum(p.tokens != f.tokens and not tied(engine, kind, text, p, f) for text, p, f in _three(kind, plain, fast))
    ties = sum(p.tokens != f.tokens for p, f in zip(plain, fast, strict=True)) - apart
    yield Check(
        f"{kind.name}: outputs of {len(plain)} that differ from plain decoding's ({ties} at ties)", apart, "==", 0
    )
    more = max(f.passes - len(f.tokens) for f in fast)
    yield Check(f"{kind.name}: most target passes of any completion beyond plain decoding's", more, "<=", 0)


def _three(kind: Kind, plain: Sequence[Ran], fast: Sequence[Ran]) -> Iterator[tuple[str, Ran, Ran]]:
    return zip(kind.prompts, plain, fast, strict=True)


def tied(engine: Any, kind: Kind, prompt: str, plain: Ran, fast: Ran) -> bool:
    """Whether two greedy outputs part where the best two logits are within a rounding of each other."""
    if kind.temperature > 0:
        return False
    first = next((i for i, (a, b) in enumerate(zip(plain.tokens, fast.tokens, strict=False)) if a != b), None)
    if first is None:
        return False
    start = LanguageProcess(engine, prompt, chat=kind.chat).prompt
    top = engine.forward(torch.tensor([(*start, *plain.tokens[:first])]))[0, -1].topk(2).values
    return bool(top[0] - top[1] < TIE)


def thrifty(kind: Kind, plain: Sequence[Ran], fast: Sequence[Ran]) -> Check:
    """The table's price of all passes but the prompt's, against plain decoding's: the worst completion."""
    ratios = [
        ((1 - SLOPE) * (f.passes - 1) + SLOPE * (f.passes - 1 + f.shown)) / (len(f.tokens) - 1)
        for p, f in zip(plain, fast, strict=True)
        if len(f.tokens) > 1
    ]
    return Check(f"{kind.name}: worst cost by the table of costs, over plain decoding's", max(ratios), "<=", 1.1)


def ablations(
    engine: Any, kind: Kind, plain: list[Ran], max_tokens: int, seed: int, progress: Callable[[str], None]
) -> Iterator[tuple[Check | None, list[object]]]:
    """One branch at as many draft tokens, one source, no remembering, plain prompt lookup."""
    equal = Thrift(SLOPE, crowd=1, fixed=EQUAL)

    def tried(drafter: Drafter, thrift: Thrift | None = None) -> list[Ran]:
        return ran(engine, kind, drafter, max_tokens, seed, thrift)

    several, one = tried(COLD, equal), tried(replace(COLD, mode="one"), equal)
    yield None, row(f"{EQUAL} draft tokens always, a tree", plain, several)
    more = bootstrap_mean([o.passes / s.passes for s, o in zip(several, one, strict=True)])
    clause = f"quoting: passes with the single best branch over those with several, {EQUAL} draft tokens each"
    yield held(clause, more, ">", 1.0), row(f"{EQUAL} draft tokens always, one branch", plain, one)
    for what, drafter in (
        ("warm trie, the others' outputs too", TrieLookahead()),
        ("prompt alone", replace(COLD, sources=("prompt",))),
        ("output alone", replace(COLD, sources=("output",))),
        ("prompt lookup", PromptLookup(longest=2)),
    ):
        found = tried(drafter)
        progress(f"{what}: {passes(found)} passes")
        yield None, row(what, plain, found)


def capacity(engine: Any, requests: int, seed: int, progress: Callable[[str], None]) -> list[Check]:
    """Many requests, ten at a time, through one trie that has no room for what they say."""
    prompts, drafter, done = quoting(requests, seed + 1), TrieLookahead(capacity=ROOM), 0
    for at in range(0, requests, 10):
        done += len(ran(engine, Kind("quoting", tuple(prompts[at : at + 10]), 0.0), drafter, 16, seed))
    largest, halvings = drafter.memory.largest, drafter.memory.halvings
    progress(f"{done} requests: at most {largest} nodes, {halvings} halvings")
    return [
        Check(f"most nodes in all tries at any time, over {done} requests with room for {ROOM:,}", largest, "<=", ROOM),
        Check("times that half was forgotten to make room", halvings, ">", 0),
    ]
