"""Perturb-and-MAP in the style of torch.distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.gradients import Engine


class PerturbAndMAP(Distribution):
    """The law of MAP(θ + τε) over a feasible set (Papandreou and Yuille, ICCV 2011).

    Args:
        engine: Solver, estimator and noise; a `MAPLayer` is one.
        theta: [*batch, *shape], utilities.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] (as in torch's own)
    has_rsample = True

    def __init__(self, engine: Engine, theta: Tensor) -> None:
        split = theta.ndim - engine.event_ndim(theta)
        super().__init__(theta.shape[:split], theta.shape[split:], validate_args=False)
        self.engine = engine
        self.theta = theta

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, with the estimator's gradient for θ.

        Returns:
            [*sample_shape, *batch, *shape] of θ's dtype and device.
        """
        shape = Size(sample_shape)
        z = self.engine.sample(self.theta, shape.numel())
        return z.reshape(*shape, *self.theta.shape).to(self.theta.dtype)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    @property
    def mode(self) -> Tensor:
        """MAP(θ), [*batch, *shape]: the state of the largest ⟨θ, z⟩."""
        with torch.no_grad():
            return self.engine.sample(self.theta, 1, perturb=False).squeeze(0).to(self.theta.dtype)

    @property
    def mean(self) -> Tensor:
        """A Monte Carlo estimate of the marginals from the estimator's number of samples, with its gradient."""
        return self.rsample((self.engine.estimator.samples,)).mean(dim=0)
