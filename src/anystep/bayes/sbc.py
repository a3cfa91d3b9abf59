"""Does an inference mean what it says? Ranks of prior draws among their posterior's are uniform if it does.

Source: Talts et al., "Validating Bayesian inference algorithms with simulation-based calibration" (2018, arXiv
1804.06788).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from anystep import keys as lineage
from anystep.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """ranks: (repetitions, k), how many of `draws` posterior draws lie below what the data came from."""

    ranks: NDArray[np.int64]
    draws: int

    def pvalues(self, bins: int = 20) -> Floats:
        """For each quantity, the chance of ranks as uneven as these if the inference is right (chi-squared).

        With k quantities and a false alarm wanted at rate a, compare each with a / k.
        """
        if bins < 2 or (self.draws + 1) % bins:
            raise UsageError(
                f"pvalues(bins={bins}): two or more, that divide draws + 1 = {self.draws + 1} into equal parts."
            )
        width = (self.draws + 1) // bins
        counts = np.stack([np.bincount(column // width, minlength=bins) for column in self.ranks.T])
        return np.asarray(stats.chisquare(counts, axis=1).pvalue)


def simulation_based_calibration(
    prior: Callable[[int, int], Floats],
    simulate: Callable[[Floats, int], Any],
    posterior: Callable[[Any, int, int], Floats],
    repetitions: int = 500,
    draws: int = 99,
    seed: int = 0,
) -> Ranks:
    """Draw parameters, data from each, posterior draws from each data set: where does each parameter rank among them?

    prior: (repetitions, seed) to parameters (repetitions, k). simulate: (parameters, seed) to as many data sets.
    posterior: (data sets, draws, seed) to draws (repetitions, draws, k), all data sets at once; draws of a chain are
    thinned until they are near independent, or ranks pile up at the ends. Equal values are ranked as below.

    Raises UsageError where shapes do not fit.
    """
    parameters = np.asarray(prior(repetitions, seed), dtype=np.float64)
    for_data, for_draws = (lineage.named(f"{seed} {what}") % 2**63 for what in ("data", "draws"))
    found = np.asarray(posterior(simulate(parameters, for_data), draws, for_draws), dtype=np.float64)
    wanted = (repetitions, draws, parameters.shape[-1])
    if parameters.ndim != 2 or len(parameters) != repetitions or found.shape != wanted:
        raise UsageError(f"the prior gave {parameters.shape} and the posterior {found.shape}; wanted {wanted}.")
    return Ranks((found < parameters[:, None]).sum(1), draws)
