"""Which rule made these lists of those? Problems of induction in a small typed language, and its bounded interpreter."""

from anystep.tasks.rules.asking import (
    END,
    applying,
    asked,
    examples_of,
    outputs_of,
    revised,
    rule_of,
    unfailing,
)
from anystep.tasks.rules.draw import (
    Problem,
    behaviour,
    direct,
    draw_rule,
    drawn,
    mistaken,
    perturbed,
    problems,
    rules,
    task,
)
from anystep.tasks.rules.meaning import LONGEST_LIST, LONGEST_RULE, OPERATIONS, Operation, Rule, parse, read, written

__all__ = [
    "END",
    "LONGEST_LIST",
    "LONGEST_RULE",
    "OPERATIONS",
    "Operation",
    "Problem",
    "Rule",
    "applying",
    "asked",
    "behaviour",
    "direct",
    "draw_rule",
    "drawn",
    "examples_of",
    "mistaken",
    "outputs_of",
    "parse",
    "perturbed",
    "problems",
    "read",
    "revised",
    "rule_of",
    "rules",
    "task",
    "unfailing",
    "written",
]
