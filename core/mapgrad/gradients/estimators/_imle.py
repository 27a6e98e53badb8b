"""Implicit maximum likelihood estimation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor

from mapgrad.batching import require_bool
from mapgrad.gradients._context import Context
from mapgrad.gradients._division import divided
from mapgrad.gradients._goals import goal_of, goals_of
from mapgrad.gradients._steps import Recent
from mapgrad.gradients._targets import RelativeStep, Target
from mapgrad.gradients._temperature import Relative, require_temperature
from mapgrad.gradients.estimators._estimator import Estimator, Forward

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._sampler import Sampler
    from mapgrad.gradients._temperature import Temperature
    from mapgrad.gradients.estimators._estimator import Solve


class IMLE(Estimator):
    """Implicit maximum likelihood estimation (Niepert, Minervini and Franceschi, NeurIPS 2021, arXiv 2106.01798).

    Forward: z_s = MAP(θ + τε_s). Backward, with the same ε_s: z′_s = MAP(θ′_s + τ′ε_s), and the gradient is
    (1/S) Σ_s (z_s − z′_s), divided by the target's step if `scaled`. Symmetric: z_s − z′_s becomes
    (MAP(θ⁻_s + τ′ε_s) − MAP(θ⁺_s + τ′ε_s)) / 2, where θ⁺ steps down the loss's gradient and θ⁻ up.

    With the mean over s as output it estimates the gradient of the loss of the mean, L(E MAP(θ + ε)): a finite
    difference along the loss's gradient, so its bias grows with λ (with λ² if symmetric) and its variance with
    1/(Sλ). It needs an exact argmax: with a heuristic, or where θ is clipped, the result isn't such an estimate.

    Without noise, scaled and with `Step`, it is black-box differentiation.

    Args:
        noise: ρ(ε); see `Estimator`.
        target: Rule for θ′; None for ``RelativeStep()``, whose step fits the scale of θ and of its noise. It doesn't
            shrink with the loss's gradient: for a loss that isn't linear in z take `Step`, if training stalls.
        samples: S.
        symmetric: Whether to step to both sides of θ, which costs two backward solves per sample instead of one; None
            for both sides in passes with noise, one side in others. With noise, the mean gradient has by default a
            cosine of .96 to 1 to the exact one and .79 to .97 of its length on small problems, and with a one-sided
            step of λ = 1 a cosine of .8 to .99 (``python tests/benchmarks/bench_gradients.py``). Without, there is no
            gradient to come close to, and a step away from the loss's optimum moves answers that are right, too.
        scaled: Whether to divide by the step's length, so that the result approximates the loss's gradient in size too.
        temperature: τ of the forward pass; see `Estimator`.
        target_temperature: τ′ of the backward pass; None for τ. Another value than τ uncouples the two: even a zero
            gradient of the loss then gives a non-zero one for θ. Relative if τ is.

    Raises:
        TypeError: `target` isn't a `Target`, `symmetric` or `scaled` isn't a bool, or one temperature is relative and
            the other isn't; or as `Estimator`.
        ValueError: As `Estimator`, for both temperatures.
    """

    def __init__(
        self,
        noise: Noise | Literal["auto"] | None = "auto",
        target: Target | None = None,
        *,
        samples: int = 1,
        symmetric: bool | None = None,
        scaled: bool = True,
        temperature: Temperature = 1.0,
        target_temperature: Temperature | None = None,
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        target = RelativeStep() if target is None else target
        if not isinstance(target, Target):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"target must be a Target, such as Step(10.0) or RelativeStep(0.5), got {target!r}")
        self.target = target
        self.symmetric = None if symmetric is None else require_bool("symmetric", symmetric)
        self.scaled = require_bool("scaled", scaled)
        if target_temperature is None:
            target_temperature = self.temperature
        self.target_temperature = require_temperature("target_temperature", target_temperature)
        if isinstance(self.temperature, Relative) != isinstance(self.target_temperature, Relative):
            raise TypeError(
                f"temperature and target_temperature must both be numbers or both relative, "
                f"got {self.temperature} and {self.target_temperature}"
            )
        self.is_adaptive = target.adaptive
        self._states: Recent[Tensor] = Recent()

    @property
    def largest_temperature(self) -> Temperature:
        """The larger of τ and τ′."""
        one, other = self.temperature, self.target_temperature
        if isinstance(one, Relative) or isinstance(other, Relative):  # both are
            return one if one.factor >= other.factor else other  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        return max(one, other)

    def begin(self, key: int) -> None:
        """Let a target that adapts take in what it recorded, and keep its state of this step."""
        if self.is_adaptive:
            self._states.note(key, self.target.advance().clone())

    @property
    def is_rowwise(self) -> bool:
        """Whether the target is."""
        return self.target.is_rowwise

    @property
    def advice(self) -> str:
        """What the target says, and to step to both sides where that was switched off."""
        if self.symmetric is not False:
            return self.target.advice
        return f"{self.target.advice}; symmetric=True steps to both sides of θ, so that fewer rows stay where they are"

    def forward(self, theta: Tensor, sampler: Sampler, solve: Solve) -> Forward:
        """Return MAP(θ + τε_s), and the state of a target that adapts as it is in this step."""
        state: tuple[Tensor, ...] = ()
        if self.is_adaptive:
            now = self.target.state if sampler.key is None else self._states.find(sampler.key)
            state = (now.to(theta, copy=True),)
        forward = super().forward(theta, sampler, solve)
        forward.state = state
        return forward

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return (1/S) Σ_s (z_s − z′_s), divided by the step's length if scaled."""
        theta = forward.theta[None]
        context = Context(
            event_ndim=theta.ndim - 2,
            problem=forward.problem,
            noise_std=lambda: forward.sampler.noise_std(forward.theta, self.largest_temperature),
            state=forward.state[0] if forward.state else None,
        )
        if self.symmetric or (self.symmetric is None and forward.sampler.has_noise):
            toward, away, divisor = goals_of(self.target, theta, gradient, context, forward.sampler.samples)
            difference = forward.difference(away, toward, self.target_temperature).div_(2)
        else:
            goal, divisor = goal_of(self.target, theta, gradient, context, forward.sampler.samples)
            difference = forward.z - forward.states(goal, self.target_temperature)
        forward.observe(difference, gradient)
        if self.is_adaptive and forward.is_training:
            self.target.record(difference)
        is_common = not isinstance(divisor, Tensor) or divisor.ndim < theta.ndim or divisor.shape[0] == 1
        if is_common and difference.shape[0] > 1:  # first, as sums of differences are exact in any order
            difference = difference.mean(dim=0, keepdim=True)
        # a tensor of its own in any case: it becomes θ's gradient, which users write to
        difference = divided(difference, divisor) if self.scaled else difference.clone()
        return difference.view_as(forward.theta) if difference.shape[0] == 1 else difference.mean(dim=0)

    def state_like(self, theta: Tensor) -> tuple[Tensor, ...]:
        """Return the state of a target that adapts."""
        return (theta.new_empty(()),) if self.is_adaptive else ()

    @property
    def stats(self) -> dict[str, float]:
        """The target's."""
        return self.target.stats

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"noise={self.noise}, samples={self.samples}, symmetric={self.symmetric}, scaled={self.scaled}, "
            f"temperature={self.temperature}, target_temperature={self.target_temperature}"
        )
