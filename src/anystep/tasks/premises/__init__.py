"""Can a step be checked from what it cites alone? Problems of numbered premises, and chains that cite them."""

from anystep.tasks.premises.check import Fault, answer, faults, follows, judge, steps
from anystep.tasks.premises.draw import LEVELS, Problem, draw, numbered, premises, problems, task
from anystep.tasks.premises.meaning import Meaning, Style, read, write
from anystep.tasks.premises.plant import CONTENT, KINDS, Planted, plant
from anystep.tasks.premises.program import Statement, statements

__all__ = [
    "CONTENT",
    "KINDS",
    "LEVELS",
    "Fault",
    "Meaning",
    "Planted",
    "Problem",
    "Statement",
    "Style",
    "answer",
    "draw",
    "faults",
    "follows",
    "judge",
    "numbered",
    "plant",
    "premises",
    "problems",
    "read",
    "statements",
    "steps",
    "task",
    "write",
]
