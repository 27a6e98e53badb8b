"""Shortest paths on grids and graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

import mapgrad
from mapgrad_networkx._edges import NodePairs

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Grid:
    def __init__(self, problem: mapgrad.GridShortestPath) -> None:
        product = nx.strong_product if problem.neighbors == 8 else nx.cartesian_product
        cells: nx.Graph[Any] = product(nx.path_graph(problem.height), nx.path_graph(problem.width))
        self._graph = nx.convert_node_labels_to_integers(cells)
        self._start, self._goal = (row * problem.width + column for row, column in (problem.start, problem.goal))

    def shortest_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return the cells of a shortest path by their flat indices."""
        cost = (-theta).ravel().tolist()

        def weight(_tail: int, head: int, _attributes: object) -> float:
            return cost[head]  # the start's own cost is missing from every path alike

        return nx.shortest_path(self._graph, self._start, self._goal, weight)


class _Graph:
    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        self._edges = NodePairs(problem.edges, directed=problem.directed)
        self._graph = nx.DiGraph() if problem.directed else nx.Graph()
        self._graph.add_nodes_from(range(problem.num_nodes))
        self._graph.add_edges_from((u, v, {"pair": number}) for number, (u, v) in enumerate(self._edges.pairs))
        self._source, self._target = problem.source, problem.target

    def shortest_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return the edges of a shortest path by their indices."""
        best = self._edges.best_edges(theta)
        cost = (-theta[best]).tolist()

        def weight(_tail: int, _head: int, attributes: dict[str, int]) -> float:
            return cost[attributes["pair"]]

        if min(cost) >= 0:
            nodes = nx.shortest_path(self._graph, self._source, self._target, weight)
        else:
            previous, _ = nx.goldberg_radzik(self._graph, self._source, weight)
            nodes = nx.reconstruct_path(self._source, self._target, {self._source: previous})
        return [best[self._graph.edges[step]["pair"]] for step in pairwise(nodes)]


class Dijkstra(mapgrad.InstanceSolver[mapgrad.GridShortestPath | mapgrad.ShortestPath, _Grid | _Graph]):
    """Dijkstra's algorithm from both ends; Goldberg and Radzik's for rows with negative costs, which only DAGs allow.

    On DAGs the latter's time is linear in practice; NetworkX's Bellman–Ford takes some twenty times as long at a
    thousand nodes. The graph is built once a worker, and a row's costs reach it through a weight function that looks
    them up in a list: cheaper than to write them on the edges.
    """

    traits = mapgrad.Traits(releases_gil=False)

    def init(self) -> _Grid | _Graph:
        """Build the graph."""
        if isinstance(self.problem, mapgrad.GridShortestPath):
            return _Grid(self.problem)
        return _Graph(self.problem)

    def solve(self, state: _Grid | _Graph, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the path's cells or edges as a 0/1 array of θ's shape."""
        z = np.zeros(theta.shape)
        z.flat[state.shortest_path(theta)] = 1
        return z
