"""Dijkstra's algorithm, row by row: the safe one, where others would take too many rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNFINISHED: Final = int(mapgrad.Status.ERROR)
"""The status of rows that are left to `Search.finish`."""


class Search:
    """Dijkstra's algorithm between two nodes of a graph.

    Args:
        num_nodes: Number of nodes.
        tails: [A] where arcs begin.
        heads: [A] where they end.
        entries: [A] the entry of θ that prices each arc.
        source: Where paths begin.
        target: Where they end.
        own: The entry of θ that prices the source itself and belongs to each state; −1 for none.
    """

    def __init__(
        self,
        num_nodes: int,
        tails: NDArray[np.int64],
        heads: NDArray[np.int64],
        entries: NDArray[np.int64],
        source: int,
        target: int,
        own: int = -1,
    ) -> None:
        self._kernel = _nearest_first.ready()
        arcs = np.lexsort((entries, tails))
        arcs = arcs[tails[arcs] != heads[arcs]]
        starts = np.concatenate([[0], np.cumsum(np.bincount(tails[arcs], minlength=num_nodes))])
        self._graph = *indices(starts, tails[arcs], heads[arcs], entries[arcs]), source, target, own

    def solve(
        self,
        theta: NDArray[np.float64],
        z: NDArray[np.float64],
        objective: NDArray[np.float64],
        status: NDArray[np.int64],
    ) -> bool:
        """Write the answers of rows θ [m, n]; tell whether there are rows without a path."""
        return self._kernel(theta, *self._graph, z, objective, status)

    def finish(self, theta: NDArray[np.float64], block: mapgrad.Block) -> bool:
        """Do the same for those rows of a block whose status is `UNFINISHED`."""
        rows = np.flatnonzero(block.status == UNFINISHED)
        block.status[rows] = mapgrad.Status.OPTIMAL
        answers = block.z[rows], block.objective[rows], block.status[rows]
        failed = self.solve(theta[rows], *answers)
        block.z[rows], block.objective[rows], block.status[rows] = answers
        return failed


@mapgrad.kernel(ROWS, INDICES, INDICES, INDICES, INDICES, INTEGER, INTEGER, INTEGER, STATES, VALUES, STATUSES)
def _nearest_first(theta, starts, tails, heads, entries, source, target, own, z, objective, status):
    """Settle nodes in the order of their costs until the target is next; each came by one that was settled before it.

    So the way back ends at the source, also where arcs cost nothing. Nodes wait in a binary heap.
    """
    num_nodes = len(starts) - 1
    cost, by = np.empty(num_nodes), np.empty(num_nodes, np.int64)
    heap, place = np.empty(num_nodes, np.int64), np.empty(num_nodes, np.int64)
    failed = False
    for row in range(len(theta)):
        cost[:] = np.inf
        place[:] = -1
        cost[source] = -theta[row, own] if own >= 0 else 0.0
        heap[0], place[source] = source, 0
        size = 1
        while size > 0 and heap[0] != target:
            node = heap[0]
            size -= 1
            if size > 0:
                _sink(heap, place, cost, size)
            for arc in range(starts[node], starts[node + 1]):
                head = heads[arc]
                reached = cost[node] - theta[row, entries[arc]]
                if reached < cost[head]:
                    cost[head], by[head] = reached, arc
                    if place[head] < 0:
                        place[head] = size
                        size += 1
                    _rise(heap, place, cost, head)
        if cost[target] == np.inf:
            status[row] = INFEASIBLE
            failed = True
            continue
        objective[row] = 0.0 - cost[target]
        z[row, :] = 0.0
        if own >= 0:
            z[row, own] = 1.0
        node = target
        while node != source:
            z[row, entries[by[node]]] = 1.0
            node = tails[by[node]]
    return failed


@subroutine
def _rise(heap, place, cost, node):
    """Move a node up in the heap, from its place to below a parent that doesn't cost more."""
    here = place[node]
    while here > 0:
        parent = (here - 1) >> 1
        if cost[heap[parent]] <= cost[node]:
            break
        heap[here] = heap[parent]
        place[heap[here]] = here
        here = parent
    heap[here], place[node] = node, here


@subroutine
def _sink(heap, place, cost, size):
    """Move the node behind the heap's last into the root's place, and down until no child costs less."""
    node = heap[size]
    here = 0
    while True:
        child = 2 * here + 1
        if child >= size:
            break
        if child + 1 < size and cost[heap[child + 1]] < cost[heap[child]]:
            child += 1
        if cost[node] <= cost[heap[child]]:
            break
        heap[here] = heap[child]
        place[heap[here]] = here
        here = child
    heap[here], place[node] = node, here
