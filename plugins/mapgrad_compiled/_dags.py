"""Best paths through directed graphs without cycles, at utilities of either sign: dynamic programming."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Final

import numpy as np

import mapgrad
from mapgrad_compiled._kernels import INDICES, INFEASIBLE, ROWS, STATES, STATUSES, VALUES, indices
from mapgrad_compiled._lanes import LANES, larger, load, minus, plus, spread, store

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST: Final = 2.0**960
"""Utilities up to here add up to less than the largest float64 number, whatever the path."""


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
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._graph = indices(starts, edges, np.searchsorted(nodes, tails[edges]))

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


@mapgrad.kernel(ROWS, INDICES, INDICES, INDICES, STATES, VALUES, STATUSES)
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
