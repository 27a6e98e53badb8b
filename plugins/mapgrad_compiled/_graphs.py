"""Paths through graphs with cycles, at costs that aren't negative: rounds over all nodes, eight rows side by side."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import (
    INDICES,
    INFEASIBLE,
    INTEGER,
    ROWS,
    STATES,
    STATUSES,
    VALUES,
    indices,
    subroutine,
)
from mapgrad_compiled._lanes import LANES, larger, load, minus, smaller, spread, store
from mapgrad_compiled._search import UNFINISHED, Search

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Graph:
    """A graph: for each node that can be reached, in the order of the fewest steps to it, the arcs that lead there.

    Attributes:
        most_rounds: After so many rounds, rows are left to Dijkstra's algorithm, which takes about as long: some 50 ns
            for a node and 1 ns for an arc, where an arc takes .6 ns in each round.
    """

    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        self._kernel = _rounds.ready()
        tails, heads = problem.edges.T
        edges = np.arange(len(tails))
        if not problem.directed:
            tails, heads, edges = np.append(tails, heads), np.append(heads, tails), np.append(edges, edges)
        self._search = Search(problem.num_nodes, tails, heads, edges, problem.source, problem.target)
        place = _places(problem.num_nodes, tails, heads, problem.source)
        arcs = np.lexsort((edges, place[heads]))
        arcs = arcs[(tails != heads)[arcs] & (heads != problem.source)[arcs] & (place >= 0)[tails[arcs]]]
        counts = np.bincount(place[heads[arcs]], minlength=place.max() + 1)
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._graph = *indices(starts, place[tails[arcs]], edges[arcs]), int(place[problem.target])
        self.most_rounds = 4 + 120 * len(counts) // max(len(arcs), 1)

    def solve(self, theta: NDArray[np.float64], block: mapgrad.Block) -> bool:
        """Write the answers of rows θ [m, E] to a block; tell whether there are rows without a path."""
        failed, unfinished = self._kernel(theta, *self._graph, self.most_rounds, block.z, block.objective, block.status)
        return (unfinished and self._search.finish(theta, block)) or failed


def _places(num_nodes: int, tails: NDArray[np.int64], heads: NDArray[np.int64], source: int) -> NDArray[np.int64]:
    """Number the nodes in the order in which they are found from the source, breadth first; −1 if they aren't."""
    leaving: list[list[int]] = [[] for _ in range(num_nodes)]
    for tail, head in zip(tails.tolist(), heads.tolist(), strict=True):
        leaving[tail].append(head)
    place = np.full(num_nodes, -1)
    place[source] = 0
    queue, found = deque([source]), 1
    while queue:
        for head in leaving[queue.popleft()]:
            if place[head] < 0:
                place[head] = found
                found += 1
                queue.append(head)
    return place


@mapgrad.kernel(ROWS, INDICES, INDICES, INDICES, INTEGER, INTEGER, STATES, VALUES, STATUSES)
def _rounds(theta, starts, tails, edges, target, most_rounds, z, objective, status):
    """Lower each node's cost by the arcs that lead there, forwards and backwards in turn, until nothing changes.

    The arcs to node v lie from starts[v] to starts[v + 1]; paths begin at node 0.
    """
    num_nodes = len(starts) - 1
    cost, utility = np.empty((num_nodes, LANES)), np.empty((theta.shape[1], LANES))
    changes = np.empty((1, LANES))
    queue, following, by = np.empty(num_nodes, np.int64), np.empty(num_nodes, np.int64), np.empty(num_nodes, np.int64)
    seen = np.full(num_nodes, -1)
    failed = unfinished = False
    for first in range(0, len(theta), LANES):
        for edge in range(theta.shape[1]):
            for lane in range(LANES):
                utility[edge, lane] = theta[min(first + lane, len(theta) - 1), edge]
        cost[:] = np.inf
        cost[0] = 0
        changes[:] = 1
        count = 0
        while changes.max() > 0 and count < most_rounds:
            sunk = spread(0.0)
            for number in range(1, num_nodes):
                node = number if count % 2 == 0 else num_nodes - number
                before = load(cost, node)
                value = before
                for i in range(starts[node], starts[node + 1]):
                    value = smaller(minus(load(cost, tails[i]), load(utility, edges[i])), value)
                sunk = larger(minus(before, value), sunk)  # not where both are infinite, which makes NaN
                store(cost, node, value)
            store(changes, 0, sunk)
            count += 1
        for lane in range(min(LANES, len(theta) - first)):
            row = first + lane
            if changes[0, lane] > 0:
                status[row] = UNFINISHED
                unfinished = True
            elif cost[target, lane] == np.inf:
                status[row] = INFEASIBLE
                failed = True
            else:
                objective[row] = 0.0 - cost[target, lane]
                z[row, :] = 0.0
                _walk_back(cost, utility, lane, starts, tails, edges, target, queue, following, by, seen, row)
                node = 0
                while node != target:
                    z[row, by[node]] = 1.0
                    node = following[node]
    return failed, unfinished


@subroutine
def _walk_back(cost, utility, lane, starts, tails, edges, target, queue, following, by, seen, row):
    """Find what follows on each node, along a path of as few edges as possible among those that cost least.

    From the target, breadth first, it goes to where an arc comes from whose cost and that of its tail make up the
    node's: the same sums again, so they are equal to the last bit. Where edges cost nothing they may lie in a circle.
    """
    queue[0], seen[target] = target, row
    done, size = 0, 1
    while seen[0] != row:
        node = queue[done]
        done += 1
        for i in range(starts[node], starts[node + 1]):
            tail = tails[i]
            if cost[tail, lane] - utility[edges[i], lane] == cost[node, lane] and seen[tail] != row:
                following[tail], by[tail], seen[tail] = node, edges[i], row
                queue[size] = tail
                size += 1
