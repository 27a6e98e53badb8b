"""I-MLE's finite difference as the correction of a pool's derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from mapgrad.arguments import non_negative
from mapgrad.batching import name_problem
from mapgrad.errors import UnsupportedProblemError
from mapgrad.gradients._context import Context
from mapgrad.gradients._division import divided
from mapgrad.gradients._targets import RelativeStep, Step
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
    sample. A single row's gradient is a noisy one: for training see `Pooled`. In passes without noise, as in eval mode,
    it is D_solver.

    Args:
        problem: What the layer solves.
        noise: ρ(ε), a law with a differentiable `log_prob`; "auto" for Gaussian noise.
        pool: The states to ask, a `StatePool` of the problem, which losses and other layers may share; None for one of
            its own, of 512 to 585 states once it is full. What others add to it must not come from the step's
            own noise.
        samples: S, forward solves a row.
        temperature: τ > 0, a number or `Relative`.
        draws: M, at least 2: fresh noises a row for which the pool's best state is looked up.
        target: The step, a `RelativeStep` or a `Step`; None for ``RelativeStep()``.
        correction: c, at least 0.

    Raises:
        TypeError: `problem` isn't a `Problem`, `noise` has no `log_prob`, or `target` is another one; or as
            `Estimator`.
        ValueError: an argument is out of range; or noise="auto" would be clipped by the problem's domain, so that there
            is none.
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
        target: RelativeStep | Step | None = None,
        correction: float = 1.0,
    ) -> None:
        super().__init__(problem, pool, noise, samples=samples, temperature=temperature, draws=draws)
        self.require_density()
        target = RelativeStep() if target is None else target
        if not isinstance(target, RelativeStep | Step):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"target must be a RelativeStep or a Step, such as RelativeStep(0.5), got {target!r}")
        self.target = target
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
        if not sampler.has_noise:
            return divided(difference / 2, divisor).mean(dim=0)
        one, other = snapshot.best(sampler.perturb(torch.stack([away, toward]), temperature))
        found = (difference - (one - other)) * (self.correction / 2)
        found = divided(found, divisor).mean(dim=0)
        if len(snapshot.states):
            law = self.noise_for(forward.problem)
            found += snapshot.derivative(law, forward.theta, gradient, sampler.others(self.draws), temperature)
        return found

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"{self.problem!r}, noise={self.noise}, samples={self.samples}, temperature={self.temperature}, "
            f"draws={self.draws}, correction={self.correction}"
        )
