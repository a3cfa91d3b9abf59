"""ProtoCL: continual learning by Gaussian prototypes whose posterior has a closed form, over a learned embedding.

An encoder takes x to z. Class k has a mean mu_k ~ N(0, 1) and z | k ~ N(mu_k, spread) in every coordinate, so after n_k
embeddings with sum S_k the posterior of mu_k is N(Q_k / L_k, 1 / L_k) with Q_k = S_k / spread and L_k = 1 + n_k /
spread, the class prior is Dirichlet with counts 1 + n_k, and the predictive is a Gaussian for each class. All classes
share it: a class that was never seen has no part in it, and no output layer knows how many there will be.

Preserves: the posterior of the prototypes exactly, given the encoder and the points in memory. The encoder is trained,
not inferred, and forgets what the memory does not hold.

Source: Kessler, Cobb, Rudner, Zohren and Roberts, "On Sequential Bayesian Inference for Continual Learning", Entropy
2023 (arXiv 2301.01828). Its code adds a batch's embeddings to the statistics at every epoch, of an encoder that has
moved on since; here they are computed once, from the memory, with the encoder at the end of each task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from anystep.errors import UsageError
from anystep.process import Floats


@dataclass(frozen=True)
class Prototypes:
    """Sums and numbers of embeddings of each class, total (k, d) and number (k,), and the variance within a class."""

    total: Tensor
    number: Tensor
    spread: float = 1.0

    @classmethod
    def of(cls, z: Tensor, y: Tensor, classes: int, spread: float = 1.0) -> Prototypes:
        """The statistics of embeddings z (n, d) with labels y (n,)."""
        hot = F.one_hot(y, classes).to(z.dtype)
        return cls(hot.T @ z, hot.sum(0), spread)

    def log_joint(self, z: Tensor, but: Tensor | None = None) -> Tensor:
        """log p(class, z | statistics), up to what all classes share: (n, k), minus infinity where nothing was seen.

        but: labels (n,) of the z, when they are among those counted: each is then left out of its own class.
        """
        total, number = self.total.expand(len(z), -1, -1), self.number.expand(len(z), -1)
        if but is not None:
            own = F.one_hot(but, self.number.shape[0]).to(z.dtype)
            total, number = total - own[..., None] * z[:, None], number - own
        precision = 1 + number / self.spread
        mean = total / self.spread / precision[..., None]
        variance = 1 / precision + self.spread
        squares = ((z[:, None] - mean) ** 2).sum(-1) / variance + z.shape[1] * variance.log()
        found = torch.log1p(number) - squares / 2
        return found.masked_fill(self.number.expand_as(found) == 0, -math.inf)


class ProtoCL:
    """Learns tasks one after another with `learn(x, y)`; `predict_proba` is over every class of any of them.

    inputs: width of x. classes: how many there may be. memory: examples kept of each task, drawn at random; with 0 an
    old class keeps the statistics of the encoder that it was learned with. hidden, embedding: of the encoder, one
    hidden layer. epochs, batch, rate: Adam's, on batches of which half is from memory once there is some. spread:
    variance within a class. seed: of everything random.

    The encoder learns by the log-loss of a batch's labels, each predicted from the statistics of the others in the
    batch. Raises UsageError for sizes below one, unknown labels, and predictions before anything was learned.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        memory: int = 1000,
        hidden: int = 256,
        embedding: int = 128,
        epochs: int = 50,
        batch: int = 64,
        rate: float = 1e-4,
        spread: float = 1.0,
        seed: int = 0,
    ) -> None:
        sizes = {"inputs": inputs, "classes": classes, "hidden": hidden, "embedding": embedding, "batch": batch}
        if bad := [name for name, size in sizes.items() if size < 1]:
            raise UsageError(f"ProtoCL({bad[0]}={sizes[bad[0]]}): sizes are 1 or more; call ProtoCL(784, 10)")
        if memory < 0 or epochs < 1 or not spread > 0 or not rate > 0:
            raise UsageError(
                f"ProtoCL(memory={memory}, epochs={epochs}, spread={spread}, rate={rate}): call ProtoCL(784, 10, "
                "memory=1000, epochs=50), memory 0 or more and the others positive"
            )
        self.classes, self.memory, self.epochs, self.batch, self.rate = classes, memory, epochs, batch, rate
        self.draw = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, embedding))
        self.prototypes = Prototypes(torch.zeros(classes, embedding), torch.zeros(classes), spread)
        self.kept_x, self.kept_y = torch.zeros(0, inputs), torch.zeros(0, dtype=torch.long)

    def learn(self, x: ArrayLike, y: ArrayLike) -> ProtoCL:
        """One task: examples x (n, inputs) and labels y (n,) of classes not learned before."""
        x, y = self._examples(x), torch.as_tensor(np.asarray(y), dtype=torch.long)
        if y.shape != (len(x),) or not len(x) or int(y.min()) < 0 or int(y.max()) >= self.classes:
            raise UsageError(
                f"learn(x {tuple(x.shape)}, y {tuple(y.shape)}): one label in 0 to {self.classes - 1} for each row; "
                "call model.learn(x, y)"
            )
        self._train(x, y)
        chosen = torch.randperm(len(x), generator=self.draw)[: self.memory]
        self.kept_x, self.kept_y = torch.cat([self.kept_x, x[chosen]]), torch.cat([self.kept_y, y[chosen]])
        self._recompute(x, y)
        return self

    def _train(self, x: Tensor, y: Tensor) -> None:
        optimiser = torch.optim.Adam(self.encoder.parameters(), self.rate)
        for _ in range(self.epochs):
            for at in torch.randperm(len(x), generator=self.draw).split(self.batch):
                some_x, some_y = x[at], y[at]
                if len(self.kept_x):
                    old = torch.randint(len(self.kept_x), (len(at),), generator=self.draw)
                    some_x, some_y = torch.cat([some_x, self.kept_x[old]]), torch.cat([some_y, self.kept_y[old]])
                loss = self._loss(some_x, some_y)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        z = self.encoder(x)
        told = Prototypes.of(z, y, self.classes, self.prototypes.spread).log_joint(z, but=y)
        return F.cross_entropy(told, y)

    @torch.no_grad()
    def _recompute(self, x: Tensor, y: Tensor) -> None:
        """Statistics of what is in memory, by the encoder as it is; without a memory, of the new task beside the
        old."""
        spread = self.prototypes.spread
        if self.memory:
            self.prototypes = Prototypes.of(self.encoder(self.kept_x), self.kept_y, self.classes, spread)
            return
        new = Prototypes.of(self.encoder(x), y, self.classes, spread)
        self.prototypes = Prototypes(
            self.prototypes.total + new.total, self.prototypes.number + new.number, self.prototypes.spread
        )

    @torch.no_grad()
    def predict_proba(self, x: ArrayLike) -> Floats:
        """Probabilities (n, classes) of x (n, inputs), of every class that was learned."""
        if not bool(self.prototypes.number.any()):
            raise UsageError("predict_proba(x) before anything was learned; call model.learn(x, y) first")
        told = self.prototypes.log_joint(self.encoder(self._examples(x)))
        return np.asarray(told.softmax(-1).double().numpy())

    def predict(self, x: ArrayLike) -> np.ndarray:
        """The most probable class of each row, (n,)."""
        return np.asarray(self.predict_proba(x).argmax(1))

    def _examples(self, x: ArrayLike) -> Tensor:
        found = torch.as_tensor(np.asarray(x), dtype=torch.float32)
        if found.ndim != 2 or found.shape[1] != self.kept_x.shape[1]:
            raise UsageError(f"x {tuple(found.shape)}: rows of {self.kept_x.shape[1]} numbers; flatten images first")
        return found
