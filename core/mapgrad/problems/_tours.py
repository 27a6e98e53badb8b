"""Round trips through all nodes of a complete graph."""

from __future__ import annotations

from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem
from mapgrad.problems._checks import integer
from mapgrad.problems._graphs import components
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


class TravelingSalesman(Problem):
    """All tours that visit each of n nodes once and return, as 0/1 vectors over the edges of the complete graph.

    Edges are undirected and in the order of `numpy.triu_indices(n, 1)`: (0, 1), (0, 2), …, (n - 2, n - 1).

    Args:
        n: Number of nodes, ≥ 3.

    Raises:
        ProblemError: n isn't an integer ≥ 3.
    """

    n: int

    def __init__(self, n: int) -> None:
        self.n = integer("n", n, 3, hint="a tour of fewer nodes would use an edge twice")

    @property
    def shape(self) -> tuple[int, ...]:
        """(n(n - 1)/2,), one entry for each edge."""
        return (self.n * (self.n - 1) // 2,)

    @cached_property
    def edges(self) -> NDArray[np.int64]:
        """The nodes of each edge, smaller first: [n(n - 1)/2, 2], read-only."""
        return frozen_array(np.stack(np.triu_indices(self.n, 1), axis=1), np.int64)

    @property
    def kappa(self) -> float:
        """n, the number of edges of every tour."""
        return float(self.n)

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The number of edges of every tour."""
        return {(0,): float(self.n)}

    def to_ilp(self) -> IntegerProgram:
        """Return the two-commodity flow program of Finke, Claus and Gunn (1984), of O(n²) size: the same feasible set.

        Node n is a copy of node 0, so that a tour is a path from 0 to n. Each of its edges carries n - 1 units, some
        one way and the rest the other way; both ends send n - 1 units out and every node between keeps 2.
        """
        n, (u, v) = self.n, self.edges.T
        edge, node = np.arange(len(u)), np.arange(1, n)
        leaving, coming = len(u) + node - 1, len(u) + n - 2 + node  # edges (0, i) and (i, n) of the path
        tails, heads = np.concatenate((u, node)), np.concatenate((v, np.full(n - 1, n)))
        used = np.concatenate((leaving, edge[n - 1 :], coming))  # which variable tells that the path has an edge
        link = np.arange(len(tails))
        ahead, back = 2 * (n - 1) + len(u) + link, 2 * (n - 1) + len(u) + len(link) + link
        equal = Rows(num_vars=2 * (n - 1) + len(u) + 2 * len(link))
        equal.add(np.zeros(n - 1), (node - 1, leaving, 1), (node - 1, coming, 1), (node - 1, node - 1, -1))
        equal.add(np.array([1] + [2] * (n - 1) + [1]), (tails, used, 1), (heads, used, 1))
        equal.add(np.zeros(len(link)), (link, ahead, 1), (link, back, 1), (link, used, 1 - n))
        kept = np.array([1 - n] + [2] * (n - 1) + [1 - n])
        equal.add(kept, (heads, ahead, 1), (tails, ahead, -1), (tails, back, 1), (heads, back, -1))
        upper = np.ones(equal.num_vars)
        upper[ahead[0] :] = n - 1
        return IntegerProgram(A_eq=equal.left, b_eq=equal.right, upper=upper, decision=edge)

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        number = np.zeros((self.n, self.n), dtype=np.int64)
        number[tuple(self.edges.T)] = np.arange(len(self.edges))
        number += number.T
        for order in permutations(range(1, self.n)):
            if order[0] < order[-1]:  # each tour in one of its two directions
                z = np.zeros(self.shape)
                z[number[(0, *order), (*order, 0)]] = 1
                yield z

    def is_state(self, z: NDArray[np.float64]) -> bool:
        chosen = self.edges[z == 1]
        degrees = np.bincount(chosen.ravel(), minlength=self.n)
        joined = components(self.n, [(u, v) for u, v in chosen.tolist()])
        return bool((degrees == 2).all()) and len(set(joined)) == 1
