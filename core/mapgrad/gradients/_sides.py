"""The two rows on both sides of θ that two-sided I-MLE compares, of which each may lie at a distance of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from mapgrad.gradients._arguments import non_negative, positive
from mapgrad.gradients._context import Context
from mapgrad.gradients._laws import Gaussian
from mapgrad.gradients._scale import relative_step
from mapgrad.problems import Domain

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Forward
    from mapgrad.problems import Problem

_STEP: Final = 0.5
"""Where no problem is known."""


class Sides(NamedTuple):
    """Rows on both sides of θ.

    Attributes:
        away: [S or 1, B, *shape], a steps up the loss's gradient.
        toward: [S or 1, B, *shape], b steps down.
        length: [S or 1, B, 1, …], the factor of g̃ that lies between them.
    """

    away: Tensor
    toward: Tensor
    length: Tensor


def require_sides(sides: tuple[float, float]) -> tuple[float, float]:
    """Return (a, b) as floats.

    Raises:
        ValueError: a is negative, b isn't positive, or one isn't finite.
    """
    away, toward = sides
    return non_negative("sides", away), positive("sides", toward)


def sides_of(
    forward: Forward, gradient: Tensor, step: float | None, sides: tuple[float, float], temperature: Temperature
) -> Sides:
    """Return the rows to compare, by the step of `RelativeStep`.

    Args:
        forward: The forward pass.
        gradient: [S or 1, B, *shape], g̃.
        step: Its length relative to the scale of θ; None for √min(1, 2κ/n), as no more than 2κ of n entries differ
            between two states.
        sides: (a, b).
        temperature: τ.
    """
    theta, sampler = forward.theta[None], forward.sampler
    context = Context(theta.ndim - 2, forward.problem, lambda: sampler.noise_std(forward.theta, temperature))
    factor = _typical_step(forward.problem) if step is None else step
    offset, divisor = relative_step(theta, gradient, factor, context)
    away, toward = sides
    return Sides(theta + away * offset, theta - toward * offset, (divisor * (away + toward)).to(theta.dtype))


def _typical_step(problem: Problem | None) -> float:
    return _STEP if problem is None else math.sqrt(min(2 * problem.kappa / math.prod(problem.shape), 1.0))


def gaussian_for(problem: Problem | None, temperature: Temperature) -> Noise | None:
    """Return Gaussian noise, or none where the problem's domain would clip it or no problem is known."""
    is_free = problem is not None and problem.domain is Domain.REAL
    return Gaussian() if is_free and temperature != 0 else None
