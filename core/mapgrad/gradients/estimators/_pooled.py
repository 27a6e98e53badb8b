"""I-MLE whose backward pass asks a pool of states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from mapgrad.arguments import number, positive
from mapgrad.batching import require_bool
from mapgrad.gradients._division import divided
from mapgrad.gradients._sides import require_sides, sides_of, solved_difference
from mapgrad.gradients.estimators._with_pool import PoolEstimator

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sides import Sides
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Forward
    from mapgrad.pool import StatePool
    from mapgrad.problems import Problem


class Pooled(PoolEstimator):
    """Two-sided I-MLE that takes its backward answers from the states that a solver has returned before.

    A feasible set is one for all rows and steps, so what was optimal for some is a candidate for all. Forward:
    z = MAP(θ + τε), the only solve. Backward, with z_P the best state of the pool and of the row's own answers, and M
    fresh noises ε_m: (1/M) Σ_m (z_P(θ⁻ + τε_m) − z_P(θ⁺ + τε_m)), where θ⁺ steps b · step down the loss's gradient, as
    `RelativeStep` does with λ = step, and θ⁻ a · step up, divided by both steps' length. While the pool is new to more
    than 1 − gate of the forward answers, two more solves a sample, at θ⁺ + τε and θ⁻ + τε, fill it.

    It learns with fewer solves, and isn't a gradient without bias: a long step towards better answers and a short one
    away. With ``sides=(0.5, 0.5)`` it comes closer to the gradient of L(E MAP(θ + τε)).

    With `derivative`, the gradient of L(E z_P(θ + τε)) takes the place of the difference, without steps and backward
    solves: the score function's estimate over M fresh noises, which wants many. It is that of L(E MAP(θ + τε)) as far
    as the pool holds the states that the noise reaches, and too short else: 0 in the first step of one sample, where a
    row knows its own answer alone.

    The states of a step are used from the next one on: a row's gradient doesn't depend on the rows beside it. Rows with
    problems of their own get `TwoSided`'s gradient, without a pool. `state_dict` has the pool, and what waits for it.
    Within DistributedDataParallel all ranks share what they found, so that their pools are equal, and equal to that of
    one rank with the whole batch; not under its `join`. To be resumed bit for bit, each rank saves and loads its own
    `state_dict`.

    Args:
        problem: What the layer solves.
        noise: ρ(ε); "auto" for Gaussian noise, or none where the problem's domain would clip it; None for none. For a
            `derivative` a law with a differentiable `log_prob`.
        pool: The states to ask, a `StatePool` of the problem, which losses and other layers may share; None for one of
            its own, of 512 to 585 states once it is full.
        samples: S, forward solves a row.
        temperature: τ, at least 0 and for a `derivative` more, a number or `Relative`.
        draws: M, at least 2: fresh noises a row for which the pool is asked; each costs two products with all of it.
        step: The step's length relative to the scale of θ; None for √min(1, 2κ/n) in passes with noise, as no more than
            2κ of n entries differ between two states, and 1 in others.
        sides: (a, b), the shares of the step that θ⁻ and θ⁺ go; None for (.5, 2) in passes with noise, and (0, 1) in
            others, where a step away from the loss's optimum moves answers that are right, too.
        gate: The share of forward answers that the pool must have held already for backward solves to end, from 0 (no
            backward solves) to 1 (always).
        derivative: Whether the derivative takes the place of the difference; not in passes without noise, as in eval
            mode.

    Raises:
        TypeError: `problem` isn't a `Problem`, `derivative` isn't a bool, or its `noise` has no `log_prob`; or as
            `Estimator`.
        ValueError: an argument is out of range; or a `derivative`'s noise="auto" would be clipped by the problem's
            domain, so that there is none.
    """

    def __init__(
        self,
        problem: Problem,
        noise: Noise | Literal["auto"] | None = "auto",
        *,
        pool: StatePool | None = None,
        samples: int = 1,
        temperature: Temperature = 1.0,
        draws: int = 16,
        step: float | None = None,
        sides: tuple[float, float] | None = None,
        gate: float = 0.7,
        derivative: bool = False,
    ) -> None:
        super().__init__(problem, pool, noise, samples=samples, temperature=temperature, draws=draws)
        self.step = None if step is None else positive("step", step)
        self.sides = require_sides(sides)
        if not 0 <= number("gate", gate) <= 1:
            raise ValueError(f"gate must be from 0 to 1, got {gate!r}")
        self.gate = number("gate", gate)
        self.derivative = require_bool("derivative", derivative)
        if derivative:
            self.require_density()

    @property
    def advice(self) -> str:
        """To take a longer step, or more states."""
        return (
            "the steps reach no other state of the pool: take a longer step, or gate=1.0, so that the solver looks for "
            "states where the pool has none"
        )

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return (1/M) Σ_m (z_P(θ⁻ + τε_m) − z_P(θ⁺ + τε_m)), divided by both steps' length; or the derivative."""
        is_own = forward.problem is self.problem or forward.problem == self.problem
        if self.derivative and is_own and forward.sampler.has_noise:
            return self._derivative(forward, gradient)
        sides = sides_of(forward, gradient, self.step, self.sides, self.temperature)
        if is_own:
            difference = self._pooled_difference(forward, sides)
        else:
            difference = solved_difference(forward, sides, self.temperature)
        forward.observe(difference, gradient)
        return divided(difference, sides.length).mean(dim=0)

    def _derivative(self, forward: Forward, gradient: Tensor) -> Tensor:
        law = self.noise_for(forward.problem)
        noise = forward.sampler.others(self.draws)
        found = self.snapshot(forward).derivative(law, forward.theta, gradient, noise, self.temperature, own=forward.z)
        self.record(forward)
        return found

    def _pooled_difference(self, forward: Forward, sides: Sides) -> Tensor:
        snapshot = self.snapshot(forward)
        own, others = forward.z, None
        if snapshot.seen < self.gate:
            rows = [sides.toward] if sides.is_one_sided else [sides.away, sides.toward]
            others = forward.solve_perturbed(torch.stack(rows), self.temperature).z
            own = torch.cat([own, *others])
        self.record(forward, others)
        noise = None
        if forward.sampler.has_noise:
            noise = forward.sampler.others(self.draws).perturb(torch.zeros_like(forward.theta), self.temperature)
        return snapshot.difference(torch.stack([sides.away, sides.toward]), noise, own)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"{self.problem!r}, noise={self.noise}, samples={self.samples}, temperature={self.temperature}, "
            f"draws={self.draws}, step={self.step}, sides={self.sides}, gate={self.gate}, "
            f"derivative={self.derivative}"
        )
