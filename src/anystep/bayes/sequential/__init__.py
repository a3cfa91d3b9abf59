"""What is believed after one task should be where the next begins: learning over episodes and tasks."""

from anystep.bayes.sequential.batched import MLP
from anystep.bayes.sequential.linear_gaussian import LinearBelief
from anystep.bayes.sequential.mixture import Mixture, fit_mixture
from anystep.bayes.sequential.niw_meta import Classes, Langevin, NIWMeta, Noise
from anystep.bayes.sequential.normal_inverse_wishart import Diagonal, Full, Local
from anystep.bayes.sequential.proto_cl import ProtoCL, Prototypes
from anystep.bayes.sequential.sequential_hmc import Chain, Posterior, sequential_hmc

__all__ = [
    "MLP",
    "Chain",
    "Classes",
    "Diagonal",
    "Full",
    "Langevin",
    "LinearBelief",
    "Local",
    "Mixture",
    "NIWMeta",
    "Noise",
    "Posterior",
    "ProtoCL",
    "Prototypes",
    "fit_mixture",
    "sequential_hmc",
]
