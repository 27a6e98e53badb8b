"""The exact gradient of the Gibbs law's mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mapgrad.arguments import positive
from mapgrad.exact import oracle
from mapgrad.gradients._scale import require_scalable, row_scale
from mapgrad.gradients._temperature import Relative
from mapgrad.gradients.estimators._checks import require_same_problem
from mapgrad.gradients.estimators._estimator import Estimator, Forward
from mapgrad.solutions import Status

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Solve
    from mapgrad.problems import Problem


class Exact(Estimator):
    """The Gibbs law's mean μ = E z, p(z) ∝ exp(⟨θ, z⟩ / τ), and its exact gradient Cov(z) g / τ, without noise.

    In training a layer gives μ, a mean of states as that of many samples is, and the gradient is that of L(μ(θ)). In
    eval mode it gives MAP(θ), by its solver as ever. θ isn't clipped to the problem's domain. A row all states of which
    θ = −inf forbids has no law: in training it raises InfeasibleError, whatever `on_error` says.

    Args:
        problem: What the layer solves; `mapgrad.exact.oracle` says which ones have an oracle.
        temperature: τ > 0, a number or `Relative`.

    Raises:
        UnsupportedProblemError: there is no oracle; or the temperature is relative, and a program's variables that θ
            doesn't price have utilities.
        ProblemError: a row takes too much memory, or there are too many states to enumerate.
        ValueError: `temperature` isn't positive and finite.
    """

    def __init__(self, problem: Problem, *, temperature: Temperature = 1.0) -> None:
        if isinstance(temperature, Relative):
            require_scalable(problem, "a relative temperature")
        else:
            temperature = positive("temperature", temperature)
        super().__init__(None, samples=1, temperature=temperature)
        self.problem = problem
        oracle(problem)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def noise_for(self, problem: Problem | None) -> Noise | None:
        """Return None; refuse another problem than the estimator's own.

        Raises:
            UnsupportedProblemError: it is another one.
        """
        require_same_problem(self, problem)
        return None

    def forward(self, theta: Tensor, sampler: Sampler, solve: Solve) -> Forward:
        """Return μ; in eval mode MAP(θ).

        Raises:
            ValueError: other than one sample is asked for in training.
        """
        if not self.training:
            return super().forward(theta, sampler, solve)
        if sampler.samples != 1:
            raise ValueError(
                f"Exact gives the mean of Gibbs' law, which isn't random, but {sampler.samples} samples were asked "
                f"for: take mapgrad.exact.sample(problem, theta, …), or an estimator with noise"
            )
        with torch.no_grad():
            rows, temperature, _ = self._scaled(theta)
            means = oracle(self.problem).marginals(rows, temperature)
        status = torch.full((1, len(theta)), int(Status.OPTIMAL), device=theta.device)
        return Forward(means.unsqueeze(0), status)

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return Cov(z) g / τ."""
        rows, temperature, scale = self._scaled(forward.theta)
        # the first switches autograd on again, too, where a transform of torch.func asks
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaf = rows.detach().requires_grad_()
            means = oracle(self.problem).marginals(leaf, temperature)
            (slope,) = torch.autograd.grad(means, leaf, gradient[0])
        return slope / scale

    def _scaled(self, theta: Tensor) -> tuple[Tensor, float, Tensor | float]:
        """Return rows of the same law at one temperature, this temperature, and what θ was divided by."""
        if isinstance(self.temperature, Relative):
            scale = row_scale(theta, len(self.problem.shape), self.problem)
            return theta / scale, self.temperature.factor, scale
        return theta, self.temperature, 1.0

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.problem!r}, temperature={self.temperature}"
