"""Shortest paths on grids and graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

import mapgrad
from mapgrad_compiled._dags import LARGEST, Dag
from mapgrad_compiled._graphs import Graph
from mapgrad_compiled._grids import Grid
from mapgrad_compiled._kernels import utilities

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Paths: TypeAlias = Dag | Graph | Grid


class ShortestPaths(mapgrad.InstanceSolver[mapgrad.GridShortestPath | mapgrad.ShortestPath, _Paths]):
    """Dynamic programming on graphs without cycles, Dijkstra's algorithm on others, sweeps over grids.

    Rows lie eight side by side, but for Dijkstra's algorithm. Among paths worth the same it takes one that depends on
    nothing but the row.
    """

    traits = mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)

    def init(self) -> _Paths:
        """Sort the graph's edges, and make the kernels ready."""
        if isinstance(self.problem, mapgrad.GridShortestPath):
            return Grid(self.problem)
        return Dag(self.problem) if self.problem.domain is mapgrad.Domain.REAL else Graph(self.problem)

    def solve_rows(self, state: _Paths, block: mapgrad.Block) -> None:
        """Write a best path of each row, and what it is worth; INFEASIBLE where forbidden entries leave none."""
        theta = utilities(block)
        if state.solve(theta, block):
            size = np.abs(block.theta).max(axis=1)
            if size.max() > LARGEST:
                _solve_smaller(state, theta, np.where(size > LARGEST, 2.0**-64, 1.0), block)


def _solve_smaller(
    state: _Paths, theta: NDArray[np.float64], factors: NDArray[np.float64], block: mapgrad.Block
) -> None:
    """Solve rows θ [m, n] once more, scaled by powers of two [m], as their sums may overflow."""
    block.status.fill(mapgrad.Status.OPTIMAL)
    state.solve(theta * factors[:, None], block)
    with np.errstate(over="ignore"):  # a path may well be worth more than any number
        block.objective /= factors
