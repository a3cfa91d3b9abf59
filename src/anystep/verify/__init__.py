"""Is it right? Rewards over language states: learned, computed without an answer key, and exact (labelled oracle)."""

from anystep.verify.chain_steps import ChainSteps, chain_steps
from anystep.verify.collaborative_cot_pot import CollaborativeCotPot, collaborative_cot_pot
from anystep.verify.equations import equations
from anystep.verify.judges import Judge, judge, judge_for
from anystep.verify.oracle import oracle
from anystep.verify.tests import Tests, tests

__all__ = [
    "ChainSteps",
    "CollaborativeCotPot",
    "Judge",
    "Tests",
    "chain_steps",
    "collaborative_cot_pot",
    "equations",
    "judge",
    "judge_for",
    "oracle",
    "tests",
]
