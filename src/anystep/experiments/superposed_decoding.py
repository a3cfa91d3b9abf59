"""Row 12: three drafts from the passes of one, with SmolLM2, scored by a model of another family.

Prefixes are the first 15 tokens of paragraphs of the Python language reference; the n-grams are of the docstrings of
the standard library, numpy and scipy: other texts of the same kind. Stated time: ten minutes on one quiet core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anystep import keys as lineage
from anystep.calibrate.interval import bootstrap_mean, paired_difference
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.ledger import Ledger, Limit

ROW = 12
K = 3
PREFIX, TOKENS = 15, 10
TOP_P = 0.9  # of nucleus sampling, at temperature 1
TIE = 1e-4  # two best logits closer than this are a tie


@dataclass(frozen=True)
class Told:
    """Nats a token under the scorer: of each of the k drafts with and without n-grams, best first, and of one nucleus
    sample and the greedy continuation. repeats: drafts that equal another of their prefix."""

    drafts: list[float]
    without: list[float]
    nucleus: float
    greedy: float
    repeats: int


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    model: str | Any = "smollm2-135m",
    scorer: str | Any = "gemma-3-270m",
    prefixes: Sequence[tuple[int, ...]] | int = 100,
    ngrams: Any = None,
    timed: int = 16,
) -> Result:
    """Check every clause of the row.

    model, scorer: names or engines. prefixes: tokens, or how many paragraphs to take. ngrams: an `NGrams`, by default
    of documentation. timed: prefixes whose CPU time is compared, and whose superpositions are looked into.
    """
    from anystep.language import load
    from anystep.language.accelerate.ngrams import NGrams, documentation

    began = time.perf_counter()
    engine = load(model, weights="fp32") if isinstance(model, str) else model
    judge = load(scorer, weights="fp32") if isinstance(scorer, str) else scorer
    chosen = beginnings(engine.tokenizer, prefixes, seed) if isinstance(prefixes, int) else list(prefixes)
    prose = (text for names in ((), ("numpy",), ("scipy",)) for text in documentation(*names))
    grams = NGrams.of(prose, engine.tokenizer) if ngrams is None else ngrams
    progress(f"{len(chosen)} prefixes, {grams}")
    checks = [*counted(engine, chosen, grams), *like_greedy(engine, chosen[: 2 * timed])]
    progress("; ".join(str(check) for check in checks))
    ratios, batched = times(engine, chosen[:timed], grams, seed)
    checks.append(
        held(f"CPU time of {K} separate nucleus runs over superposed decoding's", bootstrap_mean(ratios), ">=", 2.0)
    )
    progress(f"{checks[-1]}; of one batch of {K}: {np.mean(batched):.2f}")
    told = scored(engine, judge, chosen, grams, seed, progress)
    checks += quality(told)
    notes = f"{table(*perplexities(told))}\n\n{steps(engine, chosen[:timed], grams)}\n\n"
    notes += (
        f"CPU time of {K} nucleus runs as one batch of one session over superposed decoding's: {np.mean(batched):.2f}. "
        f"{grams}; {heard(chosen, grams):.0%} of the prefixes end in 3 tokens that occur in it. Perplexity is by the "
        "scorer's tokens of what was drafted, over all prefixes."
    )
    return Result("superposed_decoding", ROW, tuple(checks), time.perf_counter() - began, seed, notes)


def beginnings(tokenizer: Any, n: int, seed: int) -> list[tuple[int, ...]]:
    """The first tokens of n paragraphs of the language reference, no two alike."""
    from anystep.language.accelerate.ngrams import reference

    every = [tokenizer.encode(text) for text in reference()]
    found = sorted({tuple(tokens[:PREFIX]) for tokens in every if len(tokens) >= PREFIX + TOKENS})
    order = np.argsort(lineage.uniforms(lineage.roots(seed, (), np.arange(len(found)))), kind="stable")
    return [found[i] for i in order[:n].tolist()]


def counted(engine: Any, prefixes: Sequence[tuple[int, ...]], grams: Any) -> Iterator[Check]:
    """Positions that the engine forwards a step."""
    from anystep.language.accelerate.superposed import superposed_decoding

    for k in (1, K, 8):
        engine.cache.trim(0)
        before = engine.counters.positions
        superposed_decoding(engine, prefixes[0], k, TOKENS, grams)
        fed = engine.counters.positions - before - len(prefixes[0])
        yield Check(f"k = {k}: positions forwarded a step beyond the prompt", fed / (TOKENS - 1), "==", 1)


def like_greedy(engine: Any, prefixes: Sequence[tuple[int, ...]]) -> Iterator[Check]:
    """One draft without n-grams against greedy decoding, up to the first near tie."""
    from anystep.language.accelerate.superposed import superposed_decoding

    apart, ties = 0, 0
    for prefix, (want, gaps) in zip(prefixes, decoded(engine, prefixes), strict=True):
        near = next((i for i, gap in enumerate(gaps) if gap < TIE), len(want))
        ties += near < len(want)
        (draft,) = superposed_decoding(engine, prefix, 1, TOKENS).drafts
        apart += list(draft.tokens[:near]) != want[:near]
    told = f"k = 1, no n-grams: prefixes of {len(prefixes)} not as greedy decoding, token by token ({ties} near ties)"
    yield Check(told, apart, "==", 0)


def decoded(
    engine: Any, prefixes: Sequence[tuple[int, ...]], seed: int | None = None
) -> list[tuple[list[int], list[float]]]:
    """Tokens of each prefix, up to an end, and the gap between the best two logits before each: greedy, or by nucleus
    sampling at a seed."""
    from anystep.language.engine.sampling import draw

    out: list[tuple[list[int], list[float]]] = [([], []) for _ in prefixes]
    keys, ends = lineage.roots(seed or 0, (1,), np.arange(len(prefixes))), engine.tokenizer.ends
    with engine.open(engine.plan(prefixes)) as session:
        for at in range(TOKENS):
            logits, u = session.logits(), lineage.uniforms(keys, at)
            tokens, _ = draw(logits, u, 0.0) if seed is None else draw(logits, u, 1.0, TOP_P)
            best = logits.topk(2).values
            for (row, gaps), token, gap in zip(out, tokens.tolist(), (best[:, 0] - best[:, 1]).tolist(), strict=True):
                if not (row and row[-1] in ends):
                    row.append(token)
                    gaps.append(gap)
            if at < TOKENS - 1:
                session.append(tokens.tolist())
    return out


def times(engine: Any, prefixes: Sequence[tuple[int, ...]], grams: Any, seed: int) -> tuple[list[float], list[float]]:
    """CPU time over superposed decoding's, by prefix: of k nucleus runs one after the other, and as one batch. All pay
    for their prompt once."""
    from anystep.language.accelerate.superposed import superposed_decoding

    def spent(work: Callable[..., Any], *given: Any) -> float:
        engine.cache.trim(0)
        began = time.thread_time()
        work(*given)
        return time.thread_time() - began

    def alone(prefix: tuple[int, ...]) -> None:
        for i in range(K):
            decoded(engine, [prefix], seed + i)

    apart, batched = [], []
    for prefix in prefixes:
        ours = spent(superposed_decoding, engine, prefix, K, TOKENS, grams)
        apart.append(spent(alone, prefix) / ours)
        batched.append(spent(decoded, engine, [prefix] * K, seed) / ours)
    return apart, batched


def scored(
    engine: Any, judge: Any, prefixes: Sequence[tuple[int, ...]], grams: Any, seed: int, progress: Callable[[str], None]
) -> list[Told]:
    """Every arm on every prefix, under the scorer."""
    from anystep.language.accelerate.superposed import superposed_decoding

    decode, found = engine.tokenizer.decode, []
    sampled, plain = decoded(engine, prefixes, seed), decoded(engine, prefixes)
    for i, prefix in enumerate(prefixes):
        arms = [superposed_decoding(engine, prefix, K, TOKENS, n).drafts for n in (grams, None)]
        texts = [*(draft.text for drafts in arms for draft in drafts), decode(sampled[i][0]), decode(plain[i][0])]
        nats = heard_by(judge, decode(prefix), texts)
        n = len(arms[0])
        repeats = n - len({draft.tokens for draft in arms[0]})
        found.append(Told(nats[:n], nats[n:-2], nats[-2], nats[-1], repeats))
        if i % 20 == 19:
            progress(f"{i + 1} prefixes scored")
    return found


@torch.inference_mode()
def heard_by(judge: Any, prefix: str, texts: Sequence[str]) -> list[float]:
    """Mean nats a token of each text behind the prefix, by the judge's own tokens; NaN for one that adds none."""
    from anystep.language.engine.cache import common
    from anystep.language.engine.tokenizer import begun

    base, out = begun(judge.tokenizer, prefix), list[float]()
    rows = [begun(judge.tokenizer, prefix + text) for text in texts]
    with judge.open(judge.plan(rows)) as session:
        for row, tokens in enumerate(rows):
            start = common(base, tokens)
            logits = judge.model.logits(session.states(row)[start - 1 : len(tokens) - 1]).log_softmax(-1)
            own = logits[torch.arange(len(tokens) - start), torch.tensor(tokens[start:], dtype=torch.long)]
            out.append(float(-own.mean()) if len(own) else math.nan)
    return out


