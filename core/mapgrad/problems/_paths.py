"""Simple paths of a graph, as sets of edges."""

from __future__ import annotations

from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.errors import InfeasibleError
from mapgrad.problems._base import Domain
from mapgrad.problems._checks import flag, integer
from mapgrad.problems._graphs import EdgeSets, fewest_steps
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._rows import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mapgrad.problems._budget import Budget
    from mapgrad.problems._checks import EdgeList


class ShortestPath(EdgeSets):
    """All simple paths of a graph between two nodes, as 0/1 vectors over its edges: no path visits a node twice.

    θ must be ≤ 0 (costs ≥ 0) unless the graph is directed and has no cycle: elsewhere a cycle of positive utility would
    turn the shortest path into a longest one, which is NP-hard.

    Args:
        num_nodes: Number of nodes, ≥ 1; they are called 0..num_nodes - 1.
        edges: [E, 2] integers, E ≥ 1, tail and head of each edge. Parallel edges are distinct edges; an edge from a
            node to itself is allowed and on no path. Kept as a read-only int64 array.
        source: The node where paths begin.
        target: The node where they end; where it is the source, the only path is the empty one, z = 0.
        directed: Whether edges lead from tail to head only, or both ways.

    Raises:
        ProblemError: an argument is malformed.
        InfeasibleError: no path leads from source to target.
    """

    source: int
    target: int
    directed: bool

    def __init__(self, num_nodes: int, edges: EdgeList, source: int, target: int, *, directed: bool = True) -> None:
        super().__init__(num_nodes, edges)
        self.source = integer("source", source, 0, self.num_nodes - 1, hint="a node of the graph")
        self.target = integer("target", target, 0, self.num_nodes - 1, hint="a node of the graph")
        self.directed = flag("directed", directed)
        if self._fewest_edges is None:
            backwards = " (every edge leads from its first node to its second; directed=False opens both ways)"
            raise InfeasibleError(
                f"{self!r} has no path from node {self.source} to node {self.target}"
                f"{backwards if self.directed else ''}; add edges"
            )

    @classmethod
    def on_grid(cls, height: int, width: int) -> ShortestPath:
        """Return the paths of a grid from its first node to its last over edges that lead to the right and down.

        Nodes are numbered row by row. Row by row come the edges, too: those to the right, then those down.

        Args:
            height: Number of rows of nodes, ≥ 1.
            width: Number of nodes in a row, ≥ 1.

        Raises:
            ProblemError: an argument isn't such a number, or there is one node only.
        """
        height, width = integer("height", height, 1), integer("width", width, 1)
        edges: list[tuple[int, int]] = []
        for first in range(0, height * width, width):
            nodes = range(first, first + width)
            edges += [(node, node + 1) for node in nodes[:-1]]
            edges += [(node, node + width) for node in nodes if node + width < height * width]
        return cls(height * width, edges, 0, height * width - 1)

    @property
    def domain(self) -> Domain:
        """θ ≤ 0, but every real θ where the graph is directed and has no cycle."""
        return Domain.REAL if self.directed and self._is_acyclic else Domain.NONPOSITIVE

    @cached_property
    def _is_acyclic(self) -> bool:
        sorter: TopologicalSorter[int] = TopologicalSorter()
        for tail, head in self._pairs:
            sorter.add(head, tail)
        try:
            sorter.prepare()
        except CycleError:
            return False
        return True

    @property
    def kappa(self) -> float:
        """Number of edges of a path with as few as possible (1 where source and target are one node)."""
        return float(max(self._fewest_edges or 0, 1))

    @cached_property
    def _leaving(self) -> list[list[tuple[int, int]]]:
        """For each node, the edges that lead away from it and where to."""
        leaving: list[list[tuple[int, int]]] = [[] for _ in range(self.num_nodes)]
        for edge, (tail, head) in enumerate(self._pairs):
            leaving[tail].append((edge, head))
            if not self.directed:
                leaving[head].append((edge, tail))
        return leaving

    @cached_property
    def _tails(self) -> list[list[int]]:
        """For each node, where edges come from."""
        tails: list[list[int]] = [[] for _ in range(self.num_nodes)]
        for tail, leaving in enumerate(self._leaving):
            for _, head in leaving:
                tails[head].append(tail)
        return tails

    @cached_property
    def _fewest_edges(self) -> int | None:
        steps = fewest_steps(self._leaving, self.source, self.target)
        return None if steps is None else len(steps)

    def to_ilp(self) -> IntegerProgram:
        """Return the flow program: one unit flows from source to target, over arcs that are edges used one way.

        Its solutions are paths, with cycles apart from them where the graph has cycles: of positive utility never in
        this domain, and of utility 0 to be dropped by `repair`. Without cycles it has the same feasible set.
        """
        edge, (tails, heads) = np.arange(len(self.edges)), self.edges.T
        arc = edge
        if not self.directed:
            tails, heads, arc = np.append(tails, heads), np.append(heads, tails), len(edge) + np.arange(2 * len(edge))
        useless = (tails == heads) | (heads == self.source) | (tails == self.target)
        equal = Rows(num_vars=int(arc[-1]) + 1)
        sent = np.zeros(self.num_nodes)
        sent[self.source] += 1
        sent[self.target] -= 1
        equal.add(sent, (tails, arc, 1), (heads, arc, -1))
        if not self.directed:
            equal.add(np.zeros(len(edge)), ((arc - len(edge)) % len(edge), arc, 1), (edge, edge, -1))
        upper = np.ones(equal.num_vars)
        upper[arc[useless]] = 0
        return IntegerProgram(A_eq=equal.left, b_eq=equal.right, upper=upper, decision=edge)

    def repair(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a path of as few edges as possible among those that each row of z chooses.

        As θ ≤ 0, leaving edges out makes no row worse: what was optimal for the program becomes an optimal path. A
        row whose edges hold no path comes back as it is, and so does every row where the graph has no cycle.
        """
        if self.domain is Domain.REAL:
            return z
        paths = z.copy()
        for path in paths:
            steps = fewest_steps(self._leaving, self.source, self.target, set(np.flatnonzero(path > 0.5).tolist()))
            if steps is not None:
                path[:] = self._state(steps)
        return paths

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        budget = self.enumeration_budget()
        stack: list[tuple[int, int, tuple[int, ...]]] = [(self.source, 1 << self.source, ())]
        while stack:
            node, visited, path = stack.pop()
            budget.spend(1 + len(self._leaving[node]))
            if node == self.target:
                yield self._state(path)
                continue
            moves = [(edge, head) for edge, head in self._leaving[node] if not visited >> head & 1]
            if len(moves) > 1:
                alive = self._can_finish(visited, budget)
                moves = [(edge, head) for edge, head in moves if head in alive]
            stack.extend((head, visited | 1 << head, (*path, edge)) for edge, head in reversed(moves))

    def _can_finish(self, visited: int, budget: Budget) -> set[int]:
        """Return the nodes from which the target can be reached without a visited node."""
        alive = {self.target}
        queue = [self.target]
        while queue:
            node = queue.pop()
            budget.spend(1 + len(self._tails[node]))
            for tail in self._tails[node]:
                if tail not in alive and not visited >> tail & 1:
                    alive.add(tail)
                    queue.append(tail)
        return alive

    def is_state(self, z: NDArray[np.float64]) -> bool:
        # Where z is a path, its way on from a node is the only chosen edge that isn't used yet. Any other z fails
        # whichever of several edges is taken: it leaves some chosen edge unused, or comes back to a node.
        node, visited, left = self.source, {self.source}, set(np.flatnonzero(z).tolist())
        while node != self.target:
            step = next(((edge, head) for edge, head in self._leaving[node] if edge in left), None)
            if step is None or step[1] in visited:
                return False
            left.remove(step[0])
            node = step[1]
            visited.add(node)
        return not left
