"""Directed spanning trees."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.errors import InfeasibleError
from mapgrad.problems._base import Problem
from mapgrad.problems._checks import edge_array, integer
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from mapgrad.problems._checks import EdgeList


class Arborescence(Problem):
    """All spanning arborescences of a directed graph, as 0/1 vectors over its arcs: one path from root to each node.

    Args:
        num_nodes: Number of nodes, ≥ 1; they are called 0..num_nodes - 1.
        arcs: [E, 2] integers, E ≥ 1, tail and head of each arc. Parallel arcs are distinct arcs; an arc from a node to
            itself or into the root is allowed and in no arborescence. Kept as a read-only int64 array.
        root: The node from which all others are reached.

    Raises:
        ProblemError: an argument is malformed.
        InfeasibleError: no path leads from root to some node.
    """

    num_nodes: int
    arcs: NDArray[np.int64]
    root: int

    def __init__(self, num_nodes: int, arcs: EdgeList, root: int) -> None:
        self.num_nodes = integer("num_nodes", num_nodes, 1)
        self.arcs = edge_array(arcs, self.num_nodes, "arc")
        self.root = integer("root", root, 0, self.num_nodes - 1, hint="a node of the graph")
        missed = set(range(self.num_nodes)) - self._reached()
        if missed:
            raise InfeasibleError(
                f"{self!r} has no spanning arborescence: no path leads from the root, node {self.root}, to node "
                f"{min(missed)} (every arc leads from its first node to its second); add arcs"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(E,), one entry for each arc."""
        return (len(self.arcs),)

    @property
    def kappa(self) -> float:
        """num_nodes - 1, the number of ones of every state (1 for a single node, as κ must be positive)."""
        return float(max(self.num_nodes - 1, 1))

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The number of arcs of every arborescence."""
        return {(0,): self.num_nodes - 1.0}

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        return [(tail, head) for tail, head in self.arcs.tolist()]

    @cached_property
    def _leaving(self) -> list[list[tuple[int, int]]]:
        """For each node, the arcs that lead away from it and where to."""
        leaving: list[list[tuple[int, int]]] = [[] for _ in range(self.num_nodes)]
        for arc, (tail, head) in enumerate(self._pairs):
            leaving[tail].append((arc, head))
        return leaving

    def _reached(self, chosen: Iterable[int] = ()) -> set[int]:
        """Return the nodes to which paths lead from the root if chosen arcs are the only ones into their heads."""
        only = {self._pairs[arc][1]: arc for arc in chosen}
        queue = [self.root]
        reached = {self.root}
        while queue:
            for arc, head in self._leaving[queue.pop()]:
                if head not in reached and only.get(head, arc) == arc:
                    reached.add(head)
                    queue.append(head)
        return reached

    def to_ilp(self) -> IntegerProgram:
        """Return a single-commodity flow program of O(num_nodes + E) size: the same feasible set.

        Each node but the root is entered once, and keeps one of the num_nodes - 1 units that the root sends along the
        arcs used.
        """
        n, arc, node, (tails, heads) = self.num_nodes, np.arange(len(self.arcs)), np.arange(self.num_nodes), self.arcs.T
        carries = len(arc) + arc
        usable = (heads != self.root) & (heads != tails)
        most = np.where(tails == self.root, n - 1, n - 2) * usable
        equal, less = Rows(2 * len(arc)), Rows(2 * len(arc))
        equal.add(node != self.root, (heads, arc, 1))
        equal.add(np.where(node == self.root, 1 - n, 1), (heads, carries, 1), (tails, carries, -1))
        less.add(np.zeros(len(arc)), (arc, carries, 1), (arc, arc, -most))
        less.add(np.zeros(len(arc)), (arc, carries, -1), (arc, arc, 1))
        upper = np.concatenate((usable, most))
        return IntegerProgram(
            A_ub=less.left, b_ub=less.right, A_eq=equal.left, b_eq=equal.right, upper=upper, decision=arc
        )

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        budget = self.enumeration_budget()
        entering: dict[int, list[int]] = {node: [] for node in range(self.num_nodes) if node != self.root}
        for arc, (tail, head) in enumerate(self._pairs):
            if head != self.root and head != tail:
                entering[head].append(arc)
        choices = list(entering.values())
        stack: list[tuple[int, ...]] = [()]
        while stack:
            chosen = stack.pop()
            if len(chosen) == len(choices):
                z = np.zeros(self.shape)
                z[list(chosen)] = 1
                yield z
                continue
            arcs = choices[len(chosen)]
            budget.spend(1 + (len(arcs) > 1) * len(arcs) * (self.num_nodes + len(self.arcs)))
            if len(arcs) > 1:
                arcs = [arc for arc in arcs if len(self._reached((*chosen, arc))) == self.num_nodes]
            stack.extend((*chosen, arc) for arc in reversed(arcs))

    def is_state(self, z: NDArray[np.float64]) -> bool:
        chosen = np.flatnonzero(z).tolist()
        entered = np.bincount(self.arcs[chosen, 1], minlength=self.num_nodes)
        entered[self.root] += 1
        return bool((entered == 1).all()) and len(self._reached(chosen)) == self.num_nodes
