"""Spanning trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree

import mapgrad
from mapgrad_scipy._graphs import sparse_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array


class _Model(NamedTuple):
    graph: csr_array
    edges: NDArray[np.int64]


class Kruskal(mapgrad.InstanceSolver[mapgrad.SpanningTree, _Model]):
    """Kruskal's algorithm, on ranks.

    Which trees are best depends on the order of the utilities alone. So edges are weighed by their place in it,
    counted from 1: SciPy, which drops edges of weight zero from its answer, keeps them all, and a weight in the answer
    names its edge.
    """

    traits = mapgrad.Traits(releases_gil=False, scale_free=True)

    def init(self) -> _Model:
        """Build the graph."""
        tails, heads = self.problem.edges.T
        return _Model(*sparse_graph(self.problem.num_nodes, tails, heads))

    def solve(self, state: _Model, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the tree's edges as a 0/1 array of θ's shape [E]."""
        best_first = np.argsort(-theta, kind="stable")
        places = np.empty(len(theta))
        places[best_first] = np.arange(1, len(theta) + 1)
        state.graph.data[:] = places[state.edges]
        z = np.zeros(theta.shape)
        z[best_first[minimum_spanning_tree(state.graph).data.astype(np.int64) - 1]] = 1
        return z
