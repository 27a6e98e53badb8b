"""Assignments of rows to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LinearSumAssignment(mapgrad.InstanceSolver):
    """Shortest augmenting paths on the dense matrix, square or not (Crouse, IEEE TAES 2016)."""

    traits = mapgrad.Traits(releases_gil=True)

    def solve(
        self, state: None, theta: NDArray[np.float64], start: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Return the assignment as a 0/1 array of θ's shape [rows, cols]."""
        z = np.zeros(theta.shape)
        z[linear_sum_assignment(theta, maximize=True)] = 1
        return z
