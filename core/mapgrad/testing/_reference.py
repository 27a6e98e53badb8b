"""The truth for small problems: all states, and a solver that looks at each of them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from mapgrad.solvers import BatchSolver

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem


@lru_cache(maxsize=4)
def states_of(problem: Problem) -> Tensor:
    """Return `Problem.states`, kept for the next law on the same problem; not to be written to."""
    return problem.states()


class BruteForce(BatchSolver):
    """Enumerates `Problem.states` and takes the best: exact, on any device, for small problems only.

    Args:
        problem: The feasible set.

    Raises:
        ProblemError: the problem has too many states to enumerate.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._states = states_of(problem).flatten(1)

    def solve(self, theta: Tensor) -> Tensor:
        """Return argmax ⟨θ, z⟩ over all states; among equals the one that comes first.

        Args:
            theta: [N, *shape], any float dtype and device; not written to.

        Returns:
            [N, *shape], of θ's dtype and device.
        """
        rows = theta.flatten(1).to("cpu", self._states.dtype)
        best = self._states[(rows @ self._states.T).argmax(dim=1)]
        return best.reshape(theta.shape).to(theta)
