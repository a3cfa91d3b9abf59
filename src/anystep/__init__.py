"""Spend inference compute where it pays: one engine from a single pass to thousands of steps."""

from anystep.answer import Answer
from anystep.drive import adrive, drive
from anystep.errors import AnystepError, ModelError, Unsupported, UsageError
from anystep.ledger import Budget, Cost, Ledger, Limit
from anystep.population import Decision, Population, Verdict
from anystep.procedure import procedure
from anystep.process import Potential, Process, Reward, Scored, Status, Stepped, potential, reward
from anystep.resuming import resume
from anystep.run import Run
from anystep.solve import asolve, solve, solve_many

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AnystepError",
    "Budget",
    "Cost",
    "Decision",
    "Ledger",
    "Limit",
    "ModelError",
    "Population",
    "Potential",
    "Process",
    "Reward",
    "Run",
    "Scored",
    "Status",
    "Stepped",
    "Unsupported",
    "UsageError",
    "Verdict",
    "adrive",
    "asolve",
    "drive",
    "potential",
    "procedure",
    "resume",
    "reward",
    "solve",
    "solve_many",
]
