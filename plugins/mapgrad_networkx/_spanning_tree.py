"""Spanning trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx
import numpy as np

import mapgrad
from mapgrad_networkx._edges import NodePairs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Model(NamedTuple):
    graph: nx.Graph
    edges: NodePairs
    attributes: list[dict[str, Any]]


class Prim(mapgrad.InstanceSolver[mapgrad.SpanningTree, _Model]):
    """Prim's algorithm, on a simple graph: twice as fast as Kruskal's on a multigraph.

    Utilities are only compared, so their magnitude doesn't matter.
    """

    traits = mapgrad.Traits(releases_gil=False, scale_free=True)

    def init(self) -> _Model:
        """Build the graph and list its edges' attributes, pair by pair."""
        edges = NodePairs(self.problem.edges, directed=False)
        graph = nx.Graph()
        graph.add_edges_from(edges.pairs)
        return _Model(graph, edges, [graph.edges[pair] for pair in edges.pairs])

    def solve(self, state: _Model, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the tree's edges as a 0/1 array of θ's shape [E]."""
        best = state.edges.best_edges(theta)
        for attributes, edge, weight in zip(state.attributes, best, theta[best].tolist(), strict=True):
            attributes.update(edge=edge, weight=weight)
        z = np.zeros(theta.shape)
        tree = nx.maximum_spanning_edges(state.graph, algorithm="prim")
        z[[attributes["edge"] for _, _, attributes in tree]] = 1
        return z
