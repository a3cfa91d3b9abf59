"""Tests of conditional independence on data with dropouts: only rows whose conditioned variables are not zero.

If a dropout has no other cause than the variable itself, then two variables are independent given others, as they
would be without dropouts, exactly if they are so among the rows seen in which none of those *others* is zero (testwise
deletion). Zeros of the two themselves may stay: any function of a variable and its zeros will do in its place, so a
zero is put where the other variables say that it belongs.

Source: Dai, Ng, Luo, Spirtes, Stojanov and Zhang, Gene regulatory network inference in the presence of dropouts: a
causal view, ICLR 2024 (arXiv 2403.15500). Where zeros are put is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from scipy import special, stats

from anystep.errors import UsageError

Deletion = Literal["conditioned", "tested", "all", "none"]
Floats = np.ndarray[Any, np.dtype[np.float64]]
DELETIONS = ("conditioned", "tested", "all", "none")


class Independence:
    """Fisher's z test of partial correlation, for all pairs given the same variables at once, remembered.

    data: (rows, variables), 0 where a value dropped out. delete: which rows a test leaves out: those with a zero among
    the variables `conditioned` on (testwise deletion), or also among the two `tested`, or anywhere (`all`), or `none`.
    placed: put the zeros of the tested variables where `placement` does, instead of leaving them 0; with another
    deletion nothing is placed. With no condition, correlations are of ranks. Preserves nothing exactly: the level is
    asymptotic, for linear Gaussian models. Raises UsageError for data that are no finite table of two columns or more.
    """

    def __init__(self, data: Any, delete: Deletion = "conditioned", placed: bool = True) -> None:
        self.data: Floats = np.asarray(data, dtype=np.float64)
        if self.data.ndim != 2 or min(self.data.shape) < 2 or not np.all(np.isfinite(self.data)):
            raise UsageError("Independence(data): a finite table (rows, variables) with 0 where a value dropped out.")
        if delete not in DELETIONS:
            raise UsageError(f"Independence(data, delete={delete!r}): one of {', '.join(DELETIONS)}.")
        self.delete = delete
        self.there = self.data != 0
        self.rows, self.variables = self.data.shape
        self.weights = placement(self.data) if placed and delete == "conditioned" else None
        self._found: dict[tuple[int, ...], tuple[Floats, Floats]] = {}
        self._whole: Floats | None = None

    def correlations(self, given: Iterable[int] = ()) -> tuple[Floats, Floats]:
        """Partial correlations of all pairs, and their degrees of freedom n' - |given| - 3: two (v, v) tables.

        Pairs with no freedom left have correlation 0 and freedom 0; so have those with one of the variables given.
        """
        key = tuple(sorted(set(given)))
        if key not in self._found:
            self._found[key] = self._pairs(key) if self.delete == "tested" else self._all_pairs(key)
        return self._found[key]

    def z(self, given: Iterable[int] = ()) -> Floats:
        """Fisher's z of all pairs, standard normal where they are independent: (v, v)."""
        r, freedom = self.correlations(given)
        return np.asarray(np.sqrt(freedom) * np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)))

    def p(self, given: Iterable[int] = ()) -> Floats:
        """Two-sided p-values of all pairs: (v, v); 1 where rows are too few."""
        return np.asarray(special.erfc(np.abs(self.z(given)) / np.sqrt(2)))

    def rescaled(self, given: Iterable[int] = ()) -> Floats:
        """The partial correlations that would give the same z with no row left out: (v, v), for scores."""
        given = set(given)
        return np.asarray(np.tanh(self.z(given) / np.sqrt(max(self.rows - len(given) - 3, 1))))

    def _all_pairs(self, given: tuple[int, ...]) -> tuple[Floats, Floats]:
        if self.delete == "conditioned":
            return self._within(self.there[:, list(given)].all(1), given, slice(None))
        kept = self.there.all(1) if self.delete == "all" else np.ones(self.rows, dtype=bool)
        if not given:
            return self._within(kept, given, slice(None))
        if self._whole is None:  # the same rows for every test: one covariance does
            self._whole = _covariance(self.data[kept])
        return _partial(self._whole, list(given), int(kept.sum()) - len(given) - 3)

    def _pairs(self, given: tuple[int, ...]) -> tuple[Floats, Floats]:
        r, freedom = np.zeros((2, self.variables, self.variables))
        kept = self.there[:, list(given)].all(1)
        for i in range(self.variables):
            for j in range(i):
                pair, df = self._within(kept & self.there[:, i] & self.there[:, j], given, [i, j])
                r[i, j] = r[j, i] = pair[0, 1]
                freedom[i, j] = freedom[j, i] = df[0, 1]
        return r, freedom

    def _within(self, kept: Any, given: tuple[int, ...], which: Any) -> tuple[Floats, Floats]:
        x = self.data[kept]
        tested = x[:, which]
        size, freedom = tested.shape[1], len(x) - len(given) - 3
        if freedom <= 0:
            return np.zeros((size, size)), np.zeros((size, size))
        if not given:
            tested = tested if self.weights is None else _placed(x, self.weights)
            return _partial(_covariance(stats.rankdata(tested, axis=0)), [], freedom)
        if self.weights is None:
            both = _covariance(np.concatenate([tested, x[:, list(given)]], 1))
            r, df = _partial(both, list(range(size, size + len(given))), freedom)
            r, df = r[:size, :size], df[:size, :size]
        else:
            r, df = _partial(_covariance(_left_over(x, given, self.weights)), [], freedom)
        if which == slice(None):
            r[list(given)], r[:, list(given)] = 0, 0
        return r, df


