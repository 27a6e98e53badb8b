"""Matchings of general graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import rustworkx as rx

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCALE: Final = 2.0**61


class _Model(NamedTuple):
    """The node pairs that edges join.

    Attributes:
        edges: [E], those that join a pair side by side, in ascending order.
        starts: [P], where each pair's edges begin among them.
        links: [P], the two nodes of each pair, and its number.
        numbers: The number of each pair, either node first.
        graph: All pairs, weighed by their numbers.
        size: Number of edges of a largest matching.
    """

    edges: NDArray[np.int64]
    starts: NDArray[np.int64]
    links: list[tuple[int, int, int]]
    numbers: dict[tuple[int, int], int]
    graph: rx.PyGraph[None, int]
    size: int


class Blossom(mapgrad.InstanceSolver[mapgrad.Matching, _Model]):
    """Edmonds' blossom algorithm as described by Galil (ACM Computing Surveys 18, 1986), on integers.

    Rows come scaled to |θ| < 1 and are cut to multiples of 2⁻⁶¹ here. A matching of m edges thereby gains or loses less
    than m 2⁻⁶¹, so the best one on integers is within m 2⁻⁶⁰ of the optimum. To miss 1e-9 of the row's scale, which is
    at least ½, takes 5·10⁸ matched edges, more than fit into memory.

    rustworkx computes with integers of 128 bits, and they can't overflow: of n nodes, those without an edge share one
    dual variable. It falls from the largest weight to no less than what an alternating path is worth, at most n
    weights, and meanwhile no other one moves by more than twice as much: that is below 2⁶⁵ n.
    """

    traits = mapgrad.Traits(releases_gil=False, masks=True)

    def init(self) -> _Model:
        """Group parallel edges, and build the graph of all pairs."""
        nodes = np.sort(self.problem.edges, axis=1)
        edges = np.lexsort((nodes[:, 1], nodes[:, 0]))
        nodes = nodes[edges]
        starts = np.flatnonzero(np.append(True, (nodes[1:] != nodes[:-1]).any(axis=1)))
        links = [(u, v, number) for number, (u, v) in enumerate(nodes[starts].tolist())]
        numbers = {pair: number for u, v, number in links for pair in ((u, v), (v, u))}
        graph = _graph(links)
        return _Model(edges, starts, links, numbers, graph, len(rx.max_weight_matching(graph, max_cardinality=True)))

    def solve(
        self, state: _Model, theta: NDArray[np.float64], request: mapgrad.Request
    ) -> NDArray[np.float64] | mapgrad.Solution:
        """Return the matched edges as a 0/1 array of θ's shape [E]."""
        largest = self.problem.cardinality == "maximum"
        utility = theta if request.forbidden is None else np.where(request.forbidden, -np.inf, theta)
        best = self._best_edges(state, utility)
        # Only a matching of maximum cardinality takes edges that don't pay. The search is faster without them.
        usable = utility[best] > (-np.inf if largest else 0)
        graph = state.graph
        if not usable.all():
            graph = _graph([state.links[number] for number in np.flatnonzero(usable).tolist()])
        weights: list[int] = (_SCALE * theta[best]).astype(np.int64).tolist()
        pairs = rx.max_weight_matching(graph, max_cardinality=largest, weight_fn=weights.__getitem__)
        if largest and len(pairs) < state.size:
            return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
        z = np.zeros(theta.shape)
        z[best[[state.numbers[pair] for pair in pairs]]] = 1
        return z

    @staticmethod
    def _best_edges(state: _Model, utility: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return each pair's edge of the largest utility [E], the first one of equals: [P] indices."""
        if len(state.starts) == len(state.edges):
            return state.edges
        ordered = utility[state.edges]
        largest = np.maximum.reduceat(ordered, state.starts)
        best = np.flatnonzero(ordered == np.repeat(largest, np.diff(state.starts, append=len(ordered))))
        return state.edges[best[np.searchsorted(best, state.starts)]]


def _graph(links: list[tuple[int, int, int]]) -> rx.PyGraph[None, int]:
    graph: rx.PyGraph[None, int] = rx.PyGraph()
    graph.extend_from_weighted_edge_list(links)
    return graph
