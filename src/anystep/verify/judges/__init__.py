"""Does a language model think it is right? Judges: pointwise, pairwise, and a model asked about its own answers."""

from anystep.verify.judges.pointwise import Judge, MissingVerdict, Verdicts, judge, judge_for
from anystep.verify.judges.scale import Scale

__all__ = ["Judge", "MissingVerdict", "Scale", "Verdicts", "judge", "judge_for"]
