"""The intervals of comparisons: those of `calibrate.interval`."""

from anystep.calibrate.interval import (
    RESAMPLES,
    UNKNOWN,
    Interval,
    bootstrap_mean,
    level,
    paired_difference,
    wilson,
)

__all__ = ["RESAMPLES", "UNKNOWN", "Interval", "bootstrap_mean", "level", "paired_difference", "wilson"]
