"""Rows of one problem for a `BatchSolver` of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mapgrad.batching._batches import solve_batch
from mapgrad.batching._forbidden import fail_unserved, with_penalties
from mapgrad.batching._host import to_device, to_host
from mapgrad.problems import IntegerProgram

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from mapgrad.batching._clock import Clock
    from mapgrad.solutions import Solutions
    from mapgrad.solvers import BatchSolver, Lowering


def solve_lowered(
    solver: BatchSolver[Any], lowering: Lowering, rows: Tensor, clock: Clock | None, *, is_masked: bool
) -> tuple[Solutions, bool]:
    """Have a batch solver solve rows of another problem than its own, in float64: the lowering may add to θ."""
    exact = rows.double()

    def on_host(change: Callable[[NDArray[np.float64]], NDArray[np.float64]], values: Tensor, like: Tensor) -> Tensor:
        return to_device(change(to_host(values).double().numpy()), like)

    unserved: list[int] = []
    if is_masked:
        entries = rows.isneginf()
        native = on_host(lowering.rows, exact.masked_fill(entries, 0.0), exact)
        forbidden = on_host(lambda values: lowering.forbidden(values != 0).astype(np.float64), entries, exact) != 0
        if solver.traits.masks:
            asked = native.masked_fill(forbidden, -torch.inf)
        else:
            asked, unserved = with_penalties(native, forbidden, lowering.native)
    else:
        asked = native = on_host(lowering.rows, exact, exact)
    solutions, clean = solve_batch(solver, asked, clock)
    if unserved:
        solutions, clean = fail_unserved(solutions, clean, unserved)
    value = (native * solutions.z).flatten(1).sum(dim=1)
    if lowering.is_restated:  # the state may be better than the program's solution
        value = torch.full_like(value, torch.nan)
    elif solutions.objective is not None:  # pyright: ignore[reportUnnecessaryComparison] (not filled in yet)
        value = torch.where(solutions.objective.isnan(), value, solutions.objective)
    solutions.objective = value
    if isinstance(lowering.native, IntegerProgram):
        solutions.variables = solutions.z[:, : lowering.num_vars]
    solutions.z = on_host(lowering.states, solutions.z, rows)
    return solutions, clean
