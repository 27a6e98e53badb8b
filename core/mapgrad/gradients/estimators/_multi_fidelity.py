"""I-MLE's finite difference as the correction of a pool's derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from mapgrad.batching import name_problem
from mapgrad.errors import UnsupportedProblemError
from mapgrad.gradients._arguments import non_negative
from mapgrad.gradients._context import Context
from mapgrad.gradients._division import divided
from mapgrad.gradients._noise import require_density
from mapgrad.gradients._targets import RelativeStep
from mapgrad.gradients.estimators._with_pool import PoolEstimator

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Forward
    from mapgrad.pool import StatePool
    from mapgrad.problems import Problem


class MultiFidelity(PoolEstimator):
    """A pool's derivative, corrected by the difference of solver and pool at the same noise.

    With P the states of earlier steps, J_P the derivative of E z_P(θ + τε), and D(ε) the central difference of answers
    divided by its step: J_P g + c · (1/S) Σ_s (D_solver(ε_s) − D_P(ε_s)), with J_P g by the score function over M
    noises. P doesn't depend on the step's noise, so that for c = 1 what the pool lacks adds no bias; what is left is
    that of D, of the square of λ. It estimates the gradient of L(E MAP(θ + τε)), and costs two backward solves a
    sample. A single row's gradient is a noisy one: for training see `Pooled`.

    Args:
        problem: What the layer solves.
        noise: ρ(ε), a law with a differentiable `log_prob`; for "auto", pool, samples, temperature and draws see
            `PoolEstimator`.
        pool: See there; what other users of it add must not come from the step's own noise.
        samples: See there.
        temperature: τ > 0.
        draws: See there.
        target: The step.
        correction: c.

    Raises:
        TypeError: `noise` has no `log_prob`.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        noise: Noise | Literal["auto"] = "auto",
        *,
        pool: StatePool | None = None,
        samples: int = 1,
        temperature: Temperature = 1.0,
        draws: int = 64,
        target: RelativeStep | None = None,
        correction: float = 1.0,
    ) -> None:
        super().__init__(problem, pool, noise, samples=samples, temperature=temperature, draws=draws)
        if noise != "auto":
            require_density(noise, self.temperature)
        self.target = RelativeStep() if target is None else target
        self.correction = non_negative("correction", correction)

    def noise_for(self, problem: Problem | None) -> Noise | None:
        """Return the noise; refuse another problem than the estimator's own.

        Raises:
            UnsupportedProblemError: it is another one.
        """
        if problem != self.problem:
            raise UnsupportedProblemError(
                f"this MultiFidelity is for {name_problem(self.problem)}, but the layer solves "
                f"{'a function' if problem is None else name_problem(problem)}: its states serve one problem alone"
            )
        return super().noise_for(problem)

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return J_P g + c · (1/S) Σ_s (D_solver(ε_s) − D_P(ε_s))."""
        theta, sampler, temperature = forward.theta[None], forward.sampler, self.temperature
        context = Context(theta.ndim - 2, forward.problem, lambda: sampler.noise_std(forward.theta, temperature))
        toward, away, divisor = self.target.both_sides(theta, gradient, context)
        solved = forward.solve_perturbed(torch.stack([away, toward]), temperature).z
        snapshot = self.snapshot(forward)
        self.record(forward, solved)
        difference = solved[0] - solved[1]
        forward.observe(difference, gradient)
        one, other = snapshot.best(sampler.perturb(torch.stack([away, toward]), temperature))
        found = (difference - (one - other)) * (self.correction / 2)
        found = divided(found, divisor).mean(dim=0)
        if sampler.has_noise and len(snapshot.states):
            law = self.noise_for(forward.problem)
            found += snapshot.derivative(law, forward.theta, gradient, sampler.others(self.draws), temperature)
        return found

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"{self.problem!r}, noise={self.noise}, samples={self.samples}, temperature={self.temperature}, "
            f"draws={self.draws}, correction={self.correction}"
        )
