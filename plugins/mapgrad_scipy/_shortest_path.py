"""Shortest paths on grids and graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from scipy.sparse.csgraph import dijkstra

import mapgrad
from mapgrad_scipy._dags import Dag
from mapgrad_scipy._graphs import sparse_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEW_EDGES: Final = 400
"""Up to here a pass in Python takes less time than a call of SciPy, which spends some 20 µs before it begins."""


class _Paths(Protocol):
    def shortest_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return what a shortest path is made of, cells or edges, by flat indices into θ."""
        ...


class _Grid:
    def __init__(self, problem: mapgrad.GridShortestPath) -> None:
        cells = np.arange(problem.height * problem.width).reshape(problem.shape)
        neighbors = [(cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])]
        if problem.neighbors == 8:
            neighbors += [(cells[1:, 1:], cells[:-1, :-1]), (cells[1:, :-1], cells[:-1, 1:])]
        one, other = (np.concatenate([cell.ravel() for cell in side]) for side in zip(*neighbors, strict=True))
        self._graph, _ = sparse_graph(cells.size, np.concatenate([one, other]), np.concatenate([other, one]))
        self._start, self._goal = (int(cells[end]) for end in (problem.start, problem.goal))

    def shortest_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return the cells of a shortest path by their flat indices."""
        # An edge costs what its head does: the start's own cost is missing from every path alike.
        self._graph.data[:] = -theta.ravel()[self._graph.indices]
        _, previous = dijkstra(self._graph, indices=self._start, return_predecessors=True)
        return _nodes(previous, self._start, self._goal)


class _Graph:
    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        tails, heads = problem.edges.T
        if not problem.directed:
            tails, heads = np.concatenate([tails, heads]), np.concatenate([heads, tails])
        self._graph, entries = sparse_graph(problem.num_nodes, tails, heads)
        self._edges = entries % len(problem.edges)
        self._parallel: dict[tuple[int, int], list[int]] = {}
        for entry, edge in zip(entries.tolist(), self._edges.tolist(), strict=True):
            self._parallel.setdefault((int(tails[entry]), int(heads[entry])), []).append(edge)
        self._source, self._target = problem.source, problem.target

    def shortest_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return the edges of a shortest path by their indices."""
        self._graph.data[:] = -theta[self._edges]
        _, previous = dijkstra(self._graph, indices=self._source, return_predecessors=True)
        nodes = _nodes(previous, self._source, self._target)
        return [max(self._parallel[step], key=theta.item) for step in pairwise(nodes)]


class _Dag:
    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        self._graph, self.dag = _Graph(problem), Dag(problem)

    def shortest_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return the edges of a shortest path by their indices."""
        if len(theta) > _FEW_EDGES and theta.max() <= 0:
            return self._graph.shortest_path(theta)
        return self.dag.best_path(theta)


def _nodes(previous: NDArray[np.int32], start: int, goal: int) -> list[int]:
    """Return the nodes of the path that csgraph's predecessors describe, in the order they are visited."""
    nodes = [goal]
    while nodes[-1] != start:
        nodes.append(previous.item(nodes[-1]))
    return nodes[::-1]


class Dijkstra(mapgrad.InstanceSolver[mapgrad.GridShortestPath | mapgrad.ShortestPath, _Paths]):
    """Dijkstra's algorithm; one pass in topological order for DAGs that are small or have negative costs.

    SciPy's own algorithm for negative costs, Bellman–Ford, takes nodes × edges steps whatever the graph. The graph is
    built once a worker; a row only writes its costs into it. Many rows of a DAG go through it side by side.
    """

    traits = mapgrad.Traits(releases_gil=False)

    def init(self) -> _Paths:
        """Build the graph."""
        if isinstance(self.problem, mapgrad.GridShortestPath):
            return _Grid(self.problem)
        return _Dag(self.problem) if self.problem.domain is mapgrad.Domain.REAL else _Graph(self.problem)

    def solve(self, state: _Paths, theta: NDArray[np.float64], request: mapgrad.Request) -> NDArray[np.float64]:
        """Return the path's cells or edges as a 0/1 array of θ's shape."""
        z = np.zeros(theta.shape)
        z.flat[state.shortest_path(theta)] = 1
        return z

    def solve_rows(self, state: _Paths, block: mapgrad.Block) -> None:
        """Write the path of each row of a block."""
        if isinstance(state, _Dag) and len(block) >= state.dag.many:
            state.dag.best_paths(block.theta, block.z)
        else:
            super().solve_rows(state, block)
