"""Does this program do what was asked? Programming problems with examples that are shown and tests that are hidden."""

from anystep.tasks.code.extract import extract_program
from anystep.tasks.code.humaneval import humaneval
from anystep.tasks.code.judge import behaviours, forget, score_many, shares, verdicts
from anystep.tasks.code.mutate import Slip
from anystep.tasks.code.probe import probed
from anystep.tasks.code.problem import Case, Cases, Checked, Problem
from anystep.tasks.code.programs import planted, programs
from anystep.tasks.code.values import same

__all__ = [
    "Case",
    "Cases",
    "Checked",
    "Problem",
    "Slip",
    "behaviours",
    "extract_program",
    "forget",
    "humaneval",
    "planted",
    "probed",
    "programs",
    "same",
    "score_many",
    "shares",
    "verdicts",
]
