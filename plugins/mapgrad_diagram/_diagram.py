"""Best paths through decision diagrams."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

import mapgrad

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Compilable: TypeAlias = mapgrad.IntegerProgram | mapgrad.Knapsack | mapgrad.Matching

_logger = logging.getLogger("mapgrad")


class Diagram(mapgrad.BatchSolver[Compilable]):
    """Dynamic programming over a `mapgrad.exact.Diagram`, in float64, for whole batches.

    Answers are the same bits whatever the batch and the device: each node's value is the sum of the same numbers in
    the same order. Among equal states it is the one with a 1 where they first differ in the diagram's order, which is
    that of θ's entries unless another one makes the diagram smaller.

    Args:
        problem: Of 0/1 variables.
        max_nodes: As for `mapgrad.exact.Diagram`.
        max_seconds: As for `mapgrad.exact.Diagram`. `time_limit` doesn't count the time of compiling, and a deadline
            only where rows bring problems of their own, which are compiled within the call.

    Raises:
        UnsupportedProblemError: as `mapgrad.exact.Diagram`.
    """

    traits = mapgrad.Traits(releases_gil=True, scale_free=True, masks=True)

    def __init__(self, problem: Compilable, *, max_nodes: int = 2**20, max_seconds: float = 60.0) -> None:
        super().__init__(problem)
        self._diagram = mapgrad.exact.Diagram(problem, max_nodes=max_nodes, max_seconds=max_seconds)

    def solve(self, theta: Tensor) -> Tensor | mapgrad.Solutions:
        """Return the best state of each row, with a status where a row is infeasible."""
        kernel = _kernel() if theta.is_cpu else None
        if kernel is None:
            return self._diagram.solve(theta)
        rows = theta.flatten(1).double()
        z, is_left = torch.empty_like(rows), np.empty(len(rows), dtype=np.bool_)
        kernel(rows.numpy(), *self._diagram.nodes, z.numpy(), is_left)
        if is_left.all():
            return z.view(theta.shape).to(theta.dtype)
        failed = torch.from_numpy(~is_left)
        z[failed] = torch.nan
        status = torch.where(failed, int(mapgrad.Status.INFEASIBLE), int(mapgrad.Status.OPTIMAL))
        return mapgrad.Solutions(z.view(theta.shape).to(theta.dtype), status)


@cache
def _kernel() -> Callable[..., None] | None:
    """Return the kernel; None where numba can't be imported."""
    try:
        from mapgrad_diagram import _lanes
    except ImportError as error:
        _logger.info("NumPy sweeps diagrams, as numba can't be imported: %s", error)
        return None
    return _lanes.sweep.ready()
