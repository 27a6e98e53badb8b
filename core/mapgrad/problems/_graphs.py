"""Sets of edges of a graph: matchings and spanning trees."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.errors import InfeasibleError, ProblemError
from mapgrad.problems._base import Problem
from mapgrad.problems._checks import edge_array, flag, integer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from mapgrad.problems._checks import EdgeList


class EdgeSets(Problem):
    """A feasible set of sets of edges: z is a 0/1 vector with one entry for each edge, in the order given."""

    num_nodes: int
    edges: NDArray[np.int64]

    def __init__(self, num_nodes: int, edges: EdgeList) -> None:
        num_nodes = integer("num_nodes", num_nodes, 1)
        self._set(num_nodes=num_nodes, edges=edge_array(edges, num_nodes))

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

    Raises:
        ProblemError: an argument is malformed.
        InfeasibleError: perfect is asked for and the graph has no perfect matching.
    """

    perfect: bool
    _fields = ("num_nodes", "edges", "perfect")

    def __init__(self, num_nodes: int, edges: EdgeList, *, perfect: bool = False) -> None:
        super().__init__(num_nodes, edges)
        self._set(perfect=flag("perfect", perfect))
        loops = self.edges[:, 0] == self.edges[:, 1]
        if loops.any():
            number = int(loops.argmax())
            raise ProblemError(
                f"edge {number} joins node {self.edges[number, 0]} to itself, and a matching has no such edge: drop it"
            )
        if self.perfect and 2 * self._largest < self.num_nodes:
            raise InfeasibleError(
                f"{self!r} has no perfect matching: at most {2 * self._largest} of {self.num_nodes} nodes can be "
                "matched; add edges or use perfect=False"
            )

    @property
    def kappa(self) -> float:
        """Number of edges of a largest matching: num_nodes / 2 for a perfect one."""
        return float(self._largest)

    @cached_property
    def _largest(self) -> int:
        import networkx as nx

        graph: nx.Graph[int] = nx.Graph()
        graph.add_edges_from(self._pairs)
        return len(nx.max_weight_matching(graph, maxcardinality=True))

    def _states(self) -> Iterator[NDArray[np.float64]]:
        budget = self._enumeration_budget()
        higher: list[list[tuple[int, int]]] = [[] for _ in range(self.num_nodes)]
        for edge, (u, v) in enumerate(self._pairs):
            higher[min(u, v)].append((edge, max(u, v)))
        stack: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, ())]
        while stack:
            node, matched, chosen = stack.pop()
            if node == self.num_nodes:
                yield self._state(chosen)
                continue
            budget.spend(1 + len(higher[node]))
            if not self.perfect or matched >> node & 1:
                stack.append((node + 1, matched, chosen))
            if not matched >> node & 1:
                stack.extend(
                    (node + 1, matched | 1 << other, (*chosen, edge))
                    for edge, other in higher[node]
                    if not matched >> other & 1
                )

    def _contains_row(self, z: NDArray[np.float64]) -> bool:
        matched = np.bincount(self.edges[z == 1].ravel(), minlength=self.num_nodes)
        return bool((matched == 1).all() if self.perfect else (matched <= 1).all())


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

    _fields = ("num_nodes", "edges")

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

    def _states(self) -> Iterator[NDArray[np.float64]]:
        budget = self._enumeration_budget()
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

    def _contains_row(self, z: NDArray[np.float64]) -> bool:
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
