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
from anystep.bayes.causal.discovery import testwise_deletion_discovery
from anystep.bayes.causal.dropouts import Kind, Simulated, simulate
from anystep.bayes.causal.ges import ges
from anystep.bayes.causal.identify import Identified, NotIdentifiable, comb_disintegration, identify
from anystep.bayes.causal.independence import Independence
from anystep.bayes.causal.patterns import hamming, pattern
from anystep.bayes.causal.pc import pc
from anystep.bayes.causal.validate import DropoutCheck, dropout_check

__all__ = [
    "Box",
    "DropoutCheck",
    "Identified",
    "Independence",
    "Kind",
    "NotIdentifiable",
    "Simulated",
    "StringDiagram",
    "as_program",
    "box",
    "causal_graph",
    "comb_disintegration",
    "copy",
    "cut",
    "discard",
    "dropout_check",
    "ges",
    "hamming",
    "identify",
    "identity",
    "interpret",
    "intervene",
    "pattern",
    "pc",
    "simulate",
    "swap",
    "testwise_deletion_discovery",
    "uniform",
]
