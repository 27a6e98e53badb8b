"""Arborescences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Edmonds(mapgrad.InstanceSolver[mapgrad.Arborescence, "NDArray[np.int64]"]):
    """The algorithm of Chu and Liu (1965) and Edmonds (1967), with all cycles of a graph contracted at once.

    Each node takes the best arc that enters it. Where these form cycles, each cycle becomes one node, and an arc into
    it is worth what it adds to the best arc of the node where it enters; at the end it replaces that arc.
    """

    traits = mapgrad.Traits(releases_gil=False, masks=True)

    def init(self) -> NDArray[np.int64]:
        """Return the arcs that an arborescence may have."""
        tails, heads = self.problem.arcs.T
        return np.flatnonzero((tails != heads) & (heads != self.problem.root))

    def solve(self, state: NDArray[np.int64], theta: NDArray[np.float64], request: mapgrad.Request) -> mapgrad.Solution:
        """Return the arborescence's arcs as a 0/1 array of θ's shape [E]."""
        arcs = state if request.forbidden is None else state[~request.forbidden[state]]
        (tails, heads), weights, num_nodes = self.problem.arcs.T, theta, self.problem.num_nodes
        rounds: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        while True:
            best = self._best(arcs, heads, weights, num_nodes)
            entered = best >= 0
            if np.count_nonzero(entered) < num_nodes - 1:
                return mapgrad.Solution(None, mapgrad.Status.INFEASIBLE)
            rounds.append((heads, best))
            came = np.append(0, np.cumsum(entered))
            parents = csr_array((np.ones(num_nodes - 1), tails[best[entered]], came), shape=(num_nodes, num_nodes))
            count, label = connected_components(parents, connection="strong")
            if count == num_nodes:
                break
            weights = weights - weights[best[heads]]
            tails, heads, num_nodes = label[tails], label[heads], count
            arcs = arcs[tails[arcs] != heads[arcs]]
        chosen = np.empty(0, dtype=np.int64)
        for heads, best in reversed(rounds):
            best[heads[chosen]] = chosen
            chosen = best[best >= 0]
        z = np.zeros(theta.shape)
        z[chosen] = 1
        return mapgrad.Solution(z)

    @staticmethod
    def _best(
        arcs: NDArray[np.int64], heads: NDArray[np.int64], weights: NDArray[np.float64], num_nodes: int
    ) -> NDArray[np.int64]:
        """Return the best of some arcs into each node, the first one of equals; -1 where there is none."""
        ordered = arcs[np.lexsort((-weights[arcs], heads[arcs]))]
        nodes, first = np.unique(heads[ordered], return_index=True)
        best = np.full(num_nodes, -1)
        best[nodes] = ordered[first]
        return best
