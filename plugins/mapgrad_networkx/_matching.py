"""Matchings of general graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import networkx as nx
import numpy as np

import mapgrad
from mapgrad_networkx._edges import NodePairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FRACTION_BITS: Final = 61


class Blossom(mapgrad.InstanceSolver[mapgrad.Matching, NodePairs]):
    """Edmonds' blossom algorithm, on integers.

    NetworkX promises an optimum for integer weights only, for which it also checks the proof it has built. Scaled
    rows are therefore rounded to multiples of 2⁻⁶¹, which moves an objective by less than float64's own rounding.
    """

    traits = mapgrad.Traits(releases_gil=False)

    def init(self) -> NodePairs:
        """Group parallel edges; the graph differs from row to row."""
        return NodePairs(self.problem.edges, directed=False)

    def solve(self, state: NodePairs, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the matched edges as a 0/1 array of θ's shape [E]."""
        largest = self.problem.cardinality == "maximum"
        best = state.best_edges(theta)
        weights = np.ldexp(theta[best], _FRACTION_BITS).tolist()
        # Only a matching of maximum cardinality takes edges that don't pay. Without them the search is up to twice as
        # fast, while to build a graph costs next to nothing.
        graph = nx.Graph()
        graph.add_edges_from(
            (u, v, {"weight": int(weight), "edge": edge})
            for (u, v), weight, edge in zip(state.pairs, weights, best, strict=True)
            if largest or weight > 0
        )
        z = np.zeros(theta.shape)
        z[[graph.edges[pair]["edge"] for pair in nx.max_weight_matching(graph, maxcardinality=largest)]] = 1
        return z
