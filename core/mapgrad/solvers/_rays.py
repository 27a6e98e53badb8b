"""Directions in which a program's set has no end."""

from __future__ import annotations

import operator
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.solvers._limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from mapgrad.problems import IntegerProgram

_GROWTH: Final = 1e-9
"""The least growth, in parts of Σ |θ_j d_j|, that isn't taken for rounding."""


class Cone:
    """All d with A d ≤ 0 where a row has an upper side, ≥ 0 where it has a lower one, and the same of variables.

    Where a program of rational data has a feasible point, its optimum is unbounded if and only if ⟨θ, d⟩ > 0 for such a
    d, be the variables integer or not (R. R. Meyer: On the existence of optimal solutions to integer and mixed-integer
    programming problems, 1974).
    """

    def __init__(self, program: IntegerProgram) -> None:
        self._program = program
        self._seen = Limits.of(program)
        self._directions = self.limits(self._seen)
        self._is_open = self._has_directions()
        self._is_trivial: dict[bytes, bool] = {}

    @cached_property
    def program(self) -> IntegerProgram:
        """The linear program of the directions with |d_j| ≤ 1."""
        return self._program.replace(**self.limits(Limits.of(self._program))._asdict(), integrality=0)

    @cached_property
    def _prices(self) -> NDArray[np.float64]:
        generator, width = np.random.default_rng(0), self._program.num_vars
        return generator.uniform(0.5, 1, width) * generator.choice([-1, 1], width)

    @staticmethod
    def limits(limits: Limits) -> Limits:
        """Return the bounds and sides of the directions in which a set with these has no end."""
        return Limits(
            np.where(np.isneginf(limits.lower), -1.0, 0.0),
            np.where(np.isposinf(limits.upper), 1.0, 0.0),
            np.where(np.isneginf(limits.row_lower), -np.inf, 0.0),
            np.where(np.isposinf(limits.row_upper), np.inf, 0.0),
        )

    def driven(self, theta: NDArray[np.float64], limits: Limits) -> Limits | None:
        """Return `limits` of these, if θ drives a variable towards a bound that it lacks; None else."""
        if not all(map(operator.is_, limits, self._seen)):
            self._seen, self._directions = limits, self.limits(limits)
            self._is_open = self._has_directions()
        lower, upper = self._directions.lower, self._directions.upper
        if self._is_open and ((theta * lower > 0) | (theta * upper > 0)).any():
            return self._directions
        return None

    def _has_directions(self) -> bool:
        return bool(self._directions.lower.any() or self._directions.upper.any())

    def grows(
        self,
        theta: NDArray[np.float64],
        directions: Limits,
        farthest: Callable[[NDArray[np.float64]], NDArray[np.float64] | None],
    ) -> bool:
        """Tell whether ⟨θ, d⟩ > 0 for one of these directions.

        Args:
            theta: [num_vars].
            directions: What `limits` returns.
            farthest: Maps prices [num_vars] to the d that maximises ⟨prices, d⟩; None where time is up.
        """
        key = b"".join(each.tobytes() for each in directions)
        if key not in self._is_trivial:
            # A cone that isn't the origin alone lies in the half-space of random prices, and in that of their negative,
            # with probability zero.
            ends = [farthest(prices) for prices in (self._prices, -self._prices)]
            if any(end is None for end in ends):
                return False
            self._is_trivial[key] = all(abs(float(self._prices @ end)) <= _GROWTH for end in ends if end is not None)
        if self._is_trivial[key]:
            return False
        prices = np.where((directions.lower < 0) | (directions.upper > 0), theta, 0.0)
        prices = np.ldexp(prices, -np.frexp(np.abs(prices).max())[1])  # small utilities decide, where they are alone
        end = farthest(prices)
        return end is not None and float(prices @ end) > _GROWTH * float(np.abs(prices) @ np.abs(end))
