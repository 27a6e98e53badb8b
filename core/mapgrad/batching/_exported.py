# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Answers as a program of torch.export finds them, that knows tensor operations alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mapgrad.batching._op import define
from mapgrad.batching._theta import compute_dtype
from mapgrad.solvers import BatchSolver

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.batching._at_work import SolverAtWork


def exported(theta: Tensor, work: SolverAtWork) -> Tensor | None:
    """Return argmax ⟨θ, z⟩ while torch.export traces, NaN for rows that `Solver` refuses; None where it can't be.

    Args:
        theta: [*batch, *shape], utilities, of any float dtype.
        work: The solver at work.
    """
    solver, problem, lowering = work.plugin, work.problem, work._lowering  # noqa: SLF001 (of this package)
    if not torch.compiler.is_exporting() or problem is None or lowering is None or lowering.is_lowered:
        return None
    if not isinstance(solver, BatchSolver):
        return None
    given = theta.detach().to(compute_dtype(theta.dtype)).reshape(-1, *problem.shape)
    rows = problem.domain.clip(given)
    z = solver.exported(rows)
    if z is None:
        return None
    forbidden = given.isneginf()
    is_wrong = ~(given.isfinite() | forbidden) | (forbidden & (z != 0))
    if work._settings.domain == "raise":  # noqa: SLF001 (as above)
        is_wrong |= ~problem.domain.contains(given)
    failed = is_wrong.flatten(1).any(dim=1).reshape(-1, *[1] * len(problem.shape))
    return z.masked_fill(failed, torch.nan).reshape(theta.shape).to(theta.dtype)


def without_gradient(z: Tensor, theta: Tensor) -> Tensor:
    """Return answers in a program that refuses to go back to θ, where it is one that might be asked to."""
    return torch.ops.mapgrad.answered(z, theta) if torch.is_grad_enabled() else z


def _refuse(ctx: Any, *_: Any) -> Any:
    raise RuntimeError(
        "a program of torch.export has no gradient of a MAP layer that was in eval mode: train the layer itself, or "
        "export it in training mode"
    )


def _vmap(_info: Any, dims: Any, z: Tensor, theta: Tensor) -> Any:
    return z.clone(), dims[0]


def _keep_nothing(ctx: Any, inputs: Any, output: Any) -> None:
    pass


define(
    "answered(Tensor z, Tensor theta) -> Tensor",
    lambda z, theta: z.clone(),
    lambda z, theta: torch.empty_like(z),
    _vmap,
    autograd=(_keep_nothing, _refuse),
)