def quality(told: Sequence[Told]) -> Iterator[Check]:
    """The clauses on the drafts; differences are of mean nats a token, the logarithm of a ratio of perplexities."""
    yield Check(f"drafts of {len(told)} prefixes that repeat another", sum(t.repeats for t in told), "==", 0)
    nucleus = [t.nucleus for t in told]
    best = paired_difference([float(np.nanmin(t.drafts)) for t in told], nucleus)
    yield held(f"log perplexity, best of {K} drafts minus one nucleus sample", best, "<=", 0.0)
    first = paired_difference([t.drafts[0] for t in told], nucleus)
    yield held("log perplexity, first draft minus one nucleus sample (within 10%)", first, "<=", math.log(1.1))
    mean = [float(np.nanmean(t.drafts)) for t in told]
    yield held(
        f"log perplexity, mean of {K} drafts minus one nucleus sample", paired_difference(mean, nucleus), "<=", 0
    )
    raised = paired_difference([float(np.nanmean(t.without)) for t in told], mean)
    yield held("ablation: log perplexity, mean of drafts without n-grams minus with", raised, ">", 0.0)


def perplexities(told: Sequence[Told]) -> tuple[list[str], list[list[object]]]:
    """Perplexity of each arm: mean over its drafts, the first, the best."""
    arms = {
        f"superposed, k = {K}": [t.drafts for t in told],
        "without n-grams": [t.without for t in told],
        "one nucleus sample": [[t.nucleus] for t in told],
        "greedy": [[t.greedy] for t in told],
    }
    rows: list[list[object]] = []
    for name, nats in arms.items():
        figures = (np.nanmean([np.nanmean(n) for n in nats]), np.nanmean([n[0] for n in nats]))
        rows.append([name, *(float(np.exp(f)) for f in (*figures, np.nanmean([np.nanmin(n) for n in nats])))])
    return ["arm", "mean perplexity", "first", "best"], rows


