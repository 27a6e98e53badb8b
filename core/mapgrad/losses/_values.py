"""What losses and metrics do with tensors: checks, and values of states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from mapgrad.batching import Solver, are_finite, is_traced, name_problem, name_rows, row_numbers
from mapgrad.errors import NonFiniteError, ShapeError, UnsupportedProblemError
from mapgrad.problems import IntegerProgram
from mapgrad.solvers import advice_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.problems import Problem
    from mapgrad.solvers import MAPSolver

    SolverOrFunction = MAPSolver | Callable[[Tensor], Tensor]

_ROOM: Final = 2.0**-16
"""What a gradient leaves of its dtype's range to what multiplies it later, such as the weights of rows."""


def require_solver(solver: SolverOrFunction) -> Solver:
    """Return a `Solver`, made of a function where it is one.

    Raises:
        TypeError: it is neither.
        UnsupportedProblemError: its problem prices states by more than θ.
    """
    of_layer = isinstance(getattr(solver, "solver", None), Solver)
    if of_layer or not callable(solver) or isinstance(solver, type):
        hint = "pass its attribute solver" if of_layer else "make one with mapgrad.get_solver(name, problem)"
        raise TypeError(
            f"solver must be a mapgrad.Solver or a function of θ, got {solver!r}: {hint}{advice_on(solver)}"
        )
    made = solver if isinstance(solver, Solver) else Solver.of_function(solver)
    require_priced([made.problem])
    return made


def unfilled(solver: Solver, *, takes_nan: bool) -> Solver:
    """Return a solver that gives no row zeros for a state it hasn't: NaN where that is taken, else an error."""
    if solver.on_error.partition(":")[0] not in ("nan", "zero_grad"):
        return solver
    return solver.under(blank=True) if takes_nan else solver.under(on_error="raise")


def require_priced(problems: Sequence[Problem | None]) -> None:
    """Refuse problems whose states are worth more than ⟨θ, z⟩.

    Raises:
        UnsupportedProblemError: a program's variables that θ doesn't price have utilities.
    """
    if not isinstance(problems, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        return  # refused where rows are grouped
    for problem in problems:
        if isinstance(problem, IntegerProgram) and problem.fixed.any():
            raise UnsupportedProblemError(
                f"losses and regrets compare states by ⟨θ, z⟩, but variables of {name_problem(problem)} have utilities "
                f"of their own, `fixed`: let θ price these variables too"
            )


def require_like(name: str, value: object, pred: Tensor) -> Tensor:
    """Return a tensor that a user gave beside the prediction, detached, in its dtype.

    Raises:
        TypeError: it isn't a tensor.
        ShapeError: it hasn't the prediction's shape, or isn't real.
        ValueError: it is on another device.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}: wrap it in torch.as_tensor")
    if value.shape != pred.shape or value.is_complex():
        raise ShapeError(
            f"{name} must be real and of the prediction's shape {tuple(pred.shape)}, got {value.dtype} "
            f"{tuple(value.shape)}"
        )
    if value.device != pred.device:
        raise ValueError(f"{name} must be on the prediction's device, {pred.device}, but is on {value.device}: move it")
    return value.detach().to(pred.dtype)


def require_finite(name: str, value: Tensor, split: int) -> Tensor:
    """Return a tensor [*batch, *shape] that is finite, as far as its values can be seen.

    Raises:
        NonFiniteError: rows have NaN or infinite entries.
    """
    if not is_traced(value) and value.numel() > 0 and not are_finite(value):
        bad = row_numbers(~value.isfinite().reshape(-1, *value.shape[split:]).flatten(1).all(dim=1))
        rows = name_rows(bad, tuple(value.shape[:split]))
        raise NonFiniteError(f"{name} has NaN or infinite entries in {rows}: give finite numbers", rows=bad)
    return value


def inner(theta: Tensor, z: Tensor, split: int) -> Tensor:
    """Return ⟨θ, z⟩ as float64.

    Args:
        theta: [*batch, *shape]; entries −inf count only where z isn't 0.
        z: Of the same shape, without a gradient.
        split: How many dimensions those of the batch are.

    Returns:
        [*batch].
    """
    products = torch.where(z == 0, 0.0, theta.double() * z)
    return products.flatten(split).sum(dim=-1) if products.ndim > split else products


def saturated(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return finite values in a dtype, whose largest number stands for what is beyond; their gradient isn't cut."""
    most = torch.finfo(dtype).max
    fixed = values.detach()
    return (fixed.clamp(-most, most) + (values - fixed)).to(dtype)


def linear_of(theta: Tensor, values: Tensor, slope: Tensor, split: int) -> Tensor:
    """Return values with a given gradient for θ, where both were found without one.

    Args:
        theta: [*batch, *shape].
        values: [*batch] float64.
        slope: [*batch, *shape], of any float dtype; what exceeds the range of θ's dtype is its largest numbers.
        split: How many dimensions those of the batch are.
    """
    most = torch.finfo(theta.dtype).max * _ROOM
    linear = inner(theta, slope.clamp(-most, most), split)
    return values + (linear - linear.detach())
