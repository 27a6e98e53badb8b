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

    target: Step

    def __init__(self, lam: float) -> None:
        super().__init__(noise=None, target=Step(lam), symmetric=False)

    @property
    def advice(self) -> str:
        """To take a larger λ, or an estimator with a relative step."""
        return (
            f"the step is too short to change their answers. Take IMLE(None, RelativeStep(1.0)), whose step fits θ "
            f"whatever the loss's scale, or a larger λ than {self.target.lam:g} (a loss that is a mean over the batch "
            f"divides a fixed step by the batch size)"
        )
