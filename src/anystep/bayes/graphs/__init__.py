"""What do parts say about each other? Belief propagation on factor graphs, and learning from proportions of labels."""

from anystep.bayes.graphs.counts import Counts, counted
from anystep.bayes.graphs.label_proportions import (
    LabelProportions,
    Recipe,
    label_proportions_bp,
    near,
    proportion_loss_training,
)
from anystep.bayes.graphs.propagation import Beliefs, Ties, belief_propagation

__all__ = [
    "Beliefs",
    "Counts",
    "LabelProportions",
    "Recipe",
    "Ties",
    "belief_propagation",
    "counted",
    "label_proportions_bp",
    "near",
    "proportion_loss_training",
]
