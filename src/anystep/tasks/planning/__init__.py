"""Can a plan be made that keeps to what was said? Trips, meetings and calendars in a few words, with exact checkers."""

from anystep.tasks.planning.constraints import Constraint, listed, parse, read_plan
from anystep.tasks.planning.draw import DOMAINS, Problem, planning, problems, spoiled, task

__all__ = [
    "DOMAINS",
    "Constraint",
    "Problem",
    "listed",
    "parse",
    "planning",
    "problems",
    "read_plan",
    "spoiled",
    "task",
]
