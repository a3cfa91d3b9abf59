"""Does a process, procedure, reward or decision keep the laws? Checks to inherit, exact oracles, counters of real work.

`check_process(process)`, `check_procedure(method, process)`, `check_reward(reward, states)` and
`check_decision(decision)` run every check; `process_checks`, `procedure_checks`, ... list them for parametrised tests.
"""

from anystep.testing.cases import case
from anystep.testing.checks_decision import check_decision, decision_checks
from anystep.testing.checks_procedure import (
    check_prefix,
    check_procedure,
    check_refusal,
    procedure_checks,
)
from anystep.testing.checks_process import check_process, own_hook, process_checks, some_keys
from anystep.testing.checks_reward import check_reward, reward_checks
from anystep.testing.counting import Hook, Work, counted, counted_torch
from anystep.testing.laws import assert_law, assert_mean, total_variation, weighed
from anystep.testing.runs import merged

__all__ = [
    "Hook",
    "Work",
    "assert_law",
    "assert_mean",
    "case",
    "check_decision",
    "check_prefix",
    "check_procedure",
    "check_process",
    "check_refusal",
    "check_reward",
    "counted",
    "counted_torch",
    "decision_checks",
    "merged",
    "own_hook",
    "procedure_checks",
    "process_checks",
    "reward_checks",
    "some_keys",
    "total_variation",
    "weighed",
]
