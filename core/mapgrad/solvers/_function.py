"""A user's function as a solver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mapgrad.solvers._contract import BatchSolver, Traits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.problems import Problem


class FunctionSolver(BatchSolver[Any]):
    """A function θ [N, *shape] → z of the same shape as a solver.

    By contract it returns argmax ⟨θ, z⟩. It may hold data of the batch's rows, so equal rows may have different
    answers.

    Args:
        problem: The feasible set; None where it isn't known.
        function: Any callable; it is called with whole batches, with their rows in order.
    """

    traits = Traits(deterministic=False)

    def __init__(self, problem: Problem | None, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(problem)
        self.function = function

    def solve(self, theta: Tensor) -> Tensor:
        """Return what the function answers to θ [N, *shape]."""
        return self.function(theta)
