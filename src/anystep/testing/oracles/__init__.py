"""Which processes have answers known exactly? Small models of every kind, for testing what explores them."""

from anystep.testing.oracles.deterministic import Countdown
from anystep.testing.oracles.editors import Again, Critic, Relay, Reviser
from anystep.testing.oracles.endless import Metropolis
from anystep.testing.oracles.faulty import FaultyLM
from anystep.testing.oracles.gaussian import LinearGaussian
from anystep.testing.oracles.hmm import HiddenMarkov
from anystep.testing.oracles.judges import JudgePotential, JudgeReward
from anystep.testing.oracles.language import EnumerableLM, Sequences
from anystep.testing.oracles.mixture import Mixture, MixtureDiffusion
from anystep.testing.oracles.prompted import Prompt, PromptedLM

__all__ = [
    "Again",
    "Countdown",
    "Critic",
    "EnumerableLM",
    "FaultyLM",
    "HiddenMarkov",
    "JudgePotential",
    "JudgeReward",
    "LinearGaussian",
    "Metropolis",
    "Mixture",
    "MixtureDiffusion",
    "Prompt",
    "PromptedLM",
    "Relay",
    "Reviser",
    "Sequences",
]
