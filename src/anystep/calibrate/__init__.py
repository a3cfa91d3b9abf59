"""How sure? Calibration of rewards and of answers, and the measure of verifiers: what they let pass, at what cost."""

from anystep.calibrate.calibrated import Calibrated, Fit, calibrated, fit
from anystep.calibrate.interval import Interval, bootstrap_mean, level, paired_difference, wilson
from anystep.calibrate.maps import Map, beta, isotonic, map_of, platt, temperature
from anystep.calibrate.pressure import Pressure, pressure
from anystep.calibrate.reliability import Reliability, auroc, auroc_within, decomposition, ece, reliability, squared_ce
from anystep.calibrate.threshold import Threshold, threshold_for
from anystep.calibrate.verdicts import Verdicts, judged, on_planted, states_of, verdicts
from anystep.calibrate.winner import Winner, sure, winner

__all__ = [
    "Calibrated",
    "Fit",
    "Interval",
    "Map",
    "Pressure",
    "Reliability",
    "Threshold",
    "Verdicts",
    "Winner",
    "auroc",
    "auroc_within",
    "beta",
    "bootstrap_mean",
    "calibrated",
    "decomposition",
    "ece",
    "fit",
    "isotonic",
    "judged",
    "level",
    "map_of",
    "on_planted",
    "paired_difference",
    "platt",
    "pressure",
    "reliability",
    "squared_ce",
    "states_of",
    "sure",
    "temperature",
    "threshold_for",
    "verdicts",
    "wilson",
    "winner",
]
