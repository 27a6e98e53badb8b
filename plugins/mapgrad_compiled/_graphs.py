"""Kernels for paths through graphs: dynamic programming where there is no cycle, Dijkstra's algorithm elsewhere."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import INDICES, INTEGER, ROWS, STATES, STATUSES, VALUES, kernel, subroutine
from mapgrad_compiled._lanes import LANES, larger, load, minus, plus, spread, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST: Final = 2.0**960
"""Utilities up to here add up to less than the largest float64 number, whatever the path."""

INFEASIBLE: Final = int(mapgrad.Status.INFEASIBLE)


class Dag:
    """A directed graph without cycles: what its paths from source to target use of it, in topological order."""

    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        self._kernel = _best_in_order.ready()
        sorter: TopologicalSorter[int] = TopologicalSorter({problem.source: ()})
        for tail, head in problem.edges.tolist():
            sorter.add(head, tail)
        order = {node: place for place, node in enumerate(sorter.static_order())}
        tails, heads = (np.array([order[node] for node in ends]) for ends in problem.edges.T.tolist())
        useful = _useful(order[problem.source], order[problem.target], tails, heads)
        edges = np.flatnonzero(useful)
        edges = edges[np.argsort(heads[edges], kind="stable")]
        nodes = np.unique([order[problem.source], *tails[edges], *heads[edges]])
        counts = np.bincount(np.searchsorted(nodes, heads[edges]), minlength=len(nodes))
        self._graph = np.concatenate([[0], np.cumsum(counts)]), edges, np.searchsorted(nodes, tails[edges])

    def solve(self, theta: NDArray[np.float64], block: mapgrad.Block) -> bool:
        """Write the answers of rows θ [m, E] to a block; tell whether one may be wrong, as |θ| exceeds `LARGEST`."""
        return self._kernel(theta, *self._graph, block.z, block.objective, block.status)


def _useful(source: int, target: int, tails: NDArray[np.int64], heads: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which edges [E] lie on a path from source to target, given nodes by their topological places."""
    reached, finishing = {source}, {target}
    steps = sorted(zip(tails.tolist(), heads.tolist(), strict=True))
    for tail, head in steps:
        if tail in reached:
            reached.add(head)
    for tail, head in reversed(steps):
        if head in finishing:
            finishing.add(tail)
    return np.isin(tails, list(reached)) & np.isin(heads, list(finishing))


@kernel(ROWS, INDICES, INDICES, INDICES, STATES, VALUES, STATUSES)
def _best_in_order(theta, starts, edges, tails, z, objective, status):
    """Find a best path from the first to the last node: best[v] = max over edges (u, v) of best[u] + θ.

    Edges lie by the place of their head, those of node v from starts[v] to starts[v + 1]. The way back takes, at each
    node, the first of its edges that attains its value: the same sums again, so they are equal to the last bit.
    """
    target = len(starts) - 2
    best, utility = np.empty((target + 1, LANES)), np.empty((theta.shape[1], LANES))
    most = np.empty((1, LANES))
    size = spread(0.0)
    for first in range(0, len(theta), LANES):
        for edge in range(theta.shape[1]):
            for lane in range(LANES):
                utility[edge, lane] = theta[min(first + lane, len(theta) - 1), edge]
        store(best, 0, spread(0.0))
        for node in range(1, target + 1):
            value = spread(-np.inf)
            for i in range(starts[node], starts[node + 1]):
                step = load(utility, edges[i])
                size = larger(larger(step, minus(spread(0.0), step)), size)
                value = larger(plus(load(best, tails[i]), step), value)
            store(best, node, value)
        for lane in range(min(LANES, len(theta) - first)):
            row = first + lane
            if best[target, lane] == -np.inf:
                status[row] = INFEASIBLE
                continue
            objective[row] = best[target, lane]
            z[row, :] = 0.0
            node = target
            while node != 0:
                i = starts[node]
                while best[tails[i], lane] + utility[edges[i], lane] != best[node, lane]:
                    i += 1
                z[row, edges[i]] = 1.0
                node = tails[i]
    store(most, 0, size)
    return most.max() > LARGEST


class Graph:
    """A graph whose edges cost nothing or something: for each node, the arcs that leave it."""

    def __init__(self, problem: mapgrad.ShortestPath) -> None:
        tails, heads = problem.edges.T
        entries = np.arange(len(tails))
        if not problem.directed:
            tails, heads, entries = np.append(tails, heads), np.append(heads, tails), np.append(entries, entries)
        self._search = Search(problem.num_nodes, tails, heads, entries, problem.source, problem.target)

    def solve(self, theta: NDArray[np.float64], block: mapgrad.Block) -> bool:
        """Write the answers of rows θ [m, E] to a block; tell whether one may be wrong, as |θ| exceeds `LARGEST`."""
        return self._search.solve(theta, block.z, block.objective, block.status)


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
        self._graph = starts, tails[arcs], heads[arcs], entries[arcs], source, target, own

    def solve(
        self,
        theta: NDArray[np.float64],
        z: NDArray[np.float64],
        objective: NDArray[np.float64],
        status: NDArray[np.int64],
    ) -> bool:
        """Write the answers of rows θ [m, n]; tell whether there are rows without a path."""
        return self._kernel(theta, *self._graph, z, objective, status)


@kernel(ROWS, INDICES, INDICES, INDICES, INDICES, INTEGER, INTEGER, INTEGER, STATES, VALUES, STATUSES)
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
