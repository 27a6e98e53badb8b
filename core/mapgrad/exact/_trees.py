"""Spanning trees and arborescences, by eliminating node after node in log space.

In an arborescence each node but the root has one parent. Where w_ij is the weight of j as the parent of i, node k goes
with w_ij ⊕ w_ik w_kj / s_k, s_k = Σ_j w_kj, and the sum over all arborescences is the product of all s_k: the
determinant of the matrix-tree theorem (Tutte 1948), but without a difference, so that it keeps its digits whatever
the weights are. A spanning tree is an arborescence once its root is fixed, with w_ij = w_ji (star–mesh).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from mapgrad.exact._oracle import Moments, Oracle, choose
from mapgrad.exact._scaled_rows import NEVER
from mapgrad.exact._sweeps import log_add
from mapgrad.problems import Arborescence

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import SpanningTree

_NUMBERS: Final = 6
"""Numbers that are kept for each entry of each matrix, about."""


class _Step(NamedTuple):
    """A node's elimination from k + 1 nodes.

    Attributes:
        out: [B, k], log w_kj.
        odds: [B, k, k], log of w_ik w_kj / s_k over w_ij.
    """

    out: Tensor
    odds: Tensor


class Trees(Oracle):
    """Spanning trees and arborescences, in O(n³)."""

    name = "star-mesh"

    def __init__(self, problem: SpanningTree | Arborescence, max_bytes: int) -> None:
        self._num_nodes = n = problem.num_nodes
        num_arcs = 2 * problem.shape[0]
        super().__init__(problem, 8 * (_NUMBERS * n * (n + 1) * (2 * n + 1) // 6 + 8 * num_arcs), max_bytes)
        if isinstance(problem, Arborescence):
            parents, children = problem.arcs.T
            entries, root = np.arange(len(parents)), problem.root
        else:
            parents, children = np.concatenate((problem.edges, problem.edges[:, ::-1])).T
            entries, root = np.tile(np.arange(len(problem.edges)), 2), 0
        place = np.arange(n)  # the root goes first, and is never eliminated
        place[[0, root]] = place[[root, 0]]
        kept = (parents != children) & (children != root)
        cells, entries = place[children[kept]] * n + place[parents[kept]], entries[kept]
        order = np.argsort(cells, kind="stable")
        cells, entries = cells[order], entries[order]
        distinct, first, counts = np.unique(cells, return_index=True, return_counts=True)
        slots = np.full((len(distinct), int(counts.max(initial=1))), problem.shape[0])
        for slot in range(slots.shape[1]):
            has_slot = counts > slot
            slots[has_slot, slot] = entries[first[has_slot] + slot]
        number = np.zeros(n * n, dtype=np.int64)
        number[distinct] = np.arange(len(distinct))
        self._cells, self._slots, self._number = (torch.as_tensor(each) for each in (distinct, slots, number))

    @property
    def _uniforms(self) -> int:
        n = self._num_nodes
        return n * (n - 1) // 2 + 2 * n

    @property
    def _sample_numbers(self) -> int:
        return 8 * self._num_nodes

    def _weights(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log w as [B, n, n] and as [B, cells], and what parallel arcs share there, [B, cells, P]."""
        n, size = self._num_nodes, len(rows)
        slots = torch.cat((rows, rows.new_full((size, 1), NEVER)), dim=1)[:, self._slots.to(rows.device)]
        cells = slots.logsumexp(dim=2)
        weights = rows.new_full((size, n * n), NEVER)
        weights = weights.index_copy(1, self._cells.to(rows.device), cells)
        return weights.view(size, n, n), cells, slots

    def _eliminate(self, weights: Tensor) -> tuple[Tensor, list[_Step]]:
        """Return the log-partition, [B], and the steps, the last node's first."""
        total = weights.new_zeros(len(weights))
        steps: list[_Step] = []
        for _ in range(weights.shape[1] - 1):
            into, out = weights[:, :-1, -1], weights[:, -1, :-1]
            weights = weights[:, :-1, :-1]
            node = out.logsumexp(dim=1)
            total = total + node
            through = into.unsqueeze(2) + (out - node.unsqueeze(1)).unsqueeze(1)
            steps.append(_Step(out, through - weights))
            weights = log_add(weights, through)
        return total, steps

    def _log_partition(self, rows: Tensor, temperature: float) -> Tensor:
        return self._eliminate(self._weights(rows)[0])[0]

    def _moments(self, rows: Tensor, temperature: float) -> Moments:
        weights, _, slots = self._weights(rows)
        total, steps = self._eliminate(weights)
        means = rows.new_zeros(len(rows), 1, 1)  # that j is the parent of i
        for step in reversed(steps):
            through = means * torch.sigmoid(step.odds)
            arrived = through.sum(dim=1)
            # each arc through k stands for two of k's, of which one takes the place of k's own
            out = step.out.softmax(dim=1) * (1 - through.sum(dim=(1, 2))).unsqueeze(1) + arrived
            upper = torch.cat((means - through, through.sum(dim=2, keepdim=True)), dim=2)
            lower = torch.cat((out, out.new_zeros(len(out), 1)), dim=1)
            means = torch.cat((upper, lower.unsqueeze(1)), dim=1)
        cells = means.flatten(1)[:, self._cells.to(rows.device)].clamp(min=0)  # rounding may leave −1e-17
        arcs = (cells.unsqueeze(2) * slots.softmax(dim=2)).flatten(1)
        result = rows.new_zeros(len(rows), rows.shape[1] + 1)
        return Moments(result.index_add(1, self._slots.to(rows.device).flatten(), arcs)[:, :-1], total)

    def _sample(self, rows: Tensor, temperature: float, uniform: Tensor) -> Tensor:
        weights, _, slots = self._weights(rows)
        steps = self._eliminate(weights)[1]
        count, size, n = len(uniform), len(rows), self._num_nodes
        numbers = iter(uniform.unbind(dim=2))
        parents = torch.zeros(count, size, n, dtype=torch.int64, device=rows.device)
        row = torch.arange(size, device=rows.device)[:, None]
        for k, step in enumerate(reversed(steps), 1):
            known = parents[:, :, :k]
            chance = torch.sigmoid(step.odds)[row, torch.arange(k, device=rows.device), known]
            is_through = torch.stack([next(numbers) for _ in range(k)], dim=2) < chance
            is_through[:, :, 0] = False
            # k's own parent is one of the nodes whose way to the root didn't lead through k
            way = torch.where(is_through, torch.arange(k, device=rows.device), known)
            for _ in range(k.bit_length()):
                way = way.gather(2, way)
            odds = torch.where(way == 0, step.out, -torch.inf)
            parents[:, :, k] = choose(odds.softmax(dim=2), next(numbers))
            parents[:, :, :k] = torch.where(is_through, k, known)
        z = rows.new_zeros(count, size, rows.shape[1] + 1)
        for node in range(1, n):
            cell = self._number.to(rows.device)[node * n + parents[:, :, node]]
            slot = choose(slots.softmax(dim=2)[row.T, cell], next(numbers))
            z.scatter_(2, self._slots.to(rows.device)[cell, slot].unsqueeze(2), 1.0)
        return z[:, :, :-1]
