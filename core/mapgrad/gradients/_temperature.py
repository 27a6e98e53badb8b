"""Temperatures: what noise is multiplied by, a number or relative to each row's own scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapgrad.arguments import non_negative, positive
from mapgrad.gradients._scale import row_scale

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.problems import Problem


@dataclass(frozen=True)
class Relative:
    """A temperature relative to each row's own scale: τ = factor · scale(θ), for each row by itself.

    The scale is that of `RelativeStep` without noise: the root mean square of θ's distance from the boundary between
    in and out. A constant that the problem can't see takes no part, nor do entries past 12 typical distances from the
    boundary (masks at −1e9, or −inf). The typical distance is here the .5-quantile, or the third smallest where that is
    larger, as two entries beside the boundary may be as good as tied. A row whose entries all lie on the boundary, such
    as θ = 0, has scale 1: all its states are worth the same, and the noise alone decides between them at any τ > 0. So
    noise fits prices in the hundreds and costs of .01 alike, and the law of MAP(θ + τε) is the same for θ and 1000 θ.

    In a gradient τ counts as a constant: it is ∂L/∂θ at τ held, as with a number in its place.

    Args:
        factor: How many scales of its row the temperature is.

    Raises:
        ValueError: `factor` isn't positive and finite.

    Example:
        >>> import mapgrad
        >>> mapgrad.IMLE(temperature=mapgrad.gradients.Relative(0.5)).temperature
        Relative(factor=0.5)
    """

    factor: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", positive("factor", self.factor))


Temperature = float | Relative


def require_temperature(name: str, value: Temperature) -> Temperature:
    """Return an argument as it is where it is relative, else as a float.

    Raises:
        TypeError: it isn't a number.
        ValueError: it is negative, infinite or NaN.
    """
    return value if isinstance(value, Relative) else non_negative(name, value)


def scale_for(temperature: Temperature, theta: Tensor, event_ndim: int, problem: Problem | None) -> Tensor | None:
    """Return the scale of rows θ [*batch, *shape] that a temperature is relative to, [*batch, 1, …]; None for none."""
    return row_scale(theta, event_ndim, problem) if isinstance(temperature, Relative) else None


def require_multiplier(temperature: Temperature) -> float:
    """Return the temperature of multiplicative noise.

    Raises:
        TypeError: it is relative.
    """
    if isinstance(temperature, Relative):
        raise TypeError(
            f"multiplicative noise is relative to each entry as it is, so that its temperature must be a number, "
            f"got {temperature}: take temperature={temperature.factor:g}"
        )
    return temperature
