"""Row 28: how fast the errors of perplexity consistency and of a vote fall, and how many samples pruning saves, on
recorded pools of SmolLM2 and ChainLM.

Stated time: five minutes on one quiet core where the pools are recorded; recording takes an hour more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from anystep import search
from anystep.experiments import _path_errors as errors
from anystep.experiments._deciding import at_most, decided, ece_difference, perplexity
from anystep.experiments._deciding_pools import all_pools
from anystep.experiments._figures import held, table
from anystep.experiments.check import Check, Result
from anystep.population import Decision, Population, Verdict
from anystep.search import decide
from anystep.search.decide.perplexity import Paths
from anystep.search.decide.pruning import probable
from anystep.search.pools import Pool

ROW = 28
FEW, MANY = 16, 32
NS = (2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32)
TASKS = 2  # of three on which pruning must save samples


def run(
    seed: int = 0,
    progress: Callable[[str], None] = print,
    pools: Mapping[str, Sequence[Pool]] | None = None,
    runs: int = 20_000,
    times: int = 2,
) -> Result:
    """Check every clause of the row.

    pools: recorded ones by name, by default SmolLM2's on three reasoning-gym tasks and ChainLM's on chains. runs: of
    the law over paths. times: sub-pools of each problem and size.
    """
    began = time.perf_counter()
    checks = list(rates(seed, runs))
    told = [split(seed, runs)]
    every = all_pools(progress) if pools is None else pools
    saves, asked = 0, 0
    for name, some in every.items():
        checks += reaches(name, some, times, seed)
        target = decided(some, search.majority, MANY, times, seed).accuracy
        needs = {p: at_most(some, decide.perplexity_consistency(p), target, NS, times, seed) for p in (True, False)}
        told.append(
            f"{name}: {needs[True]} samples reach majority@{MANY}'s accuracy with pruning, {needs[False]} without"
        )
        told.append(ablations(name, some, times, seed))
        if not name.startswith("ChainLM"):
            saves, asked = saves + (needs[True] < needs[False]), asked + 1
        progress(f"{name} decided")
    clause = (
        f"tasks of {asked} where perplexity consistency needs more samples without pruning to reach majority@{MANY}"
    )
    checks.append(Check(clause, saves, ">=", TASKS))
    return Result("reasoning_pruning", ROW, tuple(checks), time.perf_counter() - began, seed, "\n\n".join(told))


def rates(seed: int, runs: int) -> Iterator[Check]:
    """Fitted slopes of the squared estimation errors on a law with few paths an answer, and their exact limits."""
    rng, law, a = np.random.default_rng(seed), errors.TOY, "a"
    p, rarest = law.share(a), float(np.log1p(-law.p[law.of(a)].min()))
    ns = np.array([48, 56, 64, 72, 80])
    drawn = [errors.estimated(law, a, int(n), runs * 4, rng) for n in ns]
    ours = np.array([((each["perplexity consistency"] - p) ** 2).mean() for each in drawn])
    fitted = errors.slope(ns.astype(float), ours) / rarest
    clause = (
        "law over paths: perplexity consistency's squared error falls exponentially, fitted slope over log(1 - p_min)"
    )
    yield Check(f"{clause}, at least", fitted, ">=", 0.9)
    yield Check(f"{clause}, at most", fitted, "<=", 1.1)
    far = np.array([200.0, 210.0, 220.0])
    bias = np.array([(p - errors.exact(law, a, int(n))[0]) ** 2 for n in far])
    yield Check(
        "law over paths: squared bias, exact slope over 2 log(1 - p_min), away from 1 by",
        abs(errors.slope(far, bias) / (2 * rarest) - 1),
        "<=",
        0.05,
    )
    votes = np.array([((each["vote"] - p) ** 2).mean() for each in drawn])
    power = errors.slope(np.log(ns), votes)
    yield Check(
        "law over paths: the vote's squared error, slope over log n, away from -1 by", abs(power + 1), "<=", 0.15
    )


def split(seed: int, runs: int) -> str:
    """Estimation and model error of three estimates of the right answer's probability, n = 16."""
    rng, law, a = np.random.default_rng(seed + 1), errors.TOY, "a"
    p, n = law.share(a), FEW
    rows: list[list[object]] = []
    for name, x in errors.estimated(law, a, n, runs, rng).items():
        target = p if name != "perplexity" else float(law.p[law.of(a)].max())
        rows.append([name, float(((x - target) ** 2).mean()), (1 - target) ** 2, float(((x - 1) ** 2).mean())])
    head = ["estimate", "estimation error", "model error", "both, measured"]
    return f"The law over paths, n = {n}, the right answer's probability {p:.2f}:\n\n{table(head, rows)}"


def reaches(name: str, pools: Sequence[Pool], times: int, seed: int) -> Iterator[Check]:
    ours = decided(pools, decide.perplexity_consistency(), FEW, times, seed)
    many, vote = (decided(pools, search.majority, n, times, seed) for n in (MANY, FEW))
    alone = decided(pools, perplexity, FEW, times, seed)
    yield held(f"{name}: accuracy of {FEW} samples minus majority@{MANY}'s", ours.over(many), ">=", 0.0)
    yield held(f"{name}: calibration error minus the vote's, {FEW} samples", ece_difference(ours, vote), "<", 0.0)
    clause = f"{name}: calibration error minus that of perplexity alone, {FEW} samples"
    yield held(clause, ece_difference(ours, alone), "<", 0.0)


def ablations(name: str, pools: Sequence[Pool], times: int, seed: int) -> str:
    """Accuracy at 16 samples of what the method is made of, and without each part."""
    those = {
        "perplexity consistency, pruned": decide.perplexity_consistency(),
        "without pruning": decide.perplexity_consistency(prune=False),
        "a vote after pruning": Decision("pruned vote", pruned_vote, texts=True, mass=True),
        "every draw counted": Decision("with repeats", repeated, texts=True, mass=True),
        "a vote": search.majority,
        "a vote, shown by its likeliest path": Decision("shown", shown, texts=True, mass=True),
        "likeliest path": perplexity,
    }
    rows: list[list[object]] = []
    for label, decision in those.items():
        found = decided(pools, decision, FEW, times, seed)
        rows.append([label, found.accuracy, found.ece().value])
    return f"{name}, {len(pools)} problems, {FEW} samples:\n\n{table(['decision', 'accuracy', 'ECE'], rows)}"


def pruned_vote(population: Population) -> Verdict:
    """One vote a sample that pruning keeps."""
    paths = Paths.of(population)
    votes = np.zeros(len(population))
    votes[list(paths.rows)] = probable(paths.logp) if len(paths.rows) else 0.0
    return decide.vote(population, votes)


def repeated(population: Population) -> Verdict:
    """Each draw adds its path's probability, so that a path counts as often as it came."""
    return decide.vote(population, np.exp(population.logp - population.logp[population.done].max(initial=-np.inf)))


def shown(population: Population) -> Verdict:
    """The vote's answer, by the likeliest path to it: what showing alone gains where texts are judged."""
    verdict = search.majority(population)
    if verdict.row is None or population.answers is None:
        return verdict
    mine = [i for i, a in enumerate(population.answers) if a == population.answers[verdict.row] and population.done[i]]
    return Verdict(max(mine, key=lambda i: float(population.logp[i])), verdict.support)
