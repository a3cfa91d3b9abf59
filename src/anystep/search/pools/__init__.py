"""What would a method have answered, and paid? Samples recorded once, replayed at any number without a model."""

from anystep.search.pools.pool import Pool
from anystep.search.pools.pools import About, Pools
from anystep.search.pools.replay import Replayed, ReplayedPotential, ReplayedReward

__all__ = ["About", "Pool", "Pools", "Replayed", "ReplayedPotential", "ReplayedReward"]