def heard(prefixes: Sequence[tuple[int, ...]], grams: Any) -> float:
    """How many prefixes end in tokens that the n-grams have met."""
    return float(np.mean([grams.share(prefix[-3:], [0]) is not None for prefix in prefixes]))


@torch.inference_mode()
def steps(engine: Any, prefixes: Sequence[tuple[int, ...]], grams: Any) -> str:
    """By step, how near the superposition's logits are to the mixture of its drafts' own (cosine), as used and with
    all drafts weighted alike; and the weight of the heaviest draft."""
    names = ("as weighted", "weighted alike", "heaviest")
    mixed: dict[str, list[list[float]]] = {name: [[] for _ in range(TOKENS - 1)] for name in names}
    for prefix in prefixes:
        for even in (False, True):
            for at, (cosine, top) in enumerate(superpositions(engine, prefix, grams, even)):
                mixed["weighted alike" if even else "as weighted"][at].append(cosine)
                if not even:
                    mixed["heaviest"][at].append(top)
    head = ["cosine by step", *map(str, range(1, TOKENS))]
    rows: list[list[object]] = [[name, *(float(np.mean(x)) for x in by)] for name, by in mixed.items()]
    alike = [float(np.mean(x)) for x in mixed["weighted alike"]]
    below = next((str(i + 1) for i, x in enumerate(alike) if x < 0.6), "none")
    return f"{table(head, rows)}\n\nFirst step with a cosine below 0.6, drafts weighted alike: {below}."


def superpositions(engine: Any, prefix: tuple[int, ...], grams: Any, even: bool) -> Iterator[tuple[float, float]]:
    """At each step the cosine of the superposed logits with the mixture of the drafts' own, and the greatest weight."""
    from anystep.language.accelerate.superposed import Beams, Mixing, Stream
    from anystep.language.prefill import opened

    beams = Beams(engine, prefix, K, grams, Mixing())
    _, session = opened(engine, [prefix], Limit(Ledger(), "look"))
    assert session is not None
    with session:
        beams.grow(engine.model.logits(session.hidden)[0])
        stream = Stream(engine, session, TOKENS)
        for at in range(TOKENS - 1):
            gamma = torch.full((len(beams.alive),), 1 / len(beams.alive)) if even else beams.gamma().float()
            logits = stream.feed(beams.superposed(gamma), len(prefix) + at)
            own = engine.forward(torch.tensor([(*prefix, *tokens) for _, tokens in beams.alive]), hidden=True)[:, -1]
            mixture = gamma @ engine.model.logits(own)
            yield float(torch.cosine_similarity(logits, mixture, dim=0)), float(gamma.max())
            beams.grow(logits)
