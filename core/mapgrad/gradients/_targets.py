"""Target distributions: where I-MLE's backward pass looks for a better state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mapgrad.arguments import finite, positive
from mapgrad.gradients._scale import relative_step

if TYPE_CHECKING:
    from mapgrad.gradients._context import Context


class Target(nn.Module, ABC):
    """Maps θ and the loss's gradient to the target's parameters θ′ and the divisor of the scaled gradient.

    A subclass gives `forward`. One that adapts sets `adaptive`, has a `state`, learns from `record`, and changes by
    `advance`.
    """

    adaptive: bool = False

    @property
    def is_rowwise(self) -> bool:
        """Whether a row's θ′ depends on that row alone, so that a batch may be handled in parts."""
        return False

    @property
    def advice(self) -> str:
        """What to do where most steps change no answer, to end a warning."""
        return "the steps change no answer; take a target whose steps are longer"

    @abstractmethod
    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor | float]:
        """Return (θ′, divisor).

        Args:
            theta: [1, *batch, *shape], utilities; not written to. −inf stays −inf.
            gradient: [S or 1, *batch, *shape], g̃ = S · ∂L/∂z_s, or its negative for the other side of a central step;
                not written to.
            context: What else is known of the pass.

        Returns:
            θ′ [S or 1, *batch, *shape], a fresh tensor, and a divisor that broadcasts against it: in float64, it may
            lie beyond the range of θ's dtype.
        """

    @property
    def state(self) -> Tensor:
        """The state as it stands, []; passes that belong to no training step use it and change nothing."""
        raise NotImplementedError(f"{type(self).__name__} doesn't adapt")

    def both_sides(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor | float]:
        """Return (θ′, θ′ for −g̃, divisor), for a central step.

        A subclass may override it where one computation gives both. The arguments are those of `forward`.
        """
        toward, divisor = self.forward(theta, gradient, context)
        away, _ = self.forward(theta, -gradient, context)
        return toward, away, divisor

    def advance(self) -> Tensor:
        """Take in what was recorded since the last call, and return the state of the step that begins."""
        raise NotImplementedError(f"{type(self).__name__} doesn't adapt")

    def record(self, difference: Tensor) -> None:
        """Note a difference of answers [S, B, *shape], perhaps one of several; nothing changes before `advance`."""

    @property
    def stats(self) -> dict[str, float]:
        """What `MAPLayer.stats` shows of the target, as of the coming step; reading changes nothing."""
        return {}


