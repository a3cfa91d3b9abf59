"""Which problems have exact scorers? Generators, data sets and answer equivalence."""

from anystep.tasks.data import Data, load_data
from anystep.tasks.equations import Equation, check_equations, equation_score
from anystep.tasks.equivalence import Scorer, scorer
from anystep.tasks.procbench import ProcBench
from anystep.tasks.reasoning_gym import reasoning_gym
from anystep.tasks.registry import load, names
from anystep.tasks.task import Task
from anystep.tasks.word_problems import word_problems

__all__ = [
    "Data",
    "Equation",
    "ProcBench",
    "Scorer",
    "Task",
    "check_equations",
    "equation_score",
    "load",
    "load_data",
    "names",
    "reasoning_gym",
    "scorer",
    "word_problems",
]
