"""Selection and ranking by sorting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import mapgrad

if TYPE_CHECKING:
    from torch import Tensor


class TopK(mapgrad.BatchSolver):
    """The k largest entries of each row (`KSubset`), or the rank of each entry (`Ranking`).

    Equal entries are ordered by index, the first one counting as the largest, on every device and in every dtype. So
    the k-subset always has exactly k ones, and holds the entries whose rank is at least n - k.
    """

    traits = mapgrad.Traits(releases_gil=True)

    def solve(self, theta: Tensor) -> Tensor:
        """Return the subset's indicator or the ranks: θ's shape [N, n], dtype and device."""
        if isinstance(self.problem, mapgrad.KSubset):
            return _k_largest(theta, self.problem.k)
        return _ranks(theta)


def _k_largest(theta: Tensor, k: int) -> Tensor:
    threshold = theta.topk(k, sorted=False).values.amin(dim=-1, keepdim=True)
    chosen = theta >= threshold
    # topk promises no order among equal entries. A threshold does, once rows with a tie at the k-th place are cut back
    # to k; looking for them first keeps the running sum, dearer than all the rest, away from the batches without any.
    if int(chosen.count_nonzero()) > k * len(theta):
        above = theta > threshold
        vacant = k - above.sum(dim=-1, keepdim=True)
        tied = chosen & ~above
        chosen = above | (tied & (tied.cumsum(dim=-1) <= vacant))
    return chosen.to(theta.dtype)


def _ranks(theta: Tensor) -> Tensor:
    order = theta.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(theta.shape[-1] - 1, -1, -1, dtype=theta.dtype, device=theta.device)
    return torch.empty_like(theta).scatter_(-1, order, ranks.expand_as(theta))
