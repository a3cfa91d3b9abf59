"""Is it right? Rewards over language states: learned, computed without an answer key, and exact (labelled oracle)."""

from anystep.verify.abduct_act_predict import Attribution, abduct_act_predict, replayed
from anystep.verify.chain_outcome import ChainOutcome, chain_outcome
from anystep.verify.chain_steps import ChainSteps, chain_steps
from anystep.verify.chain_value import chain_value
from anystep.verify.collaborative_cot_pot import CollaborativeCotPot, collaborative_cot_pot
from anystep.verify.consistency import (
    Consistency,
    StandingSteps,
    StepArithmetic,
    consistency,
    standing_steps,
    step_arithmetic,
)
from anystep.verify.equations import equations
from anystep.verify.glimpse import Glimpse, RemoteGlimpse, glimpse
from anystep.verify.judges import (
    Judge,
    Pairwise,
    SelfEvaluation,
    WinRate,
    bradley_terry,
    judge,
    judge_for,
    pairwise,
    self_evaluation,
    win_rate,
)
from anystep.verify.line_probability import CastOut, LineProbability, cast_out, line_probability
from anystep.verify.natural_program import NaturalProgram, natural_program, verified_majority
from anystep.verify.oracle import oracle
from anystep.verify.plan_constraints import PlanVerifier, constraints_of, plan_constraints
from anystep.verify.reread import Reread, reread
from anystep.verify.rule_fit import RuleFit, rule_fit
from anystep.verify.self_evaluation_token import SelfEvaluationToken, self_evaluation_token
from anystep.verify.spare import Spare, spare
from anystep.verify.steps import Steps, steps
from anystep.verify.tests import Tests, tests
from anystep.verify.token_confidence import TokenConfidence, token_confidence
from anystep.verify.uncertainty import UncertaintyHead, uncertainty_head

__all__ = [
    "Attribution",
    "CastOut",
    "ChainOutcome",
    "ChainSteps",
    "CollaborativeCotPot",
    "Consistency",
    "Glimpse",
    "Judge",
    "LineProbability",
    "NaturalProgram",
    "Pairwise",
    "PlanVerifier",
    "RemoteGlimpse",
    "Reread",
    "RuleFit",
    "SelfEvaluation",
    "SelfEvaluationToken",
    "Spare",
    "StandingSteps",
    "StepArithmetic",
    "Steps",
    "Tests",
    "TokenConfidence",
    "UncertaintyHead",
    "WinRate",
    "abduct_act_predict",
    "bradley_terry",
    "cast_out",
    "chain_outcome",
    "chain_steps",
    "chain_value",
    "collaborative_cot_pot",
    "consistency",
    "constraints_of",
    "equations",
    "glimpse",
    "judge",
    "judge_for",
    "line_probability",
    "natural_program",
    "oracle",
    "pairwise",
    "plan_constraints",
    "replayed",
    "reread",
    "rule_fit",
    "self_evaluation",
    "self_evaluation_token",
    "spare",
    "standing_steps",
    "step_arithmetic",
    "steps",
    "tests",
    "token_confidence",
    "uncertainty_head",
    "verified_majority",
    "win_rate",
]
