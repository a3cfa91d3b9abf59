"""Is it right? Rewards over language states: learned, computed without an answer key, and exact (labelled oracle)."""

from anystep.verify.chain_outcome import ChainOutcome, chain_outcome
from anystep.verify.chain_steps import ChainSteps, chain_steps
from anystep.verify.equations import equations
from anystep.verify.judges import Judge, judge, judge_for
from anystep.verify.oracle import oracle
from anystep.verify.spare import Spare, spare
from anystep.verify.tests import Tests, tests

__all__ = [
    "ChainOutcome",
    "ChainSteps",
    "Judge",
    "Spare",
    "Tests",
    "chain_outcome",
    "chain_steps",
    "equations",
    "judge",
    "judge_for",
    "oracle",
    "spare",
    "tests",
]
