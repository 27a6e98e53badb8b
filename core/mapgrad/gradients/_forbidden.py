"""Forward passes whose θ = −inf forbids entries: these alone are forbidden, whatever noise and an estimator add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import torch

from mapgrad.gradients.estimators import IMLE, Estimator, Perturbed, StraightThrough, TwoSided

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions

AVERAGED: Final = (IMLE.gradient, StraightThrough.gradient, TwoSided.gradient)
"""The gradients of our own that take the mean of S states for one state, but for what adapts."""

PLAIN: Final = (Estimator.forward, IMLE.forward)
"""The forward passes of our own that only add noise: −inf stays as it is, and what they return is right."""

SPARING: Final = (*PLAIN, Perturbed.forward)
"""Those that ask for one solve a sample, and keep nothing of a sample but its state."""


class _Solve(Protocol):
    def __call__(self, rows: Tensor, *, may_forbid: Callable[[], Tensor]) -> Solutions: ...


class SolveOfForward:
    """Solves the rows that an estimator's forward pass makes of θ.

    Args:
        solve: Solves rows [..., B, *shape], and is told which entries −inf may forbid.
        perturbed: Solves θ [B, *shape] with noise that the solver adds; returns None where it doesn't.
        estimator: Whose pass it is.
        theta: [B, *shape], utilities.
        problem: What is solved; None for a function that doesn't say.

    Attributes:
        problem: As given.
        perturbed: As given; None where the estimator does more than to add noise.
    """

    def __init__(
        self,
        solve: _Solve,
        perturbed: Callable[[Tensor, Sampler, Temperature], Solutions | None],
        estimator: Estimator,
        theta: Tensor,
        problem: Problem | None,
    ) -> None:
        self._solve, self._theta, self.problem = solve, theta, problem
        self._lost: Tensor | None = None
        is_plain = type(estimator).forward in PLAIN
        self.perturbed = perturbed if is_plain else None
        if not is_plain:
            forbidden = theta.isneginf()
            self._lost = forbidden if bool(forbidden.any()) else None

    def __call__(self, rows: Tensor) -> Solutions:
        """Return the states of rows [..., B, *shape]."""
        theta = self._theta
        if self._lost is not None:
            rows = rows.masked_fill(self._lost, -torch.inf)
        return self._solve(rows, may_forbid=lambda: theta.isneginf().expand(rows.shape).flatten(0, -theta.ndim))
