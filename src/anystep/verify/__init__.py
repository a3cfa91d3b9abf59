"""Is it right? Rewards over language states: learned, computed without an answer key, and exact (labelled oracle)."""

from anystep.verify.chain_outcome import ChainOutcome, chain_outcome
from anystep.verify.chain_steps import ChainSteps, chain_steps
from anystep.verify.equations import equations
from anystep.verify.oracle import oracle
from anystep.verify.spare import Spare, spare

__all__ = ["ChainOutcome", "ChainSteps", "Spare", "chain_outcome", "chain_steps", "equations", "oracle", "spare"]
