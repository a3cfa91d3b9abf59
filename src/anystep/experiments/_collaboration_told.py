"""What is reported of collaborative verification beside its checks: every arm, and what its verifiers let pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random

import numpy as np

from anystep.calibrate import auroc, auroc_within, ece, states_of, verdicts
from anystep.calibrate.interval import level
from anystep.experiments._collaboration import (
    Pool,
    by_tokens,
    chosen,
    gated,
    grown,
    over,
    tokens,
    unaided,
    voted,
    weights,
)
from anystep.experiments._figures import table
from anystep.process import Floats
from anystep.tasks.quantities import CHAIN, Quantities, chain_of, plan, planted, solution
from anystep.verify.collaborative_cot_pot import CollaborativeCotPot


def notes(
    pools: Mapping[str, list[Pool]],
    made: CollaborativeCotPot,
    some: Sequence[Quantities],
    dev: Sequence[Quantities],
    head: str,
    n: int,
) -> str:
    """All of it. some: problems to plant errors in; dev: those whose right chains set the ranker's threshold."""
    every = [pool for own in pools.values() for pool in own]
    return "\n\n".join(
        [
            f"{len(every)} problems, {len(every) // len(pools)} a reasoner, none seen in any training; {n} samples at "
            "temperature 1. Columns: the reasoner, which the verifiers have not seen.",
            accuracies(pools, head, n),
            costs(every, head, n),
            samples(every),
            let_pass(made, some, dev),
        ]
    )


def accuracies(pools: Mapping[str, list[Pool]], head: str, n: int) -> str:
    """Every arm's share of right answers; a verifier that was not trained for a reasoner has none there."""
    by = {who: arms(own, head, n) for who, own in pools.items()}
    rows: list[list[object]] = []
    for name in dict.fromkeys(name for found in by.values() for name in found):
        own = [found[name] for found in by.values() if name in found]
        each = [float(found[name].mean()) if name in found else "" for found in by.values()]
        rows.append([name, *each, str(level(list(np.concatenate(own))))])
    return table(["arm", *pools, "all"], rows)


def arms(pools: Sequence[Pool], head: str, n: int) -> dict[str, Floats]:
    """All arms, with n samples unless their name says otherwise."""
    ones = np.ones(len(pools[0].chains))
    found: dict[str, Floats] = {
        "greedy": np.array([p.greedy for p in pools]),
        "one sample": np.array([p.right[:n].mean() for p in pools]),
        "majority": over(pools, lambda p: voted(p, n, ones)),
        "majority, equal tokens": over(pools, by_tokens(n, None, False)),
        "program vote (the filter alone)": over(pools, lambda p: voted(p, n, p.agree)),
        "program vote, equal tokens": over(pools, by_tokens(n, None, True)),
        f"ranker alone, equal tokens: {head}": over(pools, by_tokens(n, head, False)),
        f"ranker's weighted vote, equal tokens: {head}": over(pools, by_tokens(n, head, False, vote=True)),
        "independent programs for the filter": over(pools, lambda p: unaided(p, n, within(p, n), head)),
        "vote of independent programs": over(pools, lambda p: program_vote(p, n)),
    }
    for name in pools[0].scores:
        found |= by_verifier(pools, name, n)
    found["oracle"] = np.array([p.right[:n].max() for p in pools])
    return found


def by_verifier(pools: Sequence[Pool], name: str, n: int) -> dict[str, Floats]:
    """A verifier with and without the filter, choosing one sample or weighing votes."""
    return {
        f"ranker alone: {name}": over(pools, lambda p: chosen(p, n, p.scores[name])),
        f"ranker's weighted vote: {name}": over(pools, lambda p: voted(p, n, weights(p, name))),
        f"filter and ranker: {name}": over(pools, lambda p: chosen(p, n, gated(p, name))),
        f"filter and weighted vote: {name}": over(pools, lambda p: voted(p, n, p.agree * weights(p, name))),
    }


def within(pool: Pool, n: int) -> int:
    """How many independent programs cost at least as many tokens as the translations of the first n chains."""
    due = tokens(pool, n, False, True) - tokens(pool, n, False, False)
    sizes = list(accumulate(map(len, pool.written), initial=len(pool.prompt)))[1:]
    return next((m for m, size in enumerate(sizes, 1) if size >= due), len(sizes))


