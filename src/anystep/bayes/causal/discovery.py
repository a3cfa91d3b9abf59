"""Which causes does a table with dropouts show? One call for tests with testwise deletion and a search."""

from __future__ import annotations

from typing import Any, Literal

from anystep.bayes.causal.ges import ges
from anystep.bayes.causal.independence import Deletion, Independence
from anystep.bayes.causal.patterns import Marks
from anystep.bayes.causal.pc import pc
from anystep.errors import UsageError


def testwise_deletion_discovery(
    data: Any,
    method: Literal["pc", "ges"] = "pc",
    alpha: float = 0.01,
    penalty: float | None = None,
    delete: Deletion = "conditioned",
    placed: bool = True,
) -> Marks:
    """The pattern of causes: a bool table, [i, j] for i -> j, both ways where the direction is open.

    data: (rows, variables), 0 where a value dropped out. method: `pc` with tests at level alpha, or `ges` with a
    penalty per edge (None for log n). delete, placed: see `Independence`; the defaults are the method, the rest its
    ablations. Tends to the pattern of the causes of the values without dropouts, if these are linear, Gaussian and
    faithful, no common cause is hidden, and a dropout depends on nothing but the value (check with `dropout_check`).
    Raises UsageError for another table or option.
    """
    if method not in ("pc", "ges") or not 0 < alpha < 1:
        raise UsageError(f"testwise_deletion_discovery(data, method={method!r}, alpha={alpha}): 'pc' or 'ges', 0.01.")
    tests = Independence(data, delete, placed)
    return pc(tests, alpha) if method == "pc" else ges(tests, penalty)
