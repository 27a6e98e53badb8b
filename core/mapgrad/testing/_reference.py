"""Small problems by enumeration: all states with what they are worth, and a solver that looks at each of them."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from mapgrad.errors import InfeasibleError
from mapgrad.problems import Problem
from mapgrad.solutions import Solutions, Status
from mapgrad.solvers import BatchSolver, lower

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Enumeration:
    """What enumeration knows of a problem.

    Args:
        problem: The feasible set.

    Raises:
        ProblemError: The problem has too many states to enumerate, or one is worth what can't be told.
        InfeasibleError: The problem has no state.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._states = problem.state_rows()  # an array: a tensor would belong to the transform that made it first

    @property
    def states(self) -> Tensor:
        """All states, [M, *shape] float64 CPU."""
        return torch.as_tensor(self._states)

    @property
    def fixed(self) -> Tensor:
        """What a state is worth beside ⟨θ, z⟩: the best ⟨fixed, y⟩ over the variables y that θ doesn't price, [M]."""
        return torch.as_tensor(self._fixed)

    @cached_property
    def _fixed(self) -> NDArray[np.float64]:
        return self.problem.completion_values(self._states)

    def values(self, theta: Tensor) -> Tensor:
        """Return what each state is worth, [N, M], for rows of θ [N, *shape] float64 CPU; −inf if it is forbidden."""
        states, forbidden = self.states.flatten(1), theta.isneginf()
        values = theta.masked_fill(forbidden, 0.0).flatten(1) @ states.T + self.fixed
        is_barred = forbidden.flatten(1).double() @ (states != 0).double().T > 0
        return values.masked_fill(is_barred, -torch.inf)

    def value(self, theta: Tensor, z: Tensor) -> Tensor:
        """Return what the states z [N, *shape] are worth, [N], for rows of θ [N, *shape], both float64 CPU.

        No state may hold an entry that θ = −inf forbids.
        """
        value = (theta.masked_fill(theta.isneginf(), 0.0) * z).flatten(1).sum(1)
        if self.fixed.any():
            value += self.fixed[[self._numbers[np.asarray(state).tobytes()] for state in z + 0.0]]  # no negative zeros
        return value

    def scales(self, theta: Tensor) -> Tensor:
        """Return the power of two that brings the largest utility of each row into [½, 1), [N] float64; −inf aside."""
        rows = torch.as_tensor(lower(self.problem, None).rows(np.asarray(theta.masked_fill(theta.isneginf(), 0.0))))
        return torch.exp2(torch.frexp(rows.flatten(1).abs().amax(1)).exponent.to(torch.float64))

    @cached_property
    def _numbers(self) -> dict[bytes, int]:
        return {z.tobytes(): number for number, z in enumerate(self._states)}


@lru_cache(maxsize=8)
def enumeration_of(problem: Problem) -> Enumeration:
    """Return what is known of a problem, kept for the next law on it."""
    return Enumeration(problem)


class BruteForce(BatchSolver[Problem]):
    """Enumerates `Problem.states` and takes the best: exact, on any device, for small problems only.

    Args:
        problem: The feasible set.

    Raises:
        ProblemError: The problem has too many states to enumerate.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        try:
            self._enumeration = enumeration_of(problem)
        except InfeasibleError:
            self._enumeration = None

    def solve(self, theta: Tensor) -> Solutions:
        """Return argmax ⟨θ, z⟩ over all states, with what θ doesn't price at its best; of equals the first.

        Args:
            theta: [N, *shape], any float dtype and device; not written to.

        Returns:
            z [N, *shape] of θ's dtype and device, with `Status.OPTIMAL` or, where there is no state,
            `Status.INFEASIBLE`.
        """
        if self._enumeration is None:
            z, status = torch.full_like(theta, torch.nan), Status.INFEASIBLE
            values = torch.full((len(theta),), torch.nan, dtype=torch.float64)
        else:
            values, best = self._enumeration.values(theta.to("cpu", torch.float64)).max(1)
            z, status = self._enumeration.states[best].to(theta), Status.OPTIMAL
        statuses = torch.full((len(theta),), status, device=theta.device)
        return Solutions(z, statuses, values.to(theta.device), values.to(theta.device))
