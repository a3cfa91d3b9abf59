"""Does a language model think it is right? Judges: pointwise, pairwise, and a model asked about its own answers."""

from anystep.verify.judges.own import SelfEvaluation, self_evaluation
from anystep.verify.judges.pairwise import Comparisons, Pairwise, Ranking, WinRate, pairwise, win_rate
from anystep.verify.judges.pointwise import Judge, MissingVerdict, Verdicts, judge, judge_for
from anystep.verify.judges.scale import Scale
from anystep.verify.judges.strengths import bradley_terry

__all__ = [
    "Comparisons",
    "Judge",
    "MissingVerdict",
    "Pairwise",
    "Ranking",
    "Scale",
    "SelfEvaluation",
    "Verdicts",
    "WinRate",
    "bradley_terry",
    "judge",
    "judge_for",
    "pairwise",
    "self_evaluation",
    "win_rate",
]
