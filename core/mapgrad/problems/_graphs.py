"""Sets of edges of a graph: matchings and spanning trees."""

from __future__ import annotations

from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from mapgrad.errors import InfeasibleError, ProblemError
from mapgrad.problems._base import Problem
from mapgrad.problems._checks import edge_array, flag, integer
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._rows import Rows
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from mapgrad.problems._checks import EdgeList


class EdgeSets(Problem):
    """A feasible set of sets of edges: z is a 0/1 vector with one entry for each edge, in the order given."""

    num_nodes: int
    edges: NDArray[np.int64]

    def __init__(self, num_nodes: int, edges: EdgeList) -> None:
        self.num_nodes = integer("num_nodes", num_nodes, 1)
        self.edges = edge_array(edges, self.num_nodes)

    @property
    def shape(self) -> tuple[int, ...]:
        """(E,), one entry for each edge."""
        return (len(self.edges),)

    @cached_property
    def _pairs(self) -> list[tuple[int, int]]:
        return [(tail, head) for tail, head in self.edges.tolist()]

    def _state(self, chosen: Iterable[int]) -> NDArray[np.float64]:
        z = np.zeros(len(self.edges))
        z[list(chosen)] = 1
        return z


class Matching(EdgeSets):
    """All matchings of an undirected graph, as 0/1 vectors over its edges: no two chosen edges share a node.

    Args:
        num_nodes: Number of nodes, ≥ 1; they are called 0..num_nodes - 1.
        edges: [E, 2] integers, E ≥ 1, the two nodes of each edge. Parallel edges are distinct edges; an edge from a
            node to itself can't be matched and is refused. Kept as a read-only int64 array.
        perfect: Whether every node must be matched.
        cardinality: "maximum" for the matchings of as many edges as the graph allows; None for those of any number.
            Perfect matchings are always of "maximum" cardinality, which is what is then kept here.

    Raises:
        ProblemError: an argument is malformed.
        InfeasibleError: perfect is asked for and the graph has no perfect matching.
    """

    perfect: bool
    cardinality: Literal["maximum"] | None

    def __init__(
        self,
        num_nodes: int,
        edges: EdgeList,
        *,
        perfect: bool = False,
        cardinality: Literal["maximum"] | None = None,
    ) -> None:
        super().__init__(num_nodes, edges)
        self.perfect = flag("perfect", perfect)
        if cardinality not in (None, "maximum"):
            raise ProblemError(f'cardinality must be "maximum", or None for matchings of any size, got {cardinality!r}')
        self.cardinality = "maximum" if self.perfect else cardinality
        loops = self.edges[:, 0] == self.edges[:, 1]
        if loops.any():
            number = int(loops.argmax())
            raise ProblemError(
                f"edge {number} joins node {self.edges[number, 0]} to itself, and a matching has no such edge: drop it"
            )
        if self.perfect and 2 * self._largest < self.num_nodes:
            raise InfeasibleError(
                f"{self!r} has no perfect matching: at most {2 * self._largest} of {self.num_nodes} nodes can be "
                'matched; add edges or use perfect=False, with cardinality="maximum" to match as many as can be'
            )

    @property
    def kappa(self) -> float:
        """Number of edges of a largest matching: num_nodes / 2 for a perfect one."""
        return float(self._largest)

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The number of edges of a matching of maximum cardinality."""
        return {(0,): float(self._largest)} if self.cardinality else {}

    def to_ilp(self) -> IntegerProgram:
        """Return the program with a row for each node's degree, and one for the cardinality: the same feasible set."""
        edge, nodes = np.arange(len(self.edges))[:, None], self.edges
        degrees = SparseRows.from_entries(nodes, edge, 1, (self.num_nodes, len(edge)))
        once = np.ones(self.num_nodes)
        if self.perfect:
            return IntegerProgram(A_eq=degrees, b_eq=once)
        if self.cardinality:
            size = np.ones((1, len(edge)))
            return IntegerProgram(A_ub=degrees, b_ub=once, A_eq=size, b_eq=[self._largest])
        return IntegerProgram(A_ub=degrees, b_ub=once)

    @cached_property
    def _largest(self) -> int:
        import networkx as nx

        graph: nx.Graph[int] = nx.Graph()
        graph.add_edges_from(self._pairs)
        return len(nx.max_weight_matching(graph, maxcardinality=True))

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        budget = self.enumeration_budget()
        higher: list[list[tuple[int, int]]] = [[] for _ in range(self.num_nodes)]
        for edge, (u, v) in enumerate(self._pairs):
            higher[min(u, v)].append((edge, max(u, v)))
        single = self.num_nodes - 2 * self._largest if self.cardinality else self.num_nodes
        stack: list[tuple[int, int, int, tuple[int, ...]]] = [(0, 0, single, ())]
        while stack:
            node, matched, single, chosen = stack.pop()  # single: how many more nodes may stay without an edge
            if node == self.num_nodes:
                yield self._state(chosen)
                continue
            budget.spend(1 + len(higher[node]))
            if matched >> node & 1:
                stack.append((node + 1, matched, single, chosen))
                continue
            if single:
                stack.append((node + 1, matched, single - 1, chosen))
            stack.extend(
                (node + 1, matched | 1 << other, single, (*chosen, edge))
                for edge, other in higher[node]
                if not matched >> other & 1
            )

    def is_state(self, z: NDArray[np.float64]) -> bool:
        matched = np.bincount(self.edges[z == 1].ravel(), minlength=self.num_nodes)
        return bool((matched <= 1).all()) and (self.cardinality is None or matched.sum() == 2 * self._largest)


