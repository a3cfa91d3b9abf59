"""How sure? Calibration of rewards and of answers, and the measure of verifiers: what they let pass, at what cost."""

from anystep.calibrate.interval import Interval, bootstrap_mean, level, paired_difference, wilson
from anystep.calibrate.maps import Map, beta, isotonic, map_of, platt, temperature
from anystep.calibrate.reliability import Reliability, auroc, auroc_within, decomposition, ece, reliability, squared_ce
from anystep.calibrate.verdicts import Verdicts, judged, on_planted, states_of, verdicts

__all__ = [
    "Interval",
    "Map",
    "Reliability",
    "Verdicts",
    "auroc",
    "auroc_within",
    "beta",
    "bootstrap_mean",
    "decomposition",
    "ece",
    "isotonic",
    "judged",
    "level",
    "map_of",
    "on_planted",
    "paired_difference",
    "platt",
    "reliability",
    "squared_ce",
    "states_of",
    "temperature",
    "verdicts",
    "wilson",
]
