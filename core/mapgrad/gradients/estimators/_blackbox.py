"""Differentiation of black-box solvers."""

from __future__ import annotations

from mapgrad.gradients._targets import Step
from mapgrad.gradients.estimators._imle import IMLE


class Blackbox(IMLE):
    """Differentiation of black-box solvers (Vlastelica et al., ICLR 2020, arXiv 1912.02175).

    grad = (MAP(θ) − MAP(θ − λ ∂L/∂z)) / λ: the exact gradient of a piecewise linear interpolation of the loss.

    Args:
        lam: λ, in units of θ per unit of ∂L/∂z. A loss that is a mean over the batch divides what it does by the batch
            size.

    Raises:
        ValueError: `lam` isn't positive and finite.
    """

    def __init__(self, lam: float) -> None:
        super().__init__(noise=None, target=Step(lam), symmetric=False)
