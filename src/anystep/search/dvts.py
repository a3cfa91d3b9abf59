"""Diverse verifier tree search: several beams that never compete with each other."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from anystep.population import Population
from anystep.procedure import All, Ask, ByReward, Count, Exploring, Score, Step, procedure, start, step
from anystep.process import Floats
from anystep.search import decide


@procedure(decide=decide.best_reward, needs_end=True)
def dvts(trees: Count, reward: ByReward, branch: Count = 4, width: Count = 1) -> Exploring:
    """`trees` independent beams of `width` states, each extended by `branch` children a step; the finished state with
    the highest reward answers.

    Preserves nothing: within a tree it is `beam`, and with one tree it is that beam, state by state. Because trees do
    not compete, one that the reward likes early takes no other's place: `trees` lines come to their end. All trees
    share a batch each step. On a process that can `expand`, where all of them would be alike, the likeliest first
    children are dealt out among them in turn; a tree that gets none is dropped.
    Source: Beeching, Tunstall and Rush, "Scaling Test-Time Compute with Open Models" (Hugging Face, 2024).
    """
    beams = yield from _planted(trees, width, branch, reward)
    while growing := [i for i, beam in enumerate(beams) if beam.live.any()]:
        grown: list[Population] = yield All(tuple(Step(beams[i], branch) for i in growing))
        for i, beam in zip(growing, (yield from _pruned(grown, width, reward)), strict=True):
            beams[i] = beam
    return beams[0].join(*beams[1:])


def _planted(trees: int, width: int, branch: int, reward: ByReward) -> Generator[Ask, Any, list[Population]]:
    """The trees' first states, each with its own, or, made from the one state that is enough, each with its own
    children."""
    roots = yield from start(trees * width, distinct=True)
    if len(roots) == trees * width:
        return [roots.take(np.arange(i * width, (i + 1) * width)) for i in range(trees)]
    children = yield from step(roots, trees * branch)
    dealt = [children.take(np.arange(i, len(children), trees)) for i in range(min(trees, len(children)))]
    return (yield from _pruned(dealt, width, reward))


def _pruned(beams: list[Population], width: int, reward: ByReward) -> Generator[Ask, Any, list[Population]]:
    """The `width` states of each beam that the reward likes best."""
    scores: list[Floats] = yield All(tuple(Score(beam, reward) for beam in beams))
    kept = []
    for beam, values in zip(beams, scores, strict=True):
        worth = np.where(beam.failed | np.isnan(values), -np.inf, values)
        best = np.argsort(-worth, kind="stable")[:width]
        kept.append(beam.take(best).scored(values[best]))
    return kept
