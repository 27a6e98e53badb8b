"""Two-sided I-MLE: a long step towards better answers, and a short one away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from mapgrad.arguments import positive, whole_number
from mapgrad.gradients._division import divided
from mapgrad.gradients._laws import Gaussian
from mapgrad.gradients._sides import require_sides, sides_of, solved_difference
from mapgrad.gradients.estimators._estimator import Estimator, Forward

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.problems import Problem


class TwoSided(Estimator):
    """I-MLE whose two sides lie at distances of their own, with a step that fits how far states are apart.

    Forward: z_s = MAP(θ + τε_s). Backward, with the same noise: (1/S) Σ_s (MAP(θ⁻ + τε_s) − MAP(θ⁺ + τε_s)), where θ⁺
    steps b · step down the loss's gradient, as `RelativeStep` does with λ = step, and θ⁻ a · step up, divided by both
    steps' length: three solves a sample. With `draws`, M fresh noises a row take the place of the forward pass's: that
    is S + 2M solves, for solvers that take microseconds. Where a solve costs more, `Pooled` asks states that were found
    before.

    A long step towards better answers and a short one away make a network learn; as an estimate of the gradient of
    L(E MAP(θ + τε)) it is biased. With ``sides=(0.5, 0.5)`` it comes closer.

    Args:
        noise: ρ(ε); "auto" for Gaussian noise, or none where the problem's domain would clip it; None for none.
        samples: S, forward solves a row.
        temperature: τ, at least 0, a number or `Relative`.
        draws: M; None for the forward pass's own noise, which is also what is taken where there is none.
        step: The step's length relative to the scale of θ; None for √min(1, 2κ/n) in passes with noise, as no more than
            2κ of n entries differ between two states, and 1 in others.
        sides: (a, b), the shares of the step that θ⁻ and θ⁺ go; None for (.5, 2) in passes with noise, and (0, 1) in
            others, where a step away from the loss's optimum moves answers that are right, too.

    Raises:
        TypeError: as `Estimator`, or `draws` or `step` isn't a number, or `sides` aren't two.
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        noise: Noise | Literal["auto"] | None = "auto",
        *,
        samples: int = 1,
        temperature: Temperature = 1.0,
        draws: int | None = None,
        step: float | None = None,
        sides: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        also = ", or None for the forward pass's noise"
        self.draws = None if draws is None else whole_number("draws", draws, 1, also=also)
        self.step = None if step is None else positive("step", step)
        self.sides = require_sides(sides)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def copies(self) -> int:
        """2M."""
        return 2 * (self.draws or 0)

    @property
    def advice(self) -> str:
        """To take a longer step, or more noise."""
        return "take a longer step, more samples or draws, or a larger temperature"

    def auto_noise(self, problem: Problem) -> Noise:
        """Return Gaussian noise."""
        return Gaussian()

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return the mean of MAP(θ⁻ + τε) − MAP(θ⁺ + τε), divided by both steps' length."""
        sides = sides_of(forward, gradient, self.step, self.sides, self.temperature)
        if self.draws is not None and forward.sampler.has_noise:
            noise = forward.sampler.others(self.draws)
            rows = noise.perturb(torch.stack([sides.away, sides.toward]).unsqueeze(2), self.temperature)
            one, other = forward.solve(rows).z
            difference = (one - other).mean(dim=1)
        else:
            difference = solved_difference(forward, sides, self.temperature)
        forward.observe(difference, gradient)
        return divided(difference, sides.length).mean(dim=0)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"noise={self.noise}, samples={self.samples}, temperature={self.temperature}, draws={self.draws}, "
            f"step={self.step}, sides={self.sides}"
        )