def placement(data: Floats) -> Floats:
    """How much each variable's value counts and how much its being there, weights (variables, 2).

    They are those with which the other variables, in the same two parts, predict their sum best (the first canonical
    variate). So dropouts that depend on the value count as low, or high, and those at random as nothing known; at which
    number the data put a dropout does not matter.
    """
    size, there = data.shape[1], data != 0
    count = np.maximum(there.sum(0), 1)
    parts = np.stack([np.where(there, data - data.sum(0) / count, 0), there - there.mean(0)], 2)
    scale = np.sqrt((parts**2).mean(0))
    scale = np.where(scale > 0, scale, 1)
    flat = (parts / scale).reshape(len(data), 2 * size)
    moments = (flat.T @ flat / len(data)).reshape(size, 2, size, 2)
    weights = np.zeros((size, 2))
    for v in range(size):
        others = [u for u in range(size) if u != v]
        cross = moments[v][:, others].reshape(2, -1)
        among = moments[others][:, :, others].reshape(2 * len(others), -1)
        predicted = cross @ np.linalg.pinv(among, hermitian=True) @ cross.T
        own, turn = np.linalg.eigh(moments[v, :, v])
        if own[-1] > 1e-9:
            white = turn[:, own > 1e-9] / np.sqrt(own[own > 1e-9])
            best = white @ np.linalg.eigh(white.T @ predicted @ white)[1][:, -1] / scale[v]
            weights[v] = best * (1 if best[0] >= 0 else -1)  # larger values count more
    return weights


def _placed(x: Floats, weights: Floats) -> Floats:
    there = x != 0
    value = np.where(there, x - x.sum(0) / np.maximum(there.sum(0), 1), 0)
    return np.asarray(value * weights[:, 0] + there * weights[:, 1])


def _left_over(x: Floats, given: tuple[int, ...], weights: Floats) -> Floats:
    """What the variables given leave over of every other: (rows, variables).

    Values are regressed on them where they are, so that a dropout blurs no slope; being there everywhere.
    """
    there, w = (x != 0).astype(np.float64), x[:, list(given)]
    terms = np.column_stack([np.ones(len(x)), (w - w.mean(0)) / np.maximum(w.std(0), 1e-12)])
    size = terms.shape[1]
    squares = (there.T @ (terms[:, :, None] * terms[:, None]).reshape(len(x), -1)).reshape(-1, size, size)
    slopes = (np.linalg.pinv(squares, hermitian=True) @ (x.T @ terms)[:, :, None])[:, :, 0]
    value = there * (x - terms @ slopes.T)
    being = there - terms @ np.linalg.lstsq(terms, there, rcond=None)[0]
    return np.asarray(value * weights[:, 0] + being * weights[:, 1])


def _covariance(x: Floats) -> Floats:
    centred = x - x.mean(0)
    return np.asarray(centred.T @ centred / len(x))


def _partial(covariance: Floats, given: list[int], freedom: int) -> tuple[Floats, Floats]:
    """Correlations of what the variables given leave over: 0 for those that they leave nothing of."""
    size = len(covariance)
    if freedom <= 0:
        return np.zeros((size, size)), np.zeros((size, size))
    left = covariance
    if given:
        left = (
            covariance
            - covariance[:, given]
            @ np.linalg.pinv(covariance[np.ix_(given, given)], hermitian=True)
            @ (covariance[given])
        )
    variance = np.diag(left)
    alive = variance > 1e-10 * np.maximum(np.diag(covariance), 1e-300)
    scale = np.where(alive, 1 / np.sqrt(np.where(alive, variance, 1)), 0)
    r = left * scale[:, None] * scale
    np.fill_diagonal(r, 0)
    return r, np.full((size, size), float(freedom))
