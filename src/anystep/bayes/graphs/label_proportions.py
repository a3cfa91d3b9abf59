"""Learning from label proportions: each bag's share of positives is known, and a classifier of instances is wanted.

Source: Havaldar et al., "Learning from Label Proportions: Bootstrapping Supervised Learners via Belief Propagation"
(ICLR 2024, arXiv 2310.08056). Two things differ: the bags' counts enter by exact factors, where the paper has pairs in
each bag, and later rounds look for neighbours in the features beside the embedding, since in the embedding alone one
round's mistakes were the next one's neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.averaged import averaged
from anystep.bayes.graphs.counts import counted
from anystep.bayes.graphs.propagation import Beliefs, Ties, belief_propagation
from anystep.errors import UsageError
from anystep.process import Floats

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How a classifier learns. width: of its two hidden layers, the last of which is the embedding. proportion: weight
    of the loss on each bag's mean prediction."""

    width: int = 32
    updates: int = 300
    batch: int = 1
    rate: float = 0.01
    average: float = 0.9
    decay: float = 1e-2
    proportion: float = 0.1


@dataclass
class LabelProportions:
    """What learning from proportions found. beliefs: of each round, about the instances it learned from."""

    net: nn.Sequential
    centre: Floats
    spread: Floats
    beliefs: list[Beliefs] = field(default_factory=list)

    def predict_proba(self, X: ArrayLike) -> Floats:
        """(n, 2): probabilities that each instance is 0 and 1."""
        with torch.no_grad():
            one = torch.sigmoid(self.net(self._scaled(X))[:, 0]).double().numpy()
        return np.stack([1 - one, one], -1)

    def predict(self, X: ArrayLike) -> Index:
        return np.asarray(self.predict_proba(X)[:, 1] > 0.5, dtype=np.int64)

    def embedding(self, X: ArrayLike) -> Floats:
        """(n, width), what the last hidden layer makes of the instances."""
        with torch.no_grad():
            return np.asarray(self.net[:-1](self._scaled(X)).double().numpy())

    def _scaled(self, X: ArrayLike) -> Tensor:
        x = np.asarray(X, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.centre) or not np.isfinite(x).all():
            raise UsageError(f"X has shape {x.shape}; it is finite, (instances, {len(self.centre)}).")
        return torch.from_numpy((x - self.centre) / self.spread).float()


