# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Rows divided by their own spread, with the gradient of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mapgrad.batching import SolverAtWork, define, find, is_traced
from mapgrad.gradients._scale import counted, spread

if TYPE_CHECKING:
    from torch import Tensor


def normalized(theta: Tensor, work: SolverAtWork, *, minimize: bool) -> Tensor:
    """Return θ / σ, row by row, as `MAPLayer` says; differentiable.

    Args:
        theta: [*batch, *shape], at least float32; costs if `minimize`. What is infinite stays as it is.
        work: What solves it.
        minimize: Whether θ are costs.

    Returns:
        A tensor like θ.
    """
    event_ndim = theta.ndim - work.lead_ndim(theta)
    utilities = -theta.detach() if minimize else theta.detach()
    if is_traced(theta):
        counts = torch.ops.mapgrad.counted(utilities, event_ndim, work.handle)
    else:
        counts = counted(utilities, event_ndim, work.problem)
    size = spread(theta, event_ndim, work.problem, counts)
    infinite = utilities.isinf()
    return theta.where(infinite, theta.masked_fill(infinite, 0.0) / torch.where(size > 0, size, 1.0))


def _counted(theta: Tensor, event_ndim: int, work: int) -> Tensor:
    at_work: SolverAtWork = find(work)
    return counted(theta, event_ndim, at_work.problem)


def _counted_vmap(_info: Any, dims: Any, theta: Tensor, event_ndim: int, work: int) -> Any:
    return torch.ops.mapgrad.counted(theta.movedim(dims[0], 0), event_ndim, work), 0


define(
    "counted(Tensor theta, int event_ndim, int work) -> Tensor",
    _counted,
    lambda theta, event_ndim, work: torch.empty_like(theta),  # pyright: ignore[reportUnknownLambdaType] (untyped in torch)
    _counted_vmap,
)
