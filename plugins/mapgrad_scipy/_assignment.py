"""Assignments of rows to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LinearSumAssignment(mapgrad.InstanceSolver[mapgrad.Assignment, None]):
    """Shortest augmenting paths on the dense matrix, square or not (Crouse, IEEE TAES 2016)."""

    traits = mapgrad.Traits(releases_gil=True)

    def solve(self, state: None, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the assignment as a 0/1 array of θ's shape [rows, cols]."""
        z = np.zeros(theta.shape)
        z[linear_sum_assignment(theta, maximize=True)] = 1
        return z

    def solve_rows(self, state: None, block: mapgrad.Block) -> None:
        """Solve all rows, and write their 0/1 arrays at once: twice as fast as row after row up to 10 × 10."""
        rows = block.theta.reshape(-1, *self.problem.shape)
        pairs = [linear_sum_assignment(theta, maximize=True) for theta in rows]
        chosen = np.array(pairs, dtype=np.int64).reshape(len(rows), 2, min(self.problem.shape))
        z = block.z.reshape(rows.shape)
        z[...] = 0
        z[np.arange(len(rows))[:, None], chosen[:, 0], chosen[:, 1]] = 1
