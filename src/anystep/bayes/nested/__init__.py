"""How probable is a model, all its parameters counted? Nested sampling, plain and with a likelihood that is learned."""

from anystep.bayes.nested.genetic import GeneticSearch
from anystep.bayes.nested.network import Architecture
from anystep.bayes.nested.plain import NestedResult, NestedSampler
from anystep.bayes.nested.surrogate import Attempt, Gate, SurrogateNestedSampler, SurrogateResult

__all__ = [
    "Architecture",
    "Attempt",
    "Gate",
    "GeneticSearch",
    "NestedResult",
    "NestedSampler",
    "SurrogateNestedSampler",
    "SurrogateResult",
]