class SpanningTree(EdgeSets):
    """All spanning trees of an undirected graph, as 0/1 vectors over its edges.

    Args:
        num_nodes: Number of nodes, ≥ 1; they are called 0..num_nodes - 1.
        edges: [E, 2] integers, E ≥ 1, the two nodes of each edge. Parallel edges are distinct edges; an edge from a
            node to itself is allowed and in no tree. Kept as a read-only int64 array.

    Raises:
        ProblemError: an argument is malformed.
        InfeasibleError: the graph isn't connected.
    """

    def __init__(self, num_nodes: int, edges: EdgeList) -> None:
        super().__init__(num_nodes, edges)
        roots = components(self.num_nodes, self._pairs)
        apart = next((node for node, root in enumerate(roots) if root != roots[0]), None)
        if apart is not None:
            raise InfeasibleError(
                f"{self!r} has no spanning tree: no path joins the nodes 0 and {apart}; add edges between them"
            )

    @property
    def kappa(self) -> float:
        """num_nodes - 1, the number of ones of every state (1 for a single node, as κ must be positive)."""
        return float(max(self.num_nodes - 1, 1))

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The number of edges of every tree."""
        return {(0,): self.num_nodes - 1.0}

    def to_ilp(self) -> IntegerProgram:
        """Return a single-commodity flow program of O(num_nodes + E) size: the same feasible set.

        Arcs lead from node 0 outwards: each edge may be used one way or the other, each other node is entered once, and
        keeps one of the num_nodes - 1 units that node 0 sends along the arcs used.
        """
        n, edge, (u, v) = self.num_nodes, np.arange(len(self.edges)), self.edges.T
        tails, heads, arc = np.concatenate((u, v)), np.concatenate((v, u)), np.arange(2 * len(edge))
        uses, carries = len(edge) + arc, 3 * len(edge) + arc
        outward = (heads != 0) & (heads != tails)
        most = np.where(tails == 0, n - 1, n - 2) * outward
        equal, less = Rows(5 * len(edge)), Rows(5 * len(edge))
        equal.add(np.zeros(len(edge)), (arc % len(edge), uses, 1), (edge, edge, -1))
        equal.add(np.arange(n) != 0, (heads, uses, 1))
        equal.add(np.where(np.arange(n) == 0, 1 - n, 1), (heads, carries, 1), (tails, carries, -1))
        less.add(np.zeros(len(arc)), (arc, carries, 1), (arc, uses, -most))
        less.add(np.zeros(len(arc)), (arc, carries, -1), (arc, uses, 1))
        upper = np.concatenate((np.ones(len(edge)), outward, most))
        return IntegerProgram(
            A_ub=less.left, b_ub=less.right, A_eq=equal.left, b_eq=equal.right, upper=upper, decision=edge
        )

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        budget = self.enumeration_budget()
        pairs = self._pairs
        # Nodes that the chosen edges join share a label; the edges still to come always connect all labels.
        stack: list[tuple[int, list[int], tuple[int, ...]]] = [(0, list(range(self.num_nodes)), ())]
        while stack:
            edge, label, chosen = stack.pop()
            if len(chosen) == self.num_nodes - 1:
                yield self._state(chosen)
                continue
            budget.spend(self.num_nodes + len(pairs) - edge)
            u, v = (label[node] for node in pairs[edge])
            later = components(self.num_nodes, ((label[a], label[b]) for a, b in pairs[edge + 1 :]))
            if later[u] == later[v]:
                stack.append((edge + 1, label, chosen))
            if u != v:
                stack.append((edge + 1, [u if name == v else name for name in label], (*chosen, edge)))

    def is_state(self, z: NDArray[np.float64]) -> bool:
        chosen = np.flatnonzero(z).tolist()
        if len(chosen) != self.num_nodes - 1:
            return False
        return len(set(components(self.num_nodes, (self._pairs[edge] for edge in chosen)))) == 1


def components(num_nodes: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each node of an undirected graph a node that stands for its connected component."""
    parent = list(range(num_nodes))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = node = parent[parent[node]]
        return node

    for u, v in edges:
        parent[root(u)] = root(v)
    return [root(node) for node in range(num_nodes)]


def fewest_steps(
    leaving: Sequence[Sequence[tuple[int, int]]], source: int, target: int, usable: Container[int] | None = None
) -> list[int] | None:
    """Return the steps of a path with as few of them as possible, or None where there is no path.

    Args:
        leaving: For each node the steps that lead away from it, as (name of the step, node it leads to).
        source: Where the path begins.
        target: Where it ends.
        usable: Names of the steps that it may take; None means all.
    """
    came: dict[int, tuple[int, int]] = {source: (source, -1)}
    queue = deque([source])
    while queue and target not in came:
        node = queue.popleft()
        for step, head in leaving[node]:
            if head not in came and (usable is None or step in usable):
                came[head] = node, step
                queue.append(head)
    if target not in came:
        return None
    steps: list[int] = []
    while target != source:
        target, step = came[target]
        steps.append(step)
    return steps[::-1]
