"""What a call of a layer brings: θ, and context for a function in place of a solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mapgrad.batching import is_traced
from mapgrad.solvers import require_no_reserved

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.batching import Solver, SolverAtWork


def at_work_on(
    solver: Solver, theta: object, context: tuple[Any, ...], named: dict[str, Any], deadline: float | None = None
) -> tuple[SolverAtWork, Tensor]:
    """Return what solves θ, in this context, and θ, typed.

    Raises:
        TypeError, ShapeError: θ doesn't fit; there is context, but the solver isn't a function; or a name is reserved.
        ValueError: `deadline` isn't a positive number.
        RuntimeError: there is context, or a deadline, where somebody traces.
    """
    work = solver.at_work()
    theta = work.require_theta(theta)
    if deadline is not None:
        work = solver.within(deadline, theta).at_work()
    if context or named:
        if not work.is_function:
            require_no_context(solver, context, named)
        require_no_reserved(named, "it is called with")
        if is_traced(theta):
            raise RuntimeError(_NO_TRACED_CONTEXT)
        work = work.with_context(context, named)
    return work, theta


def require_no_context(solver: Solver, context: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Refuse context.

    Raises:
        TypeError: there is some.
    """
    if context or named:
        came = ", ".join([*(type(each).__name__ for each in context), *(f"{name}=" for name in named)])
        raise TypeError(
            f"only a function in place of a solver takes context beside θ, and {solver!r} isn't one, "
            f"got {came}: describe each row by a problem of its own, as problems=[…] of the layer's call"
        )


_NO_TRACED_CONTEXT: Final = (
    "a layer can't take context where torch.compile, torch.vmap or torch.func trace it, as they see tensors only: call "
    "it outside of them, or let the function hold what it needs, as an attribute say"
)
