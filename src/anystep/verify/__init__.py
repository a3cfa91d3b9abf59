"""Is it right? Rewards over language states: learned, computed without an answer key, and exact (labelled oracle)."""

from anystep.verify.chain_steps import ChainSteps, chain_steps
from anystep.verify.equations import equations
from anystep.verify.oracle import oracle
from anystep.verify.tests import Tests, tests

__all__ = ["ChainSteps", "Tests", "chain_steps", "equations", "oracle", "tests"]
