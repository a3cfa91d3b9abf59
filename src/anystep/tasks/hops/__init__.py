"""Can a chain be followed whose facts are not known beforehand? Multi-hop puzzles over a base of facts.

A puzzle names where to begin and which way to turn at each hop; the facts say where each turn leads. The fact that a
hop needs is named by the entity that the hop before led to, so that it cannot be told from the question.
"""

from anystep.tasks.hops.facts import Facts, Found
from anystep.tasks.hops.puzzle import CLOSE, ENTITIES, OPEN, TURNS, Puzzle, hops, puzzles, task

__all__ = ["CLOSE", "ENTITIES", "OPEN", "TURNS", "Facts", "Found", "Puzzle", "hops", "puzzles", "task"]