class Step(Target):
    """θ′ = αθ − λg̃ (Niepert, Minervini and Franceschi, NeurIPS 2021, eq. 10).

    Args:
        lam: λ, in units of θ per unit of ∂L/∂z. A loss that is a mean over the batch divides what it does by the batch
            size.
        alpha: α. The scaled gradient approximates the loss's only for α = 1.

    Raises:
        ValueError: `lam` isn't positive and finite, or `alpha` isn't finite.
    """

    def __init__(self, lam: float, alpha: float = 1.0) -> None:
        super().__init__()
        self.lam = positive("lam", lam)
        self.alpha = finite("alpha", alpha)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To take a relative step, or a larger λ."""
        return (
            f"the step is too short to change their answers. Take target=RelativeStep(1.0), whose step fits θ whatever "
            f"the loss's scale, or a larger λ than {self.lam:g} (a loss that is a mean over the batch divides a fixed "
            f"step by the batch size)"
        )

    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor | float]:
        """Return (αθ − λg̃, λ).

        Raises:
            ValueError: λ or 1/λ, or α, is beyond the range of θ's dtype.
        """
        _require_range(self.lam, self.alpha, theta.dtype)
        goal = theta if self.alpha == 1 else self.alpha * theta
        return torch.sub(goal, gradient, alpha=self.lam), self.lam

    @property
    def stats(self) -> dict[str, float]:
        """λ."""
        return {"lam": self.lam}

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"lam={self.lam}, alpha={self.alpha}"


@lru_cache(maxsize=16)
def _require_range(lam: float, alpha: float, dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max * 2.0**-16  # the divided difference of two states, too, is then finite
    if not 1 / most <= lam <= most:
        raise ValueError(f"lam must be between {1 / most:.1g} and {most:.1g} for θ in {dtype}, got {lam:g}")
    if abs(alpha) > most:
        raise ValueError(f"alpha must be at most {most:.1g} in size for θ in {dtype}, got {alpha:g}")


class Stepping(Target):
    """A target whose two sides lie one and the same step away from θ."""

    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return (θ less the step, the factor of g̃ that this is)."""
        step, divisor = self._step(theta, gradient, context)
        return theta - step, divisor

    def both_sides(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Return (θ less the step, θ plus the step, the factor of g̃ that this is)."""
        step, divisor = self._step(theta, gradient, context)
        return theta - step, theta + step, divisor

    @abstractmethod
    def _step(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Return the step [S or 1, *batch, *shape], and the factor of g̃ that it is, as a divisor of `forward`."""


class RelativeStep(Stepping):
    """θ′ = θ − λ · scale · d for each row: a direction d of unit size along g̃, and a scale of θ and its noise.

    The scale is √(mean square of θ's distance from the boundary between in and out + τ² Var ε), so that the step fits θ
    where it is large, and the noise where θ is small or 0. Neither scale nor direction depends, for each row,

    - on the size of g̃, be it the loss's scale or a mean over the batch;
    - on what the problem can't see: a constant added to θ or g̃ along `Problem.constant_sums`. The boundary is the
      middle between the K-th and the K + 1-th largest entry, where states have K ones; for a square assignment, the
      same with K = 1 for rows and columns, about; 0 where no sum is constant;
    - on entries far from the boundary (masks at −1e9, or −inf), up to some 60 % of them: past 12 typical distances
      (the .3-quantile, plus τ times the noise's standard deviation) they take no part, and get no step.

    d is g̃ less its mean along `Problem.constant_sums`, with less weight on far entries; its root mean square is 1, or
    less where single entries stick out. The scaled gradient is divided by the factor of g̃ that this comes to.

    A relative step doesn't shrink when g̃ does. Where a loss isn't linear in z, it therefore steps past a nearby
    optimum as far as towards a distant one, and training may stall: take `Step` there.

    Args:
        lam: λ, the length of the step relative to the scale; None for 0.5 in passes with noise, and 1 in others, where
            a shorter step changes too few answers. With noise and both sides, 1 leaves fewer single rows without a
            gradient and is more biased: for one-hot z of 8 entries, 1 to 8 % of the rows instead of 22 to 38 %, and a
            cosine of the mean gradient of .91 instead of .98 (``python tests/benchmarks/bench_gradients.py``).

    Raises:
        ValueError: `lam` isn't positive and finite.
    """

    def __init__(self, lam: float | None = None) -> None:
        super().__init__()
        self.lam = None if lam is None else positive("lam", lam)
        self._last = self.lam

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To take a larger λ."""
        if self.lam is None:
            return (
                "the step is too short to change their answers. With noise λ = 0.5: pass target=RelativeStep(1.0), or "
                "take more noise. Without noise λ = 1: pass target=RelativeStep(2.0)"
            )
        return f"the step is too short to change their answers. Take a larger λ than {self.lam:g}, or more noise"

    def _step(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        lam = self.lam
        if lam is None:
            is_certain = isinstance(context.noise_std, float) and not context.noise_std
            lam = 1.0 if is_certain else 0.5
        if lam != self._last:  # as modules take long to set an attribute
            self._last = lam
        return relative_step(theta, gradient, lam, context)

    @property
    def stats(self) -> dict[str, float]:
        """λ of the last step, once there was one."""
        return {} if self._last is None else {"lam": self._last}

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"lam={self.lam}"


class Combinatorial(Target):
    """θ′_i = θ_i where g̃_i = 0, else −g̃_i (Niepert, Minervini and Franceschi, NeurIPS 2021, eq. 14).

    For losses whose gradient says which coordinates should be in the state: with the Hamming loss z + z* − 2zz* and no
    noise it is the structured perceptron, with the regret ⟨c, z⟩ it moves the target to θ′ = −c. Its gradient isn't
    divided by anything.
    """

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To look at the loss's gradient."""
        return (
            "the loss's gradient already names the answers as the best ones. Take a loss whose gradient doesn't depend "
            "on them, or another target"
        )

    def forward(self, theta: Tensor, gradient: Tensor, context: Context) -> tuple[Tensor, Tensor | float]:
        """Return (θ′, 1)."""
        return torch.where(gradient == 0, theta, -gradient), 1.0
