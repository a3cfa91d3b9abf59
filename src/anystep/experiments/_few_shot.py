"""Small tables from scikit-learn as two-class problems with few labels: for a prior-fitted network and its baseline."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from anystep.bayes import PriorFittedNetwork
from anystep.errors import UsageError
from anystep.process import Floats

SIZES = (10, 20, 40)  # labelled rows
ASKED = 100  # rows to be told the label of


@dataclass(frozen=True)
class Table:
    """x: (rows, features), y: (rows,) of 0.0 and 1.0."""

    name: str
    x: Floats
    y: Floats


def components(x: Floats, d: int, standard: bool) -> Floats:
    """The first d principal components of all rows, labels unseen, scaled together to a mean square of 1."""
    x = x - x.mean(0)
    if standard:
        x = x / np.where(x.std(0) > 0, x.std(0), 1)
    scores = x @ np.linalg.svd(x, full_matrices=False)[2][:d].T
    return np.asarray(scores / np.sqrt((scores**2).mean()))


def tables(d: int = 10) -> tuple[Table, list[Table]]:
    """Breast cancer, and every pair of digits with one above 4: the others served to look at while this was made."""
    try:
        from sklearn.datasets import load_breast_cancer, load_digits
    except ImportError as error:
        raise UsageError('the tables come with scikit-learn: pip install "anystep[bayes]".') from error
    x, y = load_breast_cancer(return_X_y=True)
    cancer = Table("breast cancer", components(x, d, standard=True), y.astype(np.float64))
    x, y = load_digits(return_X_y=True)
    pairs = []
    for a, b in combinations(range(10), 2):
        if b > 4:
            both = (y == a) | (y == b)
            pairs.append(Table(f"digits {a} and {b}", components(x[both], d, standard=False), (y[both] == b) * 1.0))
    return cancer, pairs


def accuracies(model: PriorFittedNetwork, table: Table, splits: int, seed: int) -> dict[str, Floats]:
    """Per split, (splits, sizes): the network's accuracy, and logistic regression's at its default C = 1 and at 10."""
    rng = np.random.default_rng(seed)
    found = [one_size(model, table, n, splits, rng) for n in SIZES]
    return {name: np.stack([part[name] for part in found], -1) for name in found[0]}


def one_size(
    model: PriorFittedNetwork, table: Table, n: int, splits: int, rng: np.random.Generator
) -> dict[str, Floats]:
    from sklearn.linear_model import LogisticRegression

    rows: list[NDArray[np.int64]] = []
    while len(rows) < splits:
        order = rng.permutation(len(table.y))[: n + ASKED]
        if 0 < table.y[order[:n]].sum() < n:  # logistic regression needs both labels
            rows.append(order)
    x, y = table.x[np.stack(rows)], table.y[np.stack(rows)]
    said = {"network": model.fit(x[:, :n], y[:, :n]).predict(x[:, n:])}
    for c in (1.0, 10.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn's deprecations
            fits = [LogisticRegression(C=c, max_iter=1_000).fit(a[:n], b[:n]) for a, b in zip(x, y, strict=True)]
        said[f"logistic C={c:g}"] = np.stack([fit.predict(a[n:]) for fit, a in zip(fits, x, strict=True)])
    return {name: (labels == y[:, n:]).mean(1) for name, labels in said.items()}
