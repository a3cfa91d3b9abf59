"""Search over the noises that samples start from, and over the paths from noise to data, guided by a verifier."""

from __future__ import annotations

import numpy as np

from anystep.population import Population
from anystep.procedure import ByProcess, ByReward, Count, Exploring, procedure, score, start, step
from anystep.process import Floats
from anystep.search import decide


@procedure(decide=decide.best_reward)
def noise_search(
    reward: ByReward, n: Count, rounds: Count = 1, near: ByProcess | None = None, full: ByProcess | None = None
) -> Exploring:
    """`rounds` of n starts run to their end; the one whose end the verifier `reward` likes best answers.

    Without `near` it is random search: every round draws n fresh starts. With it, zero-order search: after the first
    round each tries n neighbours of the best start so far, a step of each by the process `near` (in a diffusion
    `diffusion.NearbyNoise`). Both run n * rounds samples. full: a process on the same states, such as one with more
    denoising steps, that takes the winner from its start to its end once more; that end is then the answer.

    Preserves nothing: like best-of-n it drifts to what the verifier over-scores, random search most, since neighbours
    stay near one draw. Works on deterministic processes, whose starts alone are random. A start whose end failed or has
    no score cannot win.
    Source: Ma et al., "Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps" (2025), arXiv
    2501.09732.
    """
    tried: list[Population] = []
    pivot, best = None, -np.inf
    for _ in range(rounds):
        starts = (yield from start(n)) if near is None or pivot is None else (yield from step(pivot, n, by=near))
        ends = yield from step(starts, until="done")
        ends = ends.scored((yield from score(ends, reward)))
        tried.append(ends)
        winner = int(np.argmax(worth(ends)))
        if pivot is None or worth(ends)[winner] > best:
            pivot, best = starts.take([winner]), worth(ends)[winner]
    if full is None or pivot is None:
        return tried[0].join(*tried[1:])
    end = yield from step(pivot, until="done", by=full)
    return end.scored((yield from score(end, reward)))


@procedure(decide=decide.best_reward)
def path_search(
    reward: ByReward,
    renoise: ByProcess,
    ahead: Count,
    n: Count = 2,
    branch: Count = 2,
    rounds: Count = 4,
    first: Count = 1,
) -> Exploring:
    """n paths are taken `first` steps; in each of `rounds`, `branch` copies of each are made noisier, go `ahead` steps,
    and the n that the verifier likes best stay. What is not at its end then is run there.

    renoise: a process on the same states that takes some steps back with fresh noise (`diffusion.Renoise`); fewer than
    `ahead`, so that a round comes nearer to the end. reward: also of unfinished states, as one of the predicted clean
    thing is (`diffusion.on_clean`); it need not know noise.

    Preserves nothing; see `noise_search`. A finished state is made noisier like any other, and where its copies are
    worse it is kept no more: every end that was reached is returned, and the best of all answers.
    Source: as `noise_search`, its "search over paths".
    """
    population, ends = (yield from start(n)), list[Population]()
    population = yield from _ahead(population, first)
    for _ in range(rounds):
        wide = yield from step(population.reopened(), branch, by=renoise)
        wide = yield from _ahead(wide, ahead)
        wide = wide.scored((yield from score(wide, reward)))
        ends += [wide.take(wide.done)] if wide.done.any() else []
        population = wide.take(np.argsort(-worth(wide), kind="stable")[:n])
    if population.live.any():
        last = yield from step(population.take(population.live), until="done")
        ends.append(last.scored((yield from score(last, reward))))
    return ends[0].join(*ends[1:]) if ends else population


def _ahead(population: Population, steps: int) -> Exploring:
    for _ in range(steps):
        population = yield from step(population)
    return population


def worth(population: Population) -> Floats:
    """The scores, -inf for what failed or has none."""
    return np.where(population.failed | np.isnan(population.scores), -np.inf, population.scores)