def program_vote(pool: Pool, n: int) -> float:
    """The commonest value of the first n independent programs."""
    said = [a for a in pool.independent[:n] if a is not None]
    return float(bool(said) and max(said, key=said.count) == str(solution(pool.problem)))


def costs(pools: Sequence[Pool], head: str, n: int) -> str:
    """Mean tokens of the arms, and how many samples they buy."""
    due = [tokens(p, n, True, True) for p in pools]
    kinds = {"filter and ranker": (True, True), "ranker alone": (True, False), "program vote": (False, True)}
    rows: list[list[object]] = []
    for name, parts in {**kinds, "majority": (False, False)}.items():
        sizes = [n if all(parts) else grown(p, d, *parts) for p, d in zip(pools, due, strict=True)]
        paid = [tokens(p, m, *parts) for p, m in zip(pools, sizes, strict=True)]
        at = float(np.mean([tokens(p, n, *parts) for p in pools]))
        rows.append([name, at, float(np.mean(sizes)), float(np.mean(paid))])
    most = f"A pool has {len(pools[0].chains)} samples, so an arm may end below the tokens it is compared with."
    return f"{table(['arm', f'tokens at {n} samples', 'samples, equal tokens', 'tokens then'], rows)}\n\n{most}"


def samples(pools: Sequence[Pool]) -> str:
    """How the parts rank the reasoners' own samples, and what those are."""
    rows: list[list[object]] = []
    for name in ["agreement", *dict.fromkeys(name for pool in pools for name in pool.scores)]:
        at = [(p, p.done(len(p.chains))) for p in pools if name in p.scores or name == "agreement"]
        labels = np.concatenate([pool.right[own] for pool, own in at])
        kinds = np.array([pool.kinds[i] for pool, own in at for i in own])
        whose = [pool.prompt for pool, own in at for _ in own]
        values = np.concatenate([pool.scores.get(name, pool.agree)[own] for pool, own in at])
        against = []
        for kind in ("slip", "plan"):
            some = (kinds == "right") | (kinds == kind)
            against.append(str(auroc(values[some], kinds[some] == "right", np.array(whose)[some].tolist())))
        error = str(ece(values, labels, groups=whose))
        within = str(auroc_within(values, labels, whose))
        rows.append([name, str(auroc(values, labels, whose)), within, *against, error])
    every = [kind for pool in pools for kind in pool.kinds]
    shares = ", ".join(f"{kind} {every.count(kind) / len(every):.3f}" for kind in sorted(set(every)))
    passes = ", ".join(f"{kind} {pools_agree(pools, kind):.3f}" for kind in ("right", "slip", "plan", "both"))
    head = ["on own samples", "AUROC", "within a problem", "right against slips", "right against plans", "ECE"]
    return f"{table(head, rows)}\n\nThe samples are: {shares}. Programs agree with: {passes}."


def pools_agree(pools: Sequence[Pool], kind: str) -> float:
    """The share of samples of a kind whose program agrees."""
    return float(
        np.mean([a for pool in pools for a, k in zip(pool.agree, pool.kinds, strict=True) if k == kind] or 0.0)
    )


def let_pass(made: CollaborativeCotPot, some: Sequence[Quantities], dev: Sequence[Quantities]) -> str:
    """The verdicts of the reward and its parts on planted errors. The ranker passes what it scores above a tenth of the
    right chains of `dev`; a chain passes the whole where its program agrees and the ranker passes it."""
    prompts, right = [CHAIN + str(p) for p in dev], [[chain_of(plan(p))] for p in dev]
    bound = float(np.quantile([s for (s,) in made.ranker.judge.scores(prompts, right)], 0.1))
    rng = Random(0)
    cases = [(CHAIN + str(p), kind, chain) for p in some for kind, chain in planted(p, rng).items()]
    shown = states_of([(prompt, chain) for prompt, _, chain in cases], made.ranker.engine.tokenizer)
    labels, kinds = np.array([kind == "right" for _, kind, _ in cases], float), [kind for _, kind, _ in cases]
    whole = made.rest + (1 - made.rest) * bound
    parts = ((made.agreement, 0.5), (made.ranker, bound), (made, whole))
    told = [str(verdicts(part, shown, labels, round(threshold, 4), kinds)) for part, threshold in parts]
    return "On planted errors:\n\n" + "\n\n".join(told)
