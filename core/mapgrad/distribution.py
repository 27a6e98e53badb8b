"""Perturb-and-MAP in the style of torch.distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Size, Tensor
from torch.distributions import Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching import Solver
    from mapgrad.gradients import Estimator


class Layer(Protocol):
    """What a distribution needs of a `MAPLayer`."""

    solver: Solver
    estimator: Estimator

    def sample(self, theta: object, samples: int, *, perturb: bool = True, is_mean: bool = False) -> Tensor:
        """Return MAP states of copies of θ."""
        ...


class PerturbAndMAP(Distribution):
    """The law of MAP(θ + τε) over a feasible set (Papandreou and Yuille, ICCV 2011).

    Args:
        layer: Solver, estimator and noise.
        theta: [*batch, *shape], costs if the layer minimises.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] (as in torch's own)
    has_rsample = True

    def __init__(self, layer: Layer, theta: Tensor) -> None:
        split = layer.solver.at_work().lead_ndim(theta)
        super().__init__(theta.shape[:split], theta.shape[split:], validate_args=False)
        self.layer = layer
        self.theta = theta

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, with the estimator's gradient for θ.

        Returns:
            [*sample_shape, *batch, *shape] of θ's dtype and device.
        """
        shape = Size(sample_shape)
        z = self.layer.sample(self.theta, shape.numel())
        return z.reshape(*shape, *self.theta.shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    @property
    def mode(self) -> Tensor:
        """MAP(θ), [*batch, *shape]: the state of the largest ⟨θ, z⟩."""
        with torch.no_grad():
            return self.layer.sample(self.theta, 1, perturb=False, is_mean=True)

    @property
    def mean(self) -> Tensor:
        """A Monte Carlo estimate of the marginals from the estimator's number of samples, with its gradient."""
        return self.layer.sample(self.theta, self.layer.estimator.samples, is_mean=True)
