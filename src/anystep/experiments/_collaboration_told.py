"""What is reported of collaborative verification beside its checks: every arm, and what its verifiers let pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from random import Random

import numpy as np

from anystep.bench.interval import level
from anystep.calibrate import judged, states_of, verdicts
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
)
from anystep.experiments._figures import table
from anystep.process import Floats
from anystep.tasks.quantities import CHAIN, Quantities, planted, solution
from anystep.verify.collaborative_cot_pot import CollaborativeCotPot


def notes(
    pools: Mapping[str, list[Pool]], made: CollaborativeCotPot, some: Sequence[Quantities], head: str, n: int
) -> str:
    every = [pool for own in pools.values() for pool in own]
    return "\n\n".join(
        [
            f"{len(every)} problems, {len(every) // len(pools)} a reasoner, none seen in any training; {n} samples at "
            "temperature 1. Columns: the reasoner, which the verifiers have not seen.",
            accuracies(pools, head, n),
            costs(every, head, n),
            samples(every),
            let_pass(made, some),
        ]
    )


def accuracies(pools: Mapping[str, list[Pool]], head: str, n: int) -> str:
    """Every arm's share of right answers."""
    every = [pool for own in pools.values() for pool in own]
    by = {who: arms(own, head, n) for who, own in {**pools, "": every}.items()}
    rows: list[list[object]] = [
        [name, *(float(by[who][name].mean()) for who in pools), str(level(list(values)))]
        for name, values in by[""].items()
    ]
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
        f"ranker's weighted vote: {name}": over(pools, lambda p: voted(p, n, p.scores[name])),
        f"filter and ranker: {name}": over(pools, lambda p: chosen(p, n, gated(p, name))),
        f"filter and weighted vote: {name}": over(pools, lambda p: voted(p, n, p.agree * p.scores[name])),
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
    """How verifiers fare on the reasoners' own samples, and what those are."""
    at = [(pool, pool.done(len(pool.chains))) for pool in pools]
    labels = np.concatenate([pool.right[own] for pool, own in at])
    kinds = [pool.kinds[i] for pool, own in at for i in own]
    whose = [pool.prompt for pool, own in at for _ in own]
    columns = {"agreement": np.concatenate([pool.agree[own] for pool, own in at])}
    columns |= {name: np.concatenate([pool.scores[name][own] for pool, own in at]) for name in pools[0].scores}
    rows: list[list[object]] = []
    for name, values in columns.items():
        v = judged(name, values, labels, 0.5, kinds, whose)
        pass_of = {kind: v.by_kind[kind][1].value if kind in v.by_kind else float("nan") for kind in ("slip", "plan")}
        rows.append([name, v.auroc.value, v.within.value, v.ece.value, *pass_of.values(), v.false_negatives.value])
    shares = ", ".join(f"{kind} {kinds.count(kind) / len(kinds):.3f}" for kind in sorted(set(kinds)))
    head = ["on own samples", "AUROC", "within a problem", "ECE", "slips passed", "plans passed", "right refused"]
    return f"{table(head, rows)}\n\nThreshold 0.5. The samples are: {shares}."


def let_pass(made: CollaborativeCotPot, some: Sequence[Quantities]) -> str:
    """The verdicts of the reward and its parts on planted errors; a chain passes the whole where its program agrees and
    the ranker gives it one half."""
    rng = Random(0)
    cases = [(CHAIN + str(p), kind, chain) for p in some for kind, chain in planted(p, rng).items()]
    shown = states_of([(prompt, chain) for prompt, _, chain in cases], made.ranker.engine.tokenizer)
    labels = [kind == "right" for _, kind, _ in cases]
    bound = made.rest + (1 - made.rest) / 2
    told = []
    for part, threshold in ((made.agreement, 0.5), (made.ranker, 0.5), (made, bound)):
        told.append(str(verdicts(part, shown, np.array(labels, float), threshold, [k for _, k, _ in cases])))
    return "On planted errors:\n\n" + "\n\n".join(told)
