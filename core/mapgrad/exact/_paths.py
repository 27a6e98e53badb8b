"""Paths of a graph without cycles."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.exact._layered import Layered, layers_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems import ShortestPath


class Paths(Layered):
    """Paths of a directed graph without cycles, by log-sum-exp from the target to the source."""

    name = "paths"

    def __init__(self, problem: ShortestPath, max_bytes: int) -> None:
        levels = _levels(problem)
        tails, heads = problem.edges.T
        used = np.flatnonzero((levels[tails] >= 0) & (levels[heads] >= 0))
        outgoing = np.bincount(tails[used], minlength=problem.num_nodes)
        on_paths = levels >= 0
        longest = int(levels[problem.source])
        # a layer has room for as many edges at each node as its widest node has
        widest = np.zeros(longest + 1, dtype=np.int64)
        np.maximum.at(widest, levels[on_paths], outgoing[on_paths])
        arcs = int(widest @ np.bincount(levels[on_paths]))
        super().__init__(problem, arcs, longest, int(widest.max()), max_bytes)
        self._keep(layers_of(levels, tails[used], heads[used], used) if longest else [])


def _levels(problem: ShortestPath) -> NDArray[np.int64]:
    """Return for each node how many edges the longest way to the target has; −1 for nodes on no path."""
    heads_of: dict[int, list[int]] = {node: [] for node in range(problem.num_nodes)}
    for tail, head in problem.edges.tolist():
        heads_of[tail].append(head)
    order = list(TopologicalSorter(heads_of).static_order())  # heads first
    levels = [-1] * problem.num_nodes
    for node in order:
        longest = max((levels[head] for head in heads_of[node]), default=-1)
        levels[node] = 0 if node == problem.target else longest + 1 if longest >= 0 else -1
    reached = {problem.source}
    for node in reversed(order):
        if node in reached:
            reached.update(heads_of[node])
        else:
            levels[node] = -1
    return np.array(levels)
