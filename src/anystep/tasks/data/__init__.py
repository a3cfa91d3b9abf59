"""Whose problems? Your own: a file of questions and answers as tasks, and what is wrong with it by line."""

from anystep.tasks.data.read import Data, load_data
from anystep.tasks.data.rows import Flaw
from anystep.tasks.data.scorers import Grader, Unscored, grader

__all__ = ["Data", "Flaw", "Grader", "Unscored", "grader", "load_data"]
