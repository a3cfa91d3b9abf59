"""What comes next in a series, and what was missed? One diffusion model of windows forecasts, fills in and makes up."""

from anystep.diffusion.series.observed import ObservationGuided
from anystep.diffusion.series.seasonal import Seasonal, crps, ridge
from anystep.diffusion.series.tsdiff import TSDiff

__all__ = ["ObservationGuided", "Seasonal", "TSDiff", "crps", "ridge"]
