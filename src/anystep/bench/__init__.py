"""Which method gives more for the same compute? Methods at growing n on the same items, at their true cost."""

from anystep.bench.compare import Comparison, Progress, compare
from anystep.bench.coverage import BetaBinomial, PowerLaw, beta_binomial, curve, power_law, spread
from anystep.bench.entry import Entry, baselines, entry
from anystep.bench.pass_at_k import pass_at, pass_at_k, sampled
from anystep.bench.plugin import MethodsFile, methods_file
from anystep.bench.repeated import Repeated, repeated, runs_of
from anystep.bench.report import AtBudget, Item, Point, Report, equal_cost
from anystep.bench.store import Store, is_store
from anystep.bench.trial import Trial
from anystep.calibrate.interval import Interval, bootstrap_mean, level, paired_difference, wilson

__all__ = [
    "AtBudget",
    "BetaBinomial",
    "Comparison",
    "Entry",
    "Interval",
    "Item",
    "MethodsFile",
    "Point",
    "PowerLaw",
    "Progress",
    "Repeated",
    "Report",
    "Store",
    "Trial",
    "baselines",
    "beta_binomial",
    "bootstrap_mean",
    "compare",
    "curve",
    "entry",
    "equal_cost",
    "is_store",
    "level",
    "methods_file",
    "paired_difference",
    "pass_at",
    "pass_at_k",
    "power_law",
    "repeated",
    "runs_of",
    "sampled",
    "spread",
    "wilson",
]
