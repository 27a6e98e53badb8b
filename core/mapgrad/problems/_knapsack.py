"""Sets of items within capacities."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.errors import ProblemError
from mapgrad.problems._arguments import numbers
from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem
from mapgrad.problems._enumeration import integer_points
from mapgrad.problems._program import IntegerProgram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray


class Knapsack(Problem):
    """All sets of items within every capacity, as 0/1 vectors over the items: weights @ z ≤ capacities.

    Args:
        weights: [m, n] finite numbers ≥ 0, the weight of each item under each of m ≥ 1 constraints; [n] for a single
            one. Kept as a read-only float64 array [m, n].
        capacities: [m] finite numbers ≥ 0, or one number for a single constraint. Kept as a read-only float64 array.

    Raises:
        ProblemError: sizes disagree, there are no items, or a number is negative, infinite or NaN.
    """

    weights: NDArray[np.float64]
    capacities: NDArray[np.float64]

    def __init__(self, weights: ArrayLike, capacities: ArrayLike) -> None:
        heavy, room = np.atleast_2d(numbers("weights", weights)), np.atleast_1d(numbers("capacities", capacities))
        if heavy.ndim != 2 or heavy.size == 0:
            raise ProblemError(f"weights must have shape [constraints, items], both at least 1, got {heavy.shape}")
        if room.shape != heavy.shape[:1]:
            raise ProblemError(
                f"capacities must hold one number for each of {len(heavy)} constraints, got {room.shape}"
            )
        for name, values in (("weights", heavy), ("capacities", room)):
            wrong = (values < 0) | np.isinf(values)
            if wrong.any():
                raise ProblemError(
                    f"{name} must be finite and ≥ 0, got {values[wrong][0]}; an IntegerProgram takes any coefficients"
                )
        self.weights = frozen_array(heavy + 0.0, np.float64)
        self.capacities = frozen_array(room + 0.0, np.float64)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,), one entry for each item."""
        return (self.weights.shape[1],)

    @property
    def kappa(self) -> float:
        """How many items of average weight fit, from 1 to n."""
        average = self.weights.mean(axis=1)
        full = average * self.shape[0] > self.capacities
        fitting = np.floor(self.capacities[full] / average[full])
        return float(max(fitting.min(initial=self.shape[0]), 1))

    def to_ilp(self) -> IntegerProgram:
        """Return the program with a row for each capacity: the same feasible set."""
        return self._program

    @cached_property
    def _program(self) -> IntegerProgram:
        return IntegerProgram(A_ub=self.weights, b_ub=self.capacities)

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        for sets in integer_points(self._program, self.enumeration_budget()):
            yield from sets[self.are_states(sets)]

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        return self._program.contains_rows(z)
