"""Assignments of rows to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray


_State = tuple["nx.Graph[int]", list[dict[str, Any]]]


class FullMatching(mapgrad.InstanceSolver[mapgrad.Assignment, _State]):
    """Minimum-weight full matching of a complete bipartite graph, which NetworkX leaves to SciPy."""

    traits = mapgrad.Traits(releases_gil=False)

    def init(self) -> _State:
        """Build the graph and list its edges' attributes, row by row of θ."""
        rows, cols = self.problem.shape
        graph = nx.complete_bipartite_graph(rows, cols)
        return graph, [attributes for _, _, attributes in graph.edges(data=True)]

    def solve(self, state: _State, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the assignment as a 0/1 array of θ's shape [rows, cols]."""
        graph, edges = state
        for attributes, cost in zip(edges, (-theta).ravel().tolist(), strict=True):
            attributes["weight"] = cost
        rows = range(len(theta))
        partners = nx.bipartite.minimum_weight_full_matching(graph, rows)
        z = np.zeros(theta.shape)
        for row in rows:
            if row in partners:
                z[row, partners[row] - len(theta)] = 1
        return z
