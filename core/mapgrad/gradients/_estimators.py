"""Gradient estimators: what is solved in the forward pass, and which gradient comes back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from mapgrad.gradients._noise import SumOfGamma
from mapgrad.gradients._targets import AdaptiveStep, RelativeStep, Step, Target
from mapgrad.problems import Domain

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._ops import ForwardPass
    from mapgrad.problems import Problem


class Estimator(nn.Module, ABC):
    """Perturbs θ in the forward pass and turns the loss's gradient into one for θ in the backward pass.

    Args:
        noise: A noise law, any object with its `sample` method, None for no noise, or "auto": Sum-of-Gamma with the
            problem's κ, or no noise where the problem's domain would clip it or no problem is known.
        samples: S, the number of perturbed copies of θ.
        temperature: τ, what the noise is multiplied by.
    """

    adaptive: bool = False

    def __init__(self, noise: Noise | Literal["auto"] | None, *, samples: int, temperature: float) -> None:
        super().__init__()
        if isinstance(samples, bool) or not isinstance(samples, int):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"samples must be an int, got {samples!r}")
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if noise is not None and noise != "auto" and not callable(getattr(noise, "sample", None)):
            raise TypeError(
                f'noise must be "auto", None or an object with a method sample(shape, *, generator, dtype, device), '
                f"got {noise!r}"
            )
        self.noise = noise
        self.samples = samples
        self.temperature = _non_negative("temperature", temperature)

    def noise_for(self, problem: Problem | None) -> Noise | None:
        """Return the noise that is drawn for a problem; None where none is."""
        if self.largest_temperature == 0:
            return None
        if not isinstance(self.noise, str):
            return self.noise
        if problem is None or problem.domain is not Domain.REAL:
            return None
        return SumOfGamma(problem.kappa)

    @property
    def largest_temperature(self) -> float:
        """The largest factor by which noise is ever multiplied; where it is zero, none is drawn."""
        return self.temperature

    def perturb(self, theta: Tensor, noise: Tensor | None, samples: int) -> Tensor:
        """Return the rows θ + τε_s to solve.

        Args:
            theta: [*batch, *shape], utilities.
            noise: [S, *batch, *shape], ε, or None for none.
            samples: S.

        Returns:
            [S, *batch, *shape].
        """
        if noise is None:
            return theta.expand(samples, *theta.shape).contiguous()
        return theta + self.temperature * noise

    @abstractmethod
    def gradient(self, forward: ForwardPass, gradient: Tensor) -> Tensor:
        """Return the gradient for θ.

        Args:
            forward: What the forward pass saw and found.
            gradient: [S, *batch, *shape], ∂L/∂z_s for each sample.

        Returns:
            [*batch, *shape].
        """

    def advance(self) -> Tensor:
        """Take in what was recorded, and return the state of the coming step; only for adaptive estimators."""
        raise NotImplementedError(f"{type(self).__name__} doesn't adapt")

    def record(self, difference: Tensor, event_ndim: int) -> None:
        """Note a difference of answers [S, *batch, *shape]."""


class IMLE(Estimator):
    """Implicit maximum likelihood estimation (Niepert, Minervini and Franceschi, NeurIPS 2021, arXiv 2106.01798).

    Forward: z_s = MAP(θ + τε_s). Backward, with the same ε_s: z′_s = MAP(θ′_s + τ′ε_s), and the gradient is
    (1/S) Σ_s (z_s − z′_s), divided by the target's step if `scaled`. Symmetric: z_s − z′_s becomes
    (MAP(θ⁻_s + τ′ε_s) − MAP(θ⁺_s + τ′ε_s)) / 2, where θ⁺ steps down the loss's gradient and θ⁻ up.

    With the mean over s as output it estimates the gradient of the loss of the mean, L(E MAP(θ + ε)): a finite
    difference along the loss's gradient, so its bias grows with λ (with λ² if symmetric) and its variance with
    1/(Sλ). It needs an exact argmax: with a heuristic, or where θ is clipped, it is no gradient.

    Without noise, scaled and with `Step`, it is black-box differentiation.

    Args:
        noise: ρ(ε); see `Estimator`.
        target: Rule for θ′; None for ``RelativeStep(1.0)``.
        samples: S.
        symmetric: Whether to step to both sides of θ; costs two backward solves per sample instead of one.
        scaled: Whether to divide by the step's length, so that the result approximates the loss's gradient in size too.
        temperature: τ of the forward pass.
        target_temperature: τ′ of the backward pass; None for τ. Another value than τ uncouples the two: even a zero
            gradient of the loss then gives a non-zero one for θ.
    """

    def __init__(
        self,
        noise: Noise | Literal["auto"] | None = "auto",
        target: Target | None = None,
        *,
        samples: int = 1,
        symmetric: bool = False,
        scaled: bool = True,
        temperature: float = 1.0,
        target_temperature: float | None = None,
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        target = RelativeStep() if target is None else target
        if not isinstance(target, Target):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"target must be a Target, such as Step(10.0) or RelativeStep(1.0), got {target!r}")
        self.target = target
        self.symmetric = symmetric
        self.scaled = scaled
        self.target_temperature = (
            self.temperature if target_temperature is None else _non_negative("target_temperature", target_temperature)
        )
        self.adaptive = target.adaptive

    @property
    def largest_temperature(self) -> float:
        """The larger of τ and τ′."""
        return max(self.temperature, self.target_temperature)

    def gradient(self, forward: ForwardPass, gradient: Tensor) -> Tensor:
        """Return (1/S) Σ_s (z_s − z′_s), divided by the step's length if scaled."""
        theta = forward.theta.unsqueeze(0)
        gradient = gradient * len(gradient)
        goal, divisor = self._target(theta, gradient, forward)
        if self.symmetric:
            away, _ = self._target(theta, -gradient, forward)
            toward_z, away_z = forward.solve(torch.stack([goal, away]))
            difference = (away_z - toward_z) / 2
        else:
            difference = forward.z - forward.solve(goal)
        difference = forward.observe(difference, gradient)
        return (difference / divisor if self.scaled else difference).mean(dim=0)

    def _target(self, theta: Tensor, gradient: Tensor, forward: ForwardPass) -> tuple[Tensor, Tensor | float]:
        goal, divisor = self.target(theta, gradient, event_ndim=forward.event_ndim, state=forward.state)
        return (goal if forward.noise is None else goal + self.target_temperature * forward.noise), divisor

    def advance(self) -> Tensor:
        """Take in what the target recorded, and return its state."""
        return self.target.advance()

    def record(self, difference: Tensor, event_ndim: int) -> None:
        """Let the target note a difference of answers."""
        if self.adaptive:
            self.target.record(difference, event_ndim)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return (
            f"noise={self.noise}, samples={self.samples}, symmetric={self.symmetric}, scaled={self.scaled}, "
            f"temperature={self.temperature}, target_temperature={self.target_temperature}"
        )


