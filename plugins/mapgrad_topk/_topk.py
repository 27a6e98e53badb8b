"""Selection and ranking by sorting."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import torch

import mapgrad

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK: Final = 2**20
"""Entries of θ that are sorted at a time, as an entry may take 24 bytes beside its answer meanwhile."""

_LONGEST: Final = 1 << 15
"""Entries of the longest row that the GPU's kernel takes."""

_LONGEST_MEAN: Final = 1 << 12
"""The same of means, whose running sum takes registers beside the row."""

_EXACT: Final = 2**24
"""Up to here float32 counts without gaps."""


class TopK(mapgrad.BatchSolver[mapgrad.KSubset | mapgrad.Ranking]):
    """The k largest entries of each row (`KSubset`), or the rank of each entry (`Ranking`).

    Equal entries are ordered by index, the first one counting as the largest, on every device and in every dtype. So
    the k-subset always has exactly k ones, and holds the entries whose rank is at least n - k. Entries are only
    compared, so their magnitude doesn't matter, and −inf is less than all others.
    """

    traits = mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)

    def solve(self, theta: Tensor) -> Tensor:
        """Return the subset's indicator or the ranks: θ's shape [N, n], dtype and device."""
        found = self.solve_perturbed(theta)
        if found is not None:
            return found
        z = torch.empty_like(theta)
        count = max(1, _CHUNK // theta.shape[1])
        for first in range(0, len(theta), count):
            rows, answers = theta[first : first + count], z[first : first + count]
            if isinstance(self.problem, mapgrad.KSubset):
                _mark_largest(rows, self.problem.k, answers)
            else:
                _rank(rows, answers)
        return z

    def exported(self, theta: Tensor) -> Tensor:
        """Return the subset's indicator or the ranks in tensor operations alone: θ's shape [N, n], dtype and device."""
        order = theta.argsort(dim=-1, descending=True, stable=True)
        if isinstance(self.problem, mapgrad.KSubset):
            return torch.zeros_like(theta).scatter(-1, order[..., : self.problem.k], 1.0)
        ranks = torch.arange(theta.shape[-1] - 1, -1, -1, dtype=theta.dtype, device=theta.device)
        return torch.zeros_like(theta).scatter(-1, order, ranks.expand_as(theta))

    def solve_perturbed(self, theta: Tensor, noise: mapgrad.CounterNoise | None = None) -> Tensor | None:
        """Return the subset's indicator, [G, S, B, n], from a GPU's own kernel; None where there is none."""
        problem, kernels = self.problem, _kernels_for(theta, _LONGEST)
        if kernels is None or not isinstance(problem, mapgrad.KSubset):
            return None
        return kernels.largest(theta, problem.k, noise)

    def mean_perturbed(self, theta: Tensor, noise: mapgrad.CounterNoise, less: Tensor | None = None) -> Tensor | None:
        """Return the mean of S indicators, [B, n], from a GPU's own kernel; None where there is none."""
        problem, kernels = self.problem, _kernels_for(theta, _LONGEST_MEAN)
        if kernels is None or not isinstance(problem, mapgrad.KSubset):
            return None
        return kernels.mean_of_largest(theta, problem.k, noise, less)


def _kernels_for(theta: Tensor, longest: int) -> Any:
    """Return the GPU's kernels for rows up to a length; None where there are none."""
    if not theta.is_cuda or theta.dtype != torch.float32 or theta.shape[-1] > longest:
        return None
    return _kernels_on(theta.device)


@cache
def _kernels_on(device: torch.device) -> Any:
    """Import the kernels and try them on a device; None, with a warning, where they don't work there."""
    try:
        from mapgrad_topk import _triton

        _triton.largest(torch.zeros(1, 2, device=device), 1)
    except Exception as error:  # noqa: BLE001 (no Triton, no C compiler, a device that it doesn't know, …)
        logging.getLogger("mapgrad").warning("topk sorts on %s, as its Triton kernel doesn't work: %s", device, error)
        return None
    return _triton


def _mark_largest(theta: Tensor, k: int, z: Tensor) -> None:
    threshold = theta.topk(k, sorted=False).values.amin(dim=-1, keepdim=True)
    torch.ge(theta, threshold, out=z)
    # topk promises no order among equal entries. A threshold does, once rows with a tie at the k-th place are cut back
    # to k; looking for them first keeps the running sum, dearer than all the rest, away from the batches without any.
    ones = z.sum(dtype=torch.float64 if theta.numel() > _EXACT else theta.dtype)
    if int(ones) > k * len(theta):
        above = theta > threshold
        vacant = k - above.sum(dim=-1, keepdim=True)
        tied = theta == threshold
        torch.logical_or(above, tied & (tied.cumsum(dim=-1) <= vacant), out=z)


def _rank(theta: Tensor, z: Tensor) -> None:
    order = theta.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(theta.shape[-1] - 1, -1, -1, dtype=theta.dtype, device=theta.device)
    z.scatter_(-1, order, ranks.expand_as(theta))
