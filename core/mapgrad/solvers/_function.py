"""A user's function as a solver."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from mapgrad.solvers._contract import BatchSolver, Traits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor

    from mapgrad.problems import Problem


_RESERVED: Final = ("problems", "rows", "deadline")
"""Words by which a layer's call means something else than a function's context."""


class FunctionSolver(BatchSolver[Any]):
    """A function θ [N, *shape] → z of the same shape as a solver.

    By contract it returns argmax ⟨θ, z⟩. It may hold data of the batch's rows, so equal rows may have different
    answers.

    Args:
        problem: The feasible set; None where it isn't known.
        function: Any callable; it is called with whole batches, with their rows in order.
        context: What else it is called with, after θ.
        named: The same by name.
    """

    traits = Traits(deterministic=False)

    def __init__(
        self,
        problem: Problem | None,
        function: Callable[..., Tensor],
        context: tuple[Any, ...] = (),
        named: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(problem)
        self.function = function
        self._context = context
        self._named = named or {}

    def with_context(self, context: tuple[Any, ...], named: Mapping[str, Any]) -> FunctionSolver:
        """Return the same function with what it is called with beside θ."""
        return FunctionSolver(self.problem, self.function, context, named)

    def solve(self, theta: Tensor) -> Tensor:
        """Return what the function answers to θ [N, *shape]."""
        return self.function(theta, *self._context, **self._named)


def require_no_reserved(names: Iterable[str], what: str) -> None:
    """Refuse context of a function under a layer's own words.

    Args:
        names: Names of context.
        what: What these names are, for the message.
    """
    taken = [name for name in names if name in _RESERVED]
    if taken:
        raise TypeError(
            f"{', '.join(_RESERVED)} are a layer's own words, so a function's context must have other names, but "
            f"{what} {', '.join(taken)}"
        )


def context_names(function: Callable[..., Tensor]) -> list[str]:
    """Return the names of what a function takes beside θ, as far as it tells."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []
    return names[2:] if names[:1] == ["self"] else names[1:]
