"""Rows of θ on which solvers that cheat or err answer otherwise than they should.

Each maker takes a problem and returns a float64 CPU tensor [N, *shape], the same one on every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.testing._reference import Enumeration

_GAPS: Final = (1e-3, 1e-5, 1e-8)
_SHARES: Final = (0.0, 0.15, 0.3, 0.5, 0.8, 1.0)


def generic_rows(problem: Problem, count: int = 24, *, seed: int = 0) -> Tensor:
    """Draw normal rows inside the problem's domain.

    Their optimum is unique with probability 1, so two right answers have equal bits.
    """
    rows = wide_rows(problem, count, seed=seed)
    return torch.where(problem.domain.contains(rows), rows, -rows)


def wide_rows(problem: Problem, count: int = 24, *, seed: int = 0) -> Tensor:
    """Draw normal rows of both signs, which the core clips where the problem's domain is smaller."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *problem.shape, generator=generator, dtype=torch.float64)


def close_rows(enumeration: Enumeration, count: int = 48, *, seed: int = 1) -> Tensor:
    """Draw rows whose best two states differ by 1e-3, 1e-5 or 1e-8 of max |θ|.

    θ' = θ − (excess − gap) d / ‖d‖² with d = best − second best and excess what the best is worth more: a solver that
    sees θ less sharply takes either. Where θ' leaves the domain it is clipped, and the row may lose its close second.

    Args:
        enumeration: All states and what they are worth.
        count: Number of rows.
        seed: Seed of the draw.
    """
    problem, points = enumeration.problem, enumeration.states.flatten(1)
    rows = generic_rows(problem, count, seed=seed).flatten(1)
    if len(points) > 1:
        values, states = enumeration.values(rows).topk(2, dim=1)
        direction = points[states[:, 0]] - points[states[:, 1]]
        gaps = torch.tensor(_GAPS, dtype=rows.dtype).repeat(count)[:count] * rows.abs().amax(1)
        excess = values[:, 0] - values[:, 1] - gaps
        rows = rows - (excess / direction.square().sum(1))[:, None] * direction
    return problem.domain.clip(rows.reshape(-1, *problem.shape))


def masked_rows(problem: Problem, count: int = 24, *, seed: int = 11) -> Tensor:
    """Draw normal rows inside the problem's domain in which none, few, half, most or all entries are −inf.

    Only entries are that may be forbidden, as their lower bound is 0.
    """
    theta = generic_rows(problem, count, seed=seed)
    shares = torch.tensor(_SHARES).repeat(count)[:count].reshape(-1, *[1] * len(problem.shape))
    chosen = torch.rand(theta.shape, generator=torch.Generator().manual_seed(seed)) < shares
    return theta.masked_fill(chosen & torch.as_tensor(problem.box[0] == 0), -torch.inf)


def tied_rows(problem: Problem, count: int = 24, *, seed: int = 2) -> Tensor:
    """Make rows with many optima: all zero, constant, one entry alone, entries of −1, 0 and 1, entries of 0 and −1."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.Size(problem.shape).numel()
    constant = torch.tensor([0.0, 1.0, -1.0]).repeat_interleave(size).reshape(3, size)
    alone = torch.eye(size)[torch.randint(size, (3,), generator=generator)]
    few = torch.randint(-1, 2, (count, size), generator=generator)
    rows = torch.cat([constant, alone, -alone, few, -few.abs()]).to(torch.float64)
    return rows.reshape(-1, *problem.shape)
