"""Round trips through all nodes of a complete graph, undirected and directed."""

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


class AsymmetricTravelingSalesman(Problem):
    """All directed tours that visit each of n nodes once and return, as 0/1 matrices: row i goes on to column j.

    The diagonal is never chosen, whatever θ says there. It is best 0 or −inf: answers are as exact as θ's largest
    finite number allows, and one on the diagonal counts.

    Args:
        n: Number of nodes, ≥ 2.

    Raises:
        ProblemError: n isn't an integer ≥ 2.
    """

    n: int

    def __init__(self, n: int) -> None:
        self.n = integer("n", n, 2, hint="a tour leads from a node to another one and back")

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, n)."""
        return (self.n, self.n)

    @cached_property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """0 and 1, on the diagonal 0 and 0: two read-only arrays of shape (n, n)."""
        return frozen_array(np.zeros(self.shape), np.float64), frozen_array(1 - np.eye(self.n), np.float64)

    @property
    def kappa(self) -> float:
        """n, the number of arcs of every tour."""
        return float(self.n)

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The sums of each row and of each column, 1: every node is left once and entered once."""
        return {(0,): 1.0, (1,): 1.0}

    def to_ilp(self) -> IntegerProgram:
        """Return the flow program of Gavish and Graves (1978), of O(n²) size: the same feasible set.

        Each node is left once and entered once. Node 0 sends n - 1 units along the tour, of which every other node
        keeps one, so that no arc back to node 0 carries any.
        """
        n, node = self.n, np.arange(self.n)
        tails, heads = np.nonzero((node[:, None] != node) & (node != 0))
        uses, carries = tails * n + heads, n * n + np.arange(len(tails))
        most = np.where(tails == 0, n - 1, n - 2)
        equal, less = Rows(n * n + len(tails)), Rows(n * n + len(tails))
        equal.add(np.ones(n), (node[:, None], node[:, None] * n + node, 1))
        equal.add(np.ones(n), (node, node[:, None] * n + node, 1))
        equal.add(np.where(node == 0, 1 - n, 1), (heads, carries, 1), (tails, carries, -1))
        less.add(np.zeros(len(tails)), (carries - n * n, carries, 1), (carries - n * n, uses, -most))
        less.add(np.zeros(len(tails)), (carries - n * n, carries, -1), (carries - n * n, uses, 1))
        return IntegerProgram(
            A_ub=less.left,
            b_ub=less.right,
            A_eq=equal.left,
            b_eq=equal.right,
            upper=np.concatenate((self.box[1].ravel(), most)),
            decision=np.arange(n * n),
            shape=self.shape,
        )

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        for order in permutations(range(1, self.n)):
            z = np.zeros(self.shape)
            z[(0, *order), (*order, 0)] = 1
            yield z

    def is_state(self, z: NDArray[np.float64]) -> bool:
        joined = components(self.n, [(u, v) for u, v in np.argwhere(z).tolist()])
        return bool((z.sum(axis=0) == 1).all() and (z.sum(axis=1) == 1).all()) and len(set(joined)) == 1