def label_proportions_bp(
    X: ArrayLike,
    bags: ArrayLike,
    counts: ArrayLike,
    rounds: int = 2,
    neighbours: int = 5,
    similarity: float = 2.0,
    penalty: float | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> LabelProportions:
    """Pseudo-labels from belief propagation, a classifier from these, neighbours by what it made of them, and again.

    Each round's marginals are of the Gibbs distribution that joins the bags' counts with ties between near neighbours;
    the classifier learns them as soft labels, beside the bags' proportions. Nothing is preserved: with loops the
    marginals are approximate, and neighbours of different classes mislead.

    X: (n, features). bags: (n,), the number of each instance's bag, from 0. counts: (bags,), positives in each. rounds:
    1 or more. neighbours: of each instance that it is tied to; 0 for none. similarity: the strength of a tie at
    distance 0; it falls with the square of the distance, by the median one. penalty: see `counted`; None holds counts
    exactly. Raises UsageError for shapes that do not fit and for counts that a bag cannot have.
    """
    x, bag, wanted = _checked(X, bags, counts)
    if rounds < 1 or neighbours < 0:
        raise UsageError(f"rounds={rounds}, neighbours={neighbours}: label_proportions_bp(X, bags, counts, rounds=2).")
    recipe, factors = recipe or Recipe(), counted(bag, wanted, penalty)
    found = _untrained(x, recipe, seed)
    where = scaled = (x - found.centre) / found.spread
    for turn in range(rounds):
        ties = near(where, neighbours, similarity) if neighbours else None
        beliefs = belief_propagation(len(x), factors, ties)
        found = _untrained(x, recipe, seed + turn, found.beliefs + [beliefs])
        _learn(found, x, bag, wanted, torch.from_numpy(beliefs.marginals).float(), recipe)
        made = found.embedding(x)
        weight = np.sqrt(scaled.shape[1] / made.shape[1]) / max(float(made.std()), 1e-9)
        where = np.concatenate([scaled, weight * made], -1)  # as much of either
    return found


def proportion_loss_training(
    X: ArrayLike, bags: ArrayLike, counts: ArrayLike, recipe: Recipe | None = None, seed: int = 0
) -> LabelProportions:
    """The plain way, called DLLP: only each bag's mean prediction is held to its proportion, by cross-entropy.

    Source: Ardehaly and Culotta, "Co-training for demographic classification using deep learning from label
    proportions" (2017).
    """
    x, bag, wanted = _checked(X, bags, counts)
    recipe = recipe or Recipe()
    found = _untrained(x, recipe, seed)
    _learn(found, x, bag, wanted, None, recipe)
    return found


def near(where: Floats, neighbours: int, similarity: float) -> Ties:
    """Ties between each point and its nearest, each pair once."""
    if neighbours >= len(where):
        raise UsageError(f"neighbours={neighbours} of {len(where)} instances: fewer than there are others.")
    distance, index = cKDTree(where).query(where, neighbours + 1)
    pairs = np.stack([np.repeat(np.arange(len(where)), neighbours), index[:, 1:].ravel()], -1)
    ends, first = np.unique(np.sort(pairs, -1), axis=0, return_index=True)
    apart = distance[:, 1:].ravel()[first]
    kept = ends[:, 0] != ends[:, 1]  # among equal points a point may be its own neighbour
    scale = max(float(np.median(apart)), 1e-12)
    return Ties(ends[kept], similarity * np.exp(-0.5 * (apart[kept] / scale) ** 2))


def _checked(X: ArrayLike, bags: ArrayLike, counts: ArrayLike) -> tuple[Floats, Index, Floats]:
    x, bag, wanted = np.asarray(X, dtype=np.float64), np.asarray(bags), np.asarray(counts, dtype=np.float64)
    if x.ndim != 2 or bag.shape != (len(x),) or not np.issubdtype(bag.dtype, np.integer) or wanted.ndim != 1:
        raise UsageError(
            f"X {x.shape}, bags {bag.shape}, counts {wanted.shape}: X (n, features), a bag's number for each instance, "
            "and each bag's count of positives."
        )
    return x, bag.astype(np.int64), wanted


def _untrained(x: Floats, recipe: Recipe, seed: int, beliefs: list[Beliefs] | None = None) -> LabelProportions:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        w = recipe.width
        net = nn.Sequential(nn.Linear(x.shape[1], w), nn.GELU(), nn.Linear(w, w), nn.GELU(), nn.Linear(w, 1))
    return LabelProportions(net, x.mean(0), np.maximum(x.std(0), 1e-9), beliefs or [])


def _learn(
    found: LabelProportions, x: Floats, bag: Index, counts: Floats, labels: Tensor | None, recipe: Recipe
) -> None:
    """Full batches: the loss of the labels, if there are any, and that of the bags' means."""
    inputs, which = found._scaled(x), torch.from_numpy(bag)
    sizes = torch.bincount(which, minlength=len(counts)).float()
    share = torch.from_numpy(counts).float() / sizes

    def loss() -> Tensor:
        logits = found.net(inputs)[:, 0]
        mean = torch.zeros(len(share)).index_add(0, which, torch.sigmoid(logits)) / sizes
        bagged = F.binary_cross_entropy(mean.clamp(1e-6, 1 - 1e-6), share)
        if labels is None:
            return bagged
        return F.binary_cross_entropy_with_logits(logits, labels) + recipe.proportion * bagged

    averaged(found.net, recipe, loss, decay=recipe.decay)