class AdaptiveIMLE(IMLE):
    """I-MLE with a step that adapts (Minervini, Franceschi and Niepert, AAAI 2023, arXiv 2209.04862).

    Args:
        noise: ρ(ε); see `Estimator`.
        initial: See `AdaptiveStep`, as for step, momentum, decay, target and norm.
        step: Change of β per update.
        momentum: Share of the last change that is repeated.
        decay: Share of the running mean that is kept.
        target: Wanted number of non-zero entries of a sample's gradient.
        norm: "instance" or "batch".
        imle: The other arguments of `IMLE`.
    """

    def __init__(
        self,
        noise: Noise | Literal["auto"] | None = "auto",
        *,
        initial: float = 1.0,
        step: float = 1e-3,
        momentum: float = 0.0,
        decay: float = 0.9,
        target: float = 1.0,
        norm: Literal["instance", "batch"] = "instance",
        **imle: Any,
    ) -> None:
        super().__init__(noise, AdaptiveStep(initial, step, momentum, decay, target, norm), **imle)


class Blackbox(IMLE):
    """Differentiation of black-box solvers (Vlastelica et al., ICLR 2020, arXiv 1912.02175).

    grad = (MAP(θ) − MAP(θ − λ ∂L/∂z)) / λ: the exact gradient of a piecewise linear interpolation of the loss.

    Args:
        lam: λ, in units of θ per unit of ∂L/∂z. A loss that is a mean over the batch divides what it does by the batch
            size.
    """

    def __init__(self, lam: float) -> None:
        super().__init__(noise=None, target=Step(lam))


class StraightThrough(Estimator):
    """The gradient of z̄ as if the solver were the identity (Bengio, Léonard and Courville 2013, arXiv 1308.3432).

    Biased towards no particular objective; costs no backward solve.

    Args:
        noise: See `Estimator`; none by default.
        samples: S.
        temperature: τ.
    """

    def __init__(
        self, noise: Noise | Literal["auto"] | None = None, *, samples: int = 1, temperature: float = 1.0
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)

    def gradient(self, forward: ForwardPass, gradient: Tensor) -> Tensor:
        """Return Σ_s ∂L/∂z_s."""
        return gradient.sum(dim=0)


def _non_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return float(value)
