"""Row 121: collaborative verification by chain and program, on three small reasoners that err in different ways.

Each reasoner in turn is the one that no verifier has seen: verifiers learn from the two others, or from one of them on
as many problems. All that is chosen between is drawn once and shared; arms without the translator or without the ranker
get more samples, until they have read and written at least as many tokens.

Stated time: three minutes on one quiet core, and eight more the first time, when four reasoners and seven verifiers are
trained (then they are kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from anystep.experiments._collaboration import (
    Pool,
    by_tokens,
    checked,
    chosen,
    drawn,
    gated,
    over,
    ranked,
    tokens,
    voted,
    weights,
)
from anystep.experiments._collaboration_told import notes
from anystep.experiments._figures import held, paired
from anystep.experiments.check import Check, Result
from anystep.language import load
from anystep.language.train.reasoners import BASE, GENERATORS, TRANSLATOR, Reasoner, reasoner_card, reasoner_of
from anystep.language.train.verifiers import LOSSES, Loss, Training, verifier, verifier_card
from anystep.ledger import Ledger, Limit
from anystep.tasks.quantities import Quantities, problems
from anystep.verify.collaborative_cot_pot import CollaborativeCotPot, Runner, agreement, in_sandbox, ranker

ROW = 121
N = 16
MOST = 36  # samples in a pool: room for arms that spend on samples what others spend on checking
PROGRAMS = 24  # written from the problem alone, which is what the translations of 16 chains cost
LOSS: Loss = "preference"  # of the headlines, chosen on dev
HEAD, SINGLE = f"several, {LOSS}", f"single, {LOSS}"


@dataclass(frozen=True)
class Setting:
    """Recipes, by default those of the recorded run."""

    reasoners: Mapping[str, Reasoner]
    base: Reasoner
    translator: Reasoner
    training: Training


DEFAULT = Setting(GENERATORS, BASE, TRANSLATOR, Training(LOSS, tuple(GENERATORS)))


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    setting: Setting = DEFAULT,
    items: int = 220,
    part: str = "test",
    runner: Runner = in_sandbox,
    audited: int = 20,
    unseen: Sequence[str] = tuple(GENERATORS),
) -> Result:
    """Check every clause of the row.

    unseen: the reasoners that take this turn. items: problems a reasoner, each reasoner's its own. part: the split they
    are from. audited: on how many of each reasoner's the reward itself is called, and its values and costs compared
    with those of the pools.
    """
    began = time.perf_counter()
    pools = {name: pooled(name, setting, items, part, seed, runner, progress) for name in unseen}
    every = [pool for some in pools.values() for pool in some]
    checks = [*clauses(every), *audit(pools, setting, audited, runner, progress)]
    made = reward(setting, trainings(unseen[0], setting)[HEAD], runner, progress)
    apart = asked(part, items, seed, len(pools)), asked("dev", items, seed, len(pools) + 1)
    told = notes(pools, made, *apart, HEAD, N)
    return Result("collaborative_cot_pot", ROW, tuple(checks), time.perf_counter() - began, seed, told)


def reward(
    setting: Setting, training: Training, runner: Runner, progress: Callable[[str], None]
) -> CollaborativeCotPot:
    """The reward itself with these recipes."""
    card = verifier_card(training, dict(setting.reasoners), setting.base, progress)
    translator = load(reasoner_card(setting.translator, progress))
    return CollaborativeCotPot(agreement(translator, runner), ranker(verifier(card), card.stem))


def pooled(
    unseen: str,
    setting: Setting,
    items: int,
    part: str,
    seed: int,
    runner: Runner,
    progress: Callable[[str], None],
) -> list[Pool]:
    """Pools of one reasoner, checked, and ranked by verifiers that have never seen it."""
    place = list(setting.reasoners).index(unseen)
    model = reasoner_of(setting.reasoners[unseen], progress)
    pools = drawn(model, asked(part, items, seed, place), MOST, PROGRAMS, 10 * seed + place)
    checked(pools, reasoner_of(setting.translator, progress), runner)
    for name, training in trainings(unseen, setting).items():
        ranked(pools, name, verifier(verifier_card(training, dict(setting.reasoners), setting.base, progress)))
    progress(f"reasoner {unseen}: {np.mean([pool.right.mean() for pool in pools]):.3f} of its samples are right")
    return pools


def asked(part: str, items: int, seed: int, place: int) -> list[Quantities]:
    """Distinct problems of a split; each reasoner has its own."""
    found: dict[str, Quantities] = {}
    for problem in problems(part, Random(10_000 + 100 * seed + place)):
        found.setdefault(str(problem), problem)
        if len(found) == items:
            break
    return list(found.values())


def trainings(unseen: str, setting: Setting) -> dict[str, Training]:
    """The verifiers compared on a reasoner that none of them has seen: of the two others, or of one of them; for the
    first reasoner by the other loss too."""
    names = list(setting.reasoners)
    at = names.index(unseen)
    seen = tuple(names[(at + i) % len(names)] for i in range(1, len(names)))
    losses = LOSSES if at == 0 else (LOSS,)
    several = {f"several, {loss}": replace(setting.training, loss=loss, generators=seen) for loss in losses}
    return several | {f"single, {LOSS}": replace(setting.training, loss=LOSS, generators=seen[:1])}


def clauses(pools: Sequence[Pool]) -> Iterator[Check]:
    """A check for each clause of the row."""
    ours = over(pools, lambda p: chosen(p, N, gated(p, HEAD)))
    alone = over(pools, lambda p: chosen(p, N, p.scores[HEAD]))
    weighed = over(pools, lambda p: voted(p, N, weights(p, HEAD)))
    majority = over(pools, lambda p: voted(p, N, np.ones(len(p.chains))))
    yield held(f"trained verifier's choice of {N} minus majority@{N}, same samples", paired(alone, majority), ">", 0.0)
    yield held(f"trained verifier's weighted vote of {N} minus majority@{N}", paired(weighed, majority), ">", 0.0)
    clause = f"trained verifier's choice of {N} minus majority of at least as many tokens"
    yield held(clause, paired(alone, over(pools, by_tokens(N, None, False, paid_by=(True, False)))), ">", 0.0)
    clause = f"chain and program, N={N}, minus the trained verifier alone at no fewer tokens"
    yield held(clause, paired(ours, over(pools, by_tokens(N, HEAD, False))), ">=", 0.02)
    clause = f"chain and program, N={N}, minus the trained verifier's weighted vote at no fewer tokens"
    yield held(clause, paired(ours, over(pools, by_tokens(N, HEAD, False, vote=True))), ">=", 0.02)
    clause = f"chain and program, N={N}, minus the program verifier alone at no fewer tokens"
    yield held(clause, paired(ours, over(pools, by_tokens(N, None, True))), ">=", 0.02)
    single = over(pools, lambda p: chosen(p, N, p.scores[SINGLE]))
    clause = f"trained on several reasoners minus on one, as many problems, an unseen reasoner's {N} samples"
    yield held(clause, paired(alone, single), ">", 0.0)


def audit(
    pools: Mapping[str, list[Pool]], setting: Setting, items: int, runner: Runner, progress: Callable[[str], None]
) -> Iterator[Check]:
    """The reward itself on the pools' samples: what it says and what it is paid are what the arms were given."""
    apart, extra = 0.0, 0
    for unseen, some in pools.items():
        made = reward(setting, trainings(unseen, setting)[HEAD], runner, progress)
        for pool in some[:items]:
            made.forget()
            paying = Limit(Ledger(), made.name)
            values = made(states(pool, N, made), paying).values
            apart = max(apart, float(np.abs(values - gated(pool, HEAD)[pool.done(N)]).max(initial=0.0)))
            extra += abs(paying.used.tokens - tokens(pool, N, True, True) + tokens(pool, N, False, False))
    yield Check(
        f"largest difference of the reward's values and the pools', {items} problems a reasoner", apart, "<", 1e-3
    )
    yield Check("tokens on its ledgers that are not in the arms' prices, or the other way round", extra, "==", 0)


def states(pool: Pool, n: int, made: CollaborativeCotPot) -> object:
    """The finished ones of a pool's first n, as a reward reads them."""
    from anystep.calibrate import states_of

    return states_of([(pool.prompt, pool.chains[i]) for i in pool.done(n)], made.ranker.engine.tokenizer)
