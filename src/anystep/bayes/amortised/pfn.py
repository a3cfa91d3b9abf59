"""Predictions of a prior-fitted network, in scikit-learn's manner, and whether its prior is one to ask.

Source: Müller et al., "Transformers Can Do Bayesian Inference" (arXiv 2112.10510, ICLR 2022); the check is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from anystep.bayes.amortised.bars import Bars
from anystep.bayes.amortised.pfn_heads import Gaussian
from anystep.bayes.amortised.pfn_recipe import PFN, PFNRecipe, trained
from anystep.errors import UsageError
from anystep.process import Floats

TOKENS = 60_000  # of one pass through the network, so that many datasets need little memory


@dataclass(frozen=True)
class PriorCheck:
    """How usual contexts are under a network's prior, by the network's own account.

    p: (), or (sets,), two-sided: under the prior at most q with chance at most q, for any q, since a context and the
    draws it is compared with are exchangeable. log_marginal: log density of each context's y given its x, as the
    network sees it. typical: that of prior draws of the same size, their 5%, 50% and 95% quantiles.
    """

    p: Floats
    log_marginal: Floats
    typical: Floats


class PriorFittedNetwork:
    """Posterior predictive distributions in one forward pass, of a network that was trained on draws of a prior.

    `fit` only stores the context. Preserves nothing exactly: predictions are those of the exact posterior up to a gap
    which training shrinks (measured on the docs page), for data that the prior could have drawn. Outside the prior
    they are wrong without a sign of it: ask `check`. They do not depend on the order of the context (up to rounding).

    X is (points, features) of one dataset or (sets, points, features) of many of one size, at once; all results have
    the same leading dimensions, as numpy arrays. Features and y are in the units of the recipe's prior.

    recipe: what to train, once; the network is then kept in the cache folder. model: a `PFN` that is trained already,
    of this recipe. say: told how training goes. Raises UsageError for arrays of other shapes, contexts larger than
    the recipe's, and for questions that the kind of y has no answer to.
    """

    def __init__(
        self, recipe: PFNRecipe | None = None, model: PFN | None = None, say: Callable[[str], None] = print
    ) -> None:
        self.recipe = recipe or PFNRecipe()
        self.model = model or trained(self.recipe, say)
        self._context: tuple[Tensor, Tensor] | None = None
        self._one = True
        self._typical: dict[tuple[int, int, int], Floats] = {}

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Store the context: X (points, features) and y (points,), or many; no points at all ask the prior itself."""
        x, one = self._points(X, "fit")
        told = torch.as_tensor(np.asarray(y, dtype=np.float64)).float()
        told = told[None] if one else told
        if told.shape != x.shape[:2]:
            raise UsageError(f"fit(X {tuple(np.shape(X))}, y {tuple(np.shape(y))}): one number of y for each point.")
        if x.shape[1] > self.recipe.context:
            raise UsageError(
                f"fit({x.shape[1]} points): this network learned contexts of at most {self.recipe.context}; "
                f"PriorFittedNetwork(replace(recipe, context={x.shape[1]}, points={x.shape[1] + 20}))."
            )
        if not bool(torch.isfinite(told).all()) or (self.labels and not bool(((told == 0) | (told == 1)).all())):
            raise UsageError(f"fit(y): y is {'labels, 0 or 1' if self.labels else 'finite numbers'}; fit(X, y).")
        self._context, self._one = (x, told), one
        return self

    @property
    def labels(self) -> bool:
        """Whether y is a label, 0 or 1, and not a number."""
        return self.recipe.prior.classes > 0

    def predict(self, X: ArrayLike) -> Floats:
        """The expected y at each point; for labels the likelier one."""
        mean = self._said(X, lambda logits: self.model.head.mean(logits), "predict")
        return (mean > 0.5).astype(np.float64) if self.labels else mean

    def predict_proba(self, X: ArrayLike) -> Floats:
        """(..., points, 2): probabilities of labels 0 and 1."""
        if not self.labels:
            raise UsageError("predict_proba: this prior's y is a number; predict_quantiles(X) or log_prob(X, y).")
        one = self._said(X, lambda logits: self.model.head.mean(logits), "predict_proba")
        return np.stack([1 - one, one], -1)

    def predict_quantiles(self, X: ArrayLike, levels: Sequence[float] = (0.05, 0.5, 0.95)) -> Floats:
        """(..., points, levels): the y below which lies each level's share of the predictive distribution."""
        if not all(0 < level < 1 for level in levels):
            raise UsageError(f"predict_quantiles(levels={levels}): levels lie inside (0, 1); levels=(0.05, 0.5, 0.95).")
        head = self._density("predict_quantiles")

        def quantiles(logits: Tensor) -> Tensor:
            return torch.stack([head.quantile(logits, torch.full(logits.shape[:-1], float(q))) for q in levels], -1)

        return self._said(X, quantiles, "predict_quantiles")

    def sample(self, X: ArrayLike, n: int = 1, seed: int = 0) -> Floats:
        """(..., points, n): draws of y at each point, each from its own predictive distribution."""
        head, draw = self._density("sample"), torch.Generator().manual_seed(seed)
        return self._said(X, lambda logits: head.sample(logits, n, draw).movedim(0, -1), "sample")

    def log_prob(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """Log density, or log probability of a label, of y (..., points) at each point by itself."""
        told = torch.as_tensor(np.asarray(y, dtype=np.float64)).float()
        if told.shape != np.shape(X)[:-1]:
            raise UsageError(
                f"log_prob(X {tuple(np.shape(X))}, y {tuple(told.shape)}): one number of y for each point."
            )
        logits = torch.from_numpy(self._said(X, lambda logits: logits, "log_prob")).float()
        return self.model.head.log_prob(logits, told).double().numpy()

    def check(self, draws: int = 200, seed: int = 0) -> PriorCheck:
        """Whether the context looks like draws of the prior, x and y, by its marginal likelihood under the network.

        The marginal is the product of predictions of each point from those before it, in an order that `seed` draws,
        and is compared with that of `draws` datasets of the prior. A p near 0 says do not trust the predictions. The
        false-alarm rate is exact however good the network is (p <= q on at most a share q of the prior's own data);
        what it finds is only what makes the context's likelihood unusual, high or low: it says nothing of points
        that are asked about elsewhere, and has little power below about 10 points.
        """
        x, y = self._told("check")
        n = x.shape[1]
        if n == 0 or draws < 19:
            raise UsageError(f"check(draws={draws}) of {n} points: fit(X, y) some points first; check(draws=200).")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        found = self._marginal(x[:, order], y[:, order])
        key = (n, draws, seed)
        if key not in self._typical:
            draw = torch.Generator().manual_seed(seed + 1)
            self._typical[key] = self._marginal(*self.recipe.prior.draw(draws, n, draw))
        typical = self._typical[key]
        low, high = (
            (1 + count.sum(-1)) / (draws + 1) for count in (typical <= found[:, None], typical >= found[:, None])
        )
        p, spread = np.minimum(1.0, 2 * np.minimum(low, high)), np.quantile(typical, [0.05, 0.5, 0.95])
        return PriorCheck(p[0], found[0], spread) if self._one else PriorCheck(p, found, spread)

    def _marginal(self, x: Tensor, y: Tensor) -> Floats:
        """(sets,) log density of y, by the chain rule: all prefixes of a set in one pass."""
        sets, n, d = x.shape
        count = torch.arange(n)
        found = []
        for at in range(0, sets, some := max(1, TOKENS // (n * (n + 1)))):
            part, told = x[at : at + some], y[at : at + some]
            rows = part[:, None].expand(-1, n, -1, -1).reshape(-1, n, d)
            values = told[:, None].expand(-1, n, -1).reshape(-1, n)
            logits = self._logits(rows, values, part.reshape(-1, 1, d), count.repeat(len(part)))
            found.append(self.model.head.log_prob(logits, told.reshape(-1, 1)).view(-1, n).double().sum(-1))
        return torch.cat(found).numpy()

    @torch.no_grad()
    def _logits(self, x: Tensor, y: Tensor, query: Tensor, count: Tensor | None = None) -> Tensor:
        """The network's; priors over labels do not tell 0 from 1, so for these the mean over both namings."""
        logits: Tensor = self.model(x, y, query, count)
        return (logits - self.model(x, 1 - y, query, count)) / 2 if self.labels else logits

    def _said(self, X: ArrayLike, of: Callable[[Tensor], Tensor], call: str) -> Floats:
        """What `of` makes of the logits at X, some sets at a time."""
        x, y = self._told(call)
        query, one = self._points(X, call)
        if one != self._one or len(query) != len(x):
            raise UsageError(
                f"{call}(X {tuple(np.shape(X))}): the context has {'one set' if self._one else f'{len(x)} sets'}; "
                "X is (points, features) for one, (sets, points, features) for as many."
            )
        some = max(1, TOKENS // max(1, x.shape[1] + query.shape[1]))
        parts = [slice(at, at + some) for at in range(0, len(x), some)]
        said = torch.cat([of(self._logits(x[part], y[part], query[part])) for part in parts]).double().numpy()
        return said[0] if one else said

    def _told(self, call: str) -> tuple[Tensor, Tensor]:
        if self._context is None:
            raise UsageError(f"{call} before fit: PriorFittedNetwork(recipe).fit(X, y).{call}(...).")
        return self._context

    def _density(self, call: str) -> Bars | Gaussian:
        if not isinstance(self.model.head, (Bars, Gaussian)):
            raise UsageError(f"{call}: this prior's y is a label; predict_proba(X).")
        return self.model.head

    def _points(self, X: ArrayLike, call: str) -> tuple[Tensor, bool]:
        """X as (sets, points, features), and whether it was one set."""
        x = torch.as_tensor(np.asarray(X, dtype=np.float64)).float()
        if x.ndim not in (2, 3) or x.shape[-1] != self.recipe.prior.features or not bool(torch.isfinite(x).all()):
            raise UsageError(
                f"{call}(X {tuple(x.shape)}): X is finite, (points, {self.recipe.prior.features}) "
                f"or (sets, points, {self.recipe.prior.features})."
            )
        return (x[None], True) if x.ndim == 2 else (x, False)
