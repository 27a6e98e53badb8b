"""Shortest paths for many rows at once, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

import mapgrad
from mapgrad_torch._arcs import arcs_of

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad_torch._arcs import Arcs

_LARGEST: Final = 2.0**960
_SMALLER: Final = 2.0**-64
"""Utilities up to `_LARGEST` add up to a number whatever the path; rows with larger ones are multiplied by this."""

_NUMBERS: Final = 2**20
_NUMBERS_ON_DEVICE: Final = 2**25
"""Utilities of arcs that are dealt with together: few on a processor, for its cache; a device wants many."""


class ShortestPaths(mapgrad.BatchSolver[mapgrad.GridShortestPath | mapgrad.ShortestPath]):
    """Best paths of all rows in lock step, on θ's device and in float64.

    A graph without cycles takes one pass over its nodes in topological order. Others, and grids, take passes over all
    nodes at once (Bellman and Ford) until nothing changes, of which there are about as many as the longest of the
    batch's best paths has arcs.

    Meant for θ on a GPU, where it saves the way to the CPU and back; on the CPU `compiled.shortest_path` takes less
    time. `"auto"` doesn't know where θ will lie: name this solver to have it. Among paths worth the same it takes one
    that depends on nothing but the row.
    """

    traits = mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)

    def __init__(self, problem: mapgrad.GridShortestPath | mapgrad.ShortestPath) -> None:
        super().__init__(problem)
        self._arcs = {torch.device("cpu"): arcs_of(problem)}

    def solve(self, theta: Tensor) -> mapgrad.Solutions:
        """Return the best path of each row, or that forbidden entries leave none."""
        arcs = self._arcs.get(theta.device)
        if arcs is None:
            arcs = self._arcs[theta.device] = self._arcs[torch.device("cpu")].to(theta.device)
        rows = theta.flatten(1)
        z = torch.empty_like(rows)
        has_path = torch.empty(len(rows), dtype=torch.bool, device=rows.device)
        count = max(1, (_NUMBERS if theta.is_cpu else _NUMBERS_ON_DEVICE) // len(arcs.tails))
        for first in range(0, len(rows), count):
            part = slice(first, first + count)
            z[part], has_path[part] = _best(arcs, rows[part])
        z.masked_fill_(~has_path[:, None], torch.nan)
        status = torch.where(has_path, int(mapgrad.Status.OPTIMAL), int(mapgrad.Status.INFEASIBLE))
        return mapgrad.Solutions(z.view_as(theta), status)


def _best(arcs: Arcs, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return a best path of each row, and whether there is one: [m, n] and [m], for θ [m, n]."""
    utility = _columns(rows)
    value = utility.new_full((arcs.num_nodes + 1, len(rows)), -torch.inf)
    value[arcs.source] = 0.0 if arcs.own is None else utility[arcs.own]
    taken = torch.full_like(value, len(arcs.tails) - 1, dtype=torch.int64)
    costs = [utility.index_select(0, group.entries) for group in arcs.groups]
    for _ in range(1 if arcs.is_acyclic else arcs.num_nodes):
        if not _improve(arcs, costs, value, taken):
            break
    has_path = value[arcs.target] > -torch.inf
    z = torch.zeros_like(utility)
    if arcs.own is not None:
        z[arcs.own] = 1.0
    node = torch.where(has_path, arcs.target, arcs.source).unsqueeze(0)
    while bool((node != arcs.source).any()):
        slot = taken.gather(0, node).squeeze(0)
        z.scatter_(0, arcs.entries[slot].unsqueeze(0), 1.0)
        node = arcs.tails[slot].unsqueeze(0)
    return z[:-1].T, has_path


def _columns(rows: Tensor) -> Tensor:
    """Return θ [m, n] in columns [n + 1, m] of float64, so small that sums don't overflow, and a line of zeros."""
    utility = rows.new_zeros((rows.shape[1] + 1, len(rows)), dtype=torch.float64)
    utility[:-1] = rows.T
    is_large = utility.masked_fill(utility.isneginf(), 0.0).abs().amax(dim=0) > _LARGEST
    return utility.mul_(torch.where(is_large, _SMALLER, 1.0))


def _improve(arcs: Arcs, costs: list[Tensor], value: Tensor, taken: Tensor) -> bool:
    """Go over all nodes once; tell whether another pass may change a value.

    An arc is taken only where it makes a node's value larger. So the arcs taken never make a circle, not even where
    arcs cost nothing: all its values would be equal, and each would have been set before the next one's.

    Args:
        arcs: The arcs.
        costs: Of each group, the utilities of its arcs [k · d, m].
        value: [nodes + 1, m], the best of the paths found so far to each node; written to.
        taken: [nodes + 1, m], the last arc of that path, by its place in `arcs.tails`; written to.
    """
    is_changed = torch.zeros((), dtype=torch.bool, device=value.device)
    for group, cost in zip(arcs.groups, costs, strict=True):
        reached = value.index_select(0, group.tails).add_(cost).view(len(group.nodes), -1, value.shape[1])
        best, which = reached.max(dim=1)
        before = value.index_select(0, group.nodes)
        is_better = best > before
        value.index_copy_(0, group.nodes, torch.where(is_better, best, before))
        slot = torch.where(is_better, which.add_(group.first[:, None]), taken.index_select(0, group.nodes))
        taken.index_copy_(0, group.nodes, slot)
        is_changed |= is_better.any()
    return not arcs.is_acyclic and bool(is_changed)
