"""Perturb-and-MAP in the style of torch.distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

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

    def sample(
        self,
        theta: object,
        samples: int,
        *,
        perturb: bool = True,
        is_mean: bool = False,
        context: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Tensor:
        """Return MAP states of copies of θ."""
        ...


class PerturbAndMAP(Distribution):
    """The law of MAP(θ + τε) over a feasible set (Papandreou and Yuille, ICCV 2011).

    Args:
        layer: Solver, estimator and noise.
        theta: [*batch, *shape], costs if the layer minimises.
        context: What else a function takes in place of a solver, with each batch.
        named: The same by name.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType] (as in torch's own)
    has_rsample = True

    def __init__(
        self, layer: Layer, theta: Tensor, context: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> None:
        split = layer.solver.at_work().lead_ndim(theta)
        super().__init__(theta.shape[:split], theta.shape[split:], validate_args=False)
        self.layer = layer
        self.theta = theta
        self._context = context
        self._named = named

    def _draw(self, samples: int, *, perturb: bool = True, is_mean: bool = False) -> Tensor:
        return self.layer.sample(
            self.theta, samples, perturb=perturb, is_mean=is_mean, context=self._context, named=self._named
        )

    def expand(self, batch_shape: Sequence[int], _instance: Distribution | None = None) -> PerturbAndMAP:
        """Return the same law for a larger batch, whose rows are drawn independently; context stays as it is."""
        theta = self.theta.expand(*batch_shape, *self.event_shape)
        return PerturbAndMAP(self.layer, theta, self._context, self._named)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, with the estimator's gradient for θ.

        Returns:
            [*sample_shape, *batch, *shape] of θ's dtype and device.
        """
        shape = Size(sample_shape)
        z = self._draw(shape.numel())
        return z.reshape(*shape, *self.theta.shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw states, without a gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    @property
    def mode(self) -> Tensor:
        """MAP(θ), [*batch, *shape]: the state of the largest ⟨θ, z⟩."""
        with torch.no_grad():
            return self._draw(1, perturb=False, is_mean=True)

    @property
    def mean(self) -> Tensor:
        """A Monte Carlo estimate of the marginals from the estimator's number of samples, with its gradient."""
        return self._draw(self.layer.estimator.samples, is_mean=True)

    @property
    def variance(self) -> Tensor:
        """Not there: it is that of samples."""
        raise NotImplementedError(f"{_NO_FORMULA}: take law.sample((1000,)).var(0)")

    @property
    def support(self) -> Any:
        """Not there: the states are a finite set, which torch's constraints can't describe."""
        raise NotImplementedError(
            "torch.distributions.constraints has no name for a feasible set: law.layer.problem.contains(z) tells "
            "states, and problem.states() lists those of a small one"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Not there: see the message."""
        raise NotImplementedError(f"{_NO_FORMULA}: {_BY_FREQUENCY}; {_GIBBS}")

    def entropy(self) -> Tensor:
        """Not there: see the message."""
        raise NotImplementedError(f"{_NO_FORMULA}: {_BY_FREQUENCY}; {_GIBBS}")

    def perplexity(self) -> Tensor:
        """Not there: see `entropy`."""
        return self.entropy()

    def cdf(self, value: Tensor) -> Tensor:
        """Not there: states have no order."""
        raise NotImplementedError(_NO_ORDER)

    def icdf(self, value: Tensor) -> Tensor:
        """Not there: states have no order."""
        raise NotImplementedError(_NO_ORDER)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Not there: the states don't depend on the batch."""
        raise NotImplementedError(
            "the states are the problem's, not the batch's: law.layer.problem.states() lists those of a small one"
        )


_NO_FORMULA: Final = "the law of MAP(θ + noise) has no closed form"
_BY_FREQUENCY: Final = "estimate it from the frequencies of law.sample((1000,))"
_GIBBS: Final = (
    "the Gibbs law, whose probabilities are proportional to exp ⟨θ, z⟩, has log-probabilities for small problems: "
    "mapgrad.exact.probabilities(problem, theta).log()"
)
_NO_ORDER: Final = (
    "states are vectors in a finite set, which have no order: law.mean gives marginals, law.mode the best state"
)
