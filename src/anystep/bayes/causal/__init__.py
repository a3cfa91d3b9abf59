"""What would happen if? Diagrams of causes, what doing changes in them, and which causes data with dropouts show."""

from anystep.bayes.causal.channels import as_program, interpret, intervene
from anystep.bayes.causal.diagrams import (
    Box,
    StringDiagram,
    box,
    causal_graph,
    copy,
    cut,
    discard,
    identity,
    swap,
    uniform,
)
from anystep.bayes.causal.identify import Identified, NotIdentifiable, comb_disintegration, identify

__all__ = [
    "Box",
    "Identified",
    "NotIdentifiable",
    "StringDiagram",
    "as_program",
    "box",
    "causal_graph",
    "comb_disintegration",
    "copy",
    "cut",
    "discard",
    "identify",
    "identity",
    "interpret",
    "intervene",
    "swap",
    "uniform",
]
