"""Shortest paths on graphs."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import INDICES, INTEGER, ROWS, STATES, VALUES, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LANES = 8


class _Graph(NamedTuple):
    """Nodes in topological order, and of each the edges that lead to it."""

    nodes: NDArray[np.int64]
    starts: NDArray[np.int64]
    edges: NDArray[np.int64]
    tails: NDArray[np.int64]


class ShortestPaths(mapgrad.InstanceSolver[mapgrad.ShortestPath, Any]):
    """Dynamic programming in topological order, eight rows side by side."""

    traits = mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)

    def init(self) -> _Graph:
        """Sort the nodes, and make the kernel ready."""
        _paths.ready()
        problem = self.problem
        sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(range(problem.num_nodes), ()))
        for tail, head in problem.edges.tolist():
            sorter.add(head, tail)
        tails, heads = problem.edges.T
        edges = np.argsort(heads, kind="stable")
        starts = np.zeros(problem.num_nodes + 1, dtype=np.int64)
        np.cumsum(np.bincount(heads, minlength=problem.num_nodes), out=starts[1:])
        return _Graph(np.array(list(sorter.static_order())), starts, edges, np.ascontiguousarray(tails[edges]))

    def solve_rows(self, state: _Graph, block: mapgrad.Block) -> None:
        """Write the edges of a best path of each row, and what it is worth."""
        theta = block.theta if block.forbidden is None else np.where(block.forbidden, -np.inf, block.theta)
        _paths.ready()(theta, *state, self.problem.source, self.problem.target, block.z, block.objective, block.status)


@kernel(ROWS, INDICES, INDICES, INDICES, INDICES, INTEGER, INTEGER, STATES, VALUES)
def _paths(theta, nodes, starts, edges, tails, source, target, z, objective):
    pass
