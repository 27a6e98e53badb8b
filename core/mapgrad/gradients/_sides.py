"""The two rows on both sides of θ that two-sided I-MLE compares, of which each may lie at a distance of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from mapgrad.arguments import non_negative, positive
from mapgrad.gradients._context import Context
from mapgrad.gradients._scale import relative_step

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Forward
    from mapgrad.problems import Problem

_STEP: Final = 0.5
"""Where no problem is known."""

_SIDES: Final = (0.5, 2.0)

_STEP_WITHOUT_NOISE: Final = 1.0
_SIDES_WITHOUT_NOISE: Final = (0.0, 1.0)
"""Then a step away from the loss's optimum moves answers that are right, too."""


class Sides(NamedTuple):
    """Rows on both sides of θ.

    Attributes:
        away: [S or 1, B, *shape], a steps up the loss's gradient; θ itself where a is 0.
        toward: [S or 1, B, *shape], b steps down.
        length: [S or 1, B, 1, …] float64, the factor of g̃ that lies between them.
        is_one_sided: Whether a is 0, so that the forward pass has solved for `away`.
    """

    away: Tensor
    toward: Tensor
    length: Tensor
    is_one_sided: bool


def require_sides(sides: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return (a, b) as floats; None as it is.

    Raises:
        TypeError: they aren't two numbers.
        ValueError: a is negative, b isn't positive, or one isn't finite.
    """
    if sides is None:
        return None
    try:
        away, toward = sides
    except (TypeError, ValueError):
        raise TypeError(f"sides must be two numbers (a, b), such as (0.5, 2.0), or None, got {sides!r}") from None
    return non_negative("sides", away), positive("sides", toward)


def sides_of(
    forward: Forward, gradient: Tensor, step: float | None, sides: tuple[float, float] | None, temperature: Temperature
) -> Sides:
    """Return the rows to compare, by the step of `RelativeStep`.

    Args:
        forward: The forward pass.
        gradient: [S or 1, B, *shape], g̃.
        step: Its length relative to the scale of θ; None for √min(1, 2κ/n) with noise, as no more than 2κ of n entries
            differ between two states, and 1 without.
        sides: (a, b); None for (.5, 2) with noise, and (0, 1) without.
        temperature: τ.
    """
    theta, sampler = forward.theta[None], forward.sampler
    context = Context(theta.ndim - 2, forward.problem, lambda: sampler.noise_std(forward.theta, temperature))
    if step is None:
        step = _typical_step(forward.problem) if sampler.has_noise else _STEP_WITHOUT_NOISE
    if sides is None:
        sides = _SIDES if sampler.has_noise else _SIDES_WITHOUT_NOISE
    offset, divisor = relative_step(theta, gradient, step, context)
    away, toward = sides
    length = divisor * (away + toward)
    return Sides(theta + away * offset, theta - toward * offset, length, is_one_sided=not away)


def solved_difference(forward: Forward, sides: Sides, temperature: Temperature) -> Tensor:
    """Return the difference of the solver's answers on both sides, with the forward pass's noise."""
    if sides.is_one_sided:
        return forward.z - forward.states(sides.toward, temperature)
    return forward.difference(sides.away, sides.toward, temperature)


def _typical_step(problem: Problem | None) -> float:
    return _STEP if problem is None else math.sqrt(min(2 * problem.kappa / math.prod(problem.shape), 1.0))
