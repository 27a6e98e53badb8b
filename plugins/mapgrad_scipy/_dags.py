"""Best paths through directed graphs without cycles, at utilities of either sign: row by row, or many rows at once."""

from __future__ import annotations

import math
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import mapgrad

_MOST_ROWS: Final = 512
_MOST_NUMBERS: Final = 2**23
"""Rows and utilities that are dealt with at once."""


class Dag:
    """A graph, whose edges are tried in the topological order of their tails.

    Args:
        problem: The problem.

    Attributes:
        many: From how many rows on `best_paths` takes less time than `best_path`, or SciPy, for one after the other.
    """

    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        self._num_nodes, self._source, self._target = problem.num_nodes, problem.source, problem.target
        self._edges: list[tuple[int, int]] = [(tail, head) for tail, head in problem.edges.tolist()]
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for tail, head in self._edges:
            sorter.add(head, tail)
        place = {node: number for number, node in enumerate(sorter.static_order())}
        self._in_order = sorted(
            ((edge, tail, head) for edge, (tail, head) in enumerate(self._edges)), key=lambda step: place[step[1]]
        )
        self._groups = self._grouped()
        steps = sum(len(edges) for _, edges in self._groups)
        count = len(self._edges)
        self.many = 5e-6 * steps / (min(9e-8 * count, 3e-5 + 4e-8 * count) - 1e-8 * count)  # seconds, both
        self._edge = np.concatenate([np.empty(0, dtype=np.int64), *(edges.ravel() for _, edges in self._groups)])
        self._tail = problem.edges[self._edge, 0]
        self._first, self._apart = np.zeros((2, self._num_nodes), dtype=np.int64)
        first = 0
        for nodes, edges in self._groups:
            self._first[nodes], self._apart[nodes] = first + np.arange(len(nodes)), len(nodes)
            first += edges.size

    def _grouped(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Return groups of nodes that have as many edges to them, and none among themselves, in topological order.

        Of each, the nodes [k] and the edges [d, k] that lead to them.
        """
        level = [0] * self._num_nodes
        entering: list[list[int]] = [[] for _ in level]
        for edge, tail, head in self._in_order:
            level[head] = max(level[head], level[tail] + 1)
            entering[head].append(edge)
        groups: dict[tuple[int, int], list[int]] = {}
        for node, edges in enumerate(entering):
            if edges and node != self._source:
                groups.setdefault((level[node], len(edges)), []).append(node)
        return [
            (np.array(nodes), np.array([entering[node] for node in nodes]).T) for _, nodes in sorted(groups.items())
        ]

    def best_path(self, theta: NDArray[np.float64]) -> list[int]:
        """Return the edges of a best path by their indices, for θ [E]."""
        utility = theta.tolist()
        best = [-math.inf] * self._num_nodes
        last_edge = [-1] * self._num_nodes
        best[self._source] = 0.0
        for edge, tail, head in self._in_order:
            reached = best[tail] + utility[edge]
            if reached > best[head]:
                best[head], last_edge[head] = reached, edge
        path: list[int] = []
        node = self._target
        while node != self._source:
            path.append(last_edge[node])
            node = self._edges[path[-1]][0]
        return path

    def best_paths(self, theta: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        """Write the edges of the same paths to z [m, E], for θ [m, E]."""
        portion = max(1, min(_MOST_ROWS, _MOST_NUMBERS // theta.shape[1]))
        for first in range(0, len(theta), portion):
            self._write_best_paths(theta[first : first + portion], z[first : first + portion])

    def _write_best_paths(self, theta: NDArray[np.float64], z: NDArray[np.float64]) -> None:
        utility = theta.T[self._edge]
        best = np.full((self._num_nodes, len(theta)), -np.inf)
        best[self._source] = 0
        chosen = np.zeros(best.shape, dtype=np.uint32)
        first = 0
        for nodes, edges in self._groups:
            value = np.full((len(nodes), len(theta)), -np.inf)
            which = np.zeros(value.shape, dtype=np.uint32)
            for number in range(len(edges)):
                last = first + len(nodes)
                reached = best[self._tail[first:last]]
                reached += utility[first:last]
                np.copyto(which, number, where=reached > value)
                np.maximum(value, reached, out=value)
                first = last
            best[nodes], chosen[nodes] = value, which
        z.fill(0)
        rows, node = np.arange(len(theta)), np.full(len(theta), self._target)
        while len(rows := rows[node != self._source]):
            node = node[node != self._source]
            entry = self._first[node] + self._apart[node] * chosen[node, rows]
            z[rows, self._edge[entry]] = 1
            node = self._tail[entry]
