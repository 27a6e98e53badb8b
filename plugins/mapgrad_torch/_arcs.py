"""Graphs as tables of the arcs that lead to each node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

import mapgrad

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Group:
    """Nodes whose arcs are looked at together: none leads from one of them to another, but in a graph with cycles.

    Attributes:
        nodes: [k].
        first: [k], the place of each node's first arc in `Arcs.tails` and `Arcs.entries`.
        tails: [k · d], where the arcs come from, ascending by their entries; the missing ones from `Arcs.num_nodes`.
        entries: [k · d], the entries of θ that arcs cost.
    """

    nodes: Tensor
    first: Tensor
    tails: Tensor
    entries: Tensor


@dataclass(frozen=True)
class Arcs:
    """The arcs of a graph, on a device.

    Attributes:
        num_nodes: Number of nodes.
        source: Where paths begin.
        target: Where they end.
        own: The entry of θ that the source itself costs; None where it costs nothing.
        is_acyclic: Whether one pass over the groups is enough.
        groups: The nodes to which arcs lead, in topological order where there is one.
        tails: [slots], those of all groups and of one arc more, the last one, from the source to itself.
        entries: [slots], likewise; that arc's entry, and what missing arcs cost, is one beyond θ's last.
    """

    num_nodes: int
    source: int
    target: int
    own: int | None
    is_acyclic: bool
    groups: tuple[Group, ...]
    tails: Tensor
    entries: Tensor

    def to(self, device: torch.device) -> Arcs:
        """Return the same on another device."""
        groups = tuple(Group(*(each.to(device) for each in vars(group).values())) for group in self.groups)
        return replace(self, groups=groups, tails=self.tails.to(device), entries=self.entries.to(device))


def arcs_of(problem: mapgrad.GridShortestPath | mapgrad.ShortestPath) -> Arcs:
    """Return the arcs of a problem, on the CPU."""
    if isinstance(problem, mapgrad.GridShortestPath):
        cells = np.arange(problem.height * problem.width).reshape(problem.shape)
        tails, heads = _moves(cells, problem.neighbors)
        start, goal = int(cells[problem.start]), int(cells[problem.goal])
        return _arcs(cells.size, cells.size, tails, heads, heads, start, goal, own=start)
    tails, heads = problem.edges.T
    count = len(tails)
    entries = np.arange(count)
    if not problem.directed:
        tails, heads, entries = np.append(tails, heads), np.append(heads, tails), np.append(entries, entries)
    return _arcs(
        problem.num_nodes,
        count,
        tails,
        heads,
        entries,
        problem.source,
        problem.target,
        is_acyclic=problem.domain is mapgrad.Domain.REAL,
    )


def _moves(cells: NDArray[np.int64], neighbors: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the moves from cell to cell, to both sides."""
    pairs = [(cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1])]
    if neighbors == 8:
        pairs += [(cells[1:, 1:], cells[:-1, :-1]), (cells[1:, :-1], cells[:-1, 1:])]
    one, other = (np.concatenate([side.ravel() for side in sides]) for sides in zip(*pairs, strict=True))
    return np.append(one, other), np.append(other, one)


def _arcs(
    num_nodes: int,
    num_entries: int,
    tails: NDArray[np.int64],
    heads: NDArray[np.int64],
    entries: NDArray[np.int64],
    source: int,
    target: int,
    *,
    own: int | None = None,
    is_acyclic: bool = False,
) -> Arcs:
    useful = (tails != heads) & (heads != source)
    tails, heads, entries = tails[useful], heads[useful], entries[useful]
    degrees = np.bincount(heads, minlength=num_nodes)
    levels = _levels(num_nodes, tails, heads) if is_acyclic else np.zeros(num_nodes, np.int64)
    widths = np.exp2(np.ceil(np.log2(np.maximum(degrees, 1)))).astype(np.int64)  # so that at most half is missing
    in_order = np.lexsort((tails, entries, heads))
    starts = np.concatenate([[0], np.cumsum(degrees)])
    nodes = np.lexsort((widths, levels))
    nodes = nodes[degrees[nodes] > 0]
    kinds = np.stack((levels[nodes], widths[nodes]))
    edges = [0, *(np.flatnonzero((kinds[:, 1:] != kinds[:, :-1]).any(axis=0)) + 1).tolist(), len(nodes)]
    groups: list[Group] = []
    slots = 0
    for begin, end in pairwise(edges):
        some = nodes[begin:end]
        if not len(some):
            continue
        width = int(widths[some[0]])
        place = np.arange(width)
        missing = place >= degrees[some][:, None]
        arcs = in_order[np.where(missing, 0, starts[some][:, None] + place)]
        from_, cost = np.where(missing, num_nodes, tails[arcs]), np.where(missing, num_entries, entries[arcs])
        first = slots + width * np.arange(len(some))
        groups.append(Group(*map(torch.as_tensor, (some, first, from_.ravel(), cost.ravel()))))
        slots += missing.size
    return Arcs(
        num_nodes,
        source,
        target,
        own,
        is_acyclic,
        tuple(groups),
        torch.cat([*(group.tails for group in groups), torch.tensor([source])]),
        torch.cat([*(group.entries for group in groups), torch.tensor([num_entries])]),
    )


def _levels(num_nodes: int, tails: NDArray[np.int64], heads: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many arcs the longest path to each node has, in a graph without cycles."""
    before: list[list[int]] = [[] for _ in range(num_nodes)]
    for tail, head in zip(tails.tolist(), heads.tolist(), strict=True):
        before[head].append(tail)
    levels = np.zeros(num_nodes, np.int64)
    for node in TopologicalSorter(dict(enumerate(before))).static_order():
        levels[node] = max((levels[tail] + 1 for tail in before[node]), default=0)
    return levels
