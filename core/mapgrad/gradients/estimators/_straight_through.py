"""The straight-through estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mapgrad.gradients.estimators._estimator import Estimator, Forward

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature


class StraightThrough(Estimator):
    """The gradient of z̄ as if the solver were the identity (Bengio, Léonard and Courville 2013, arXiv 1308.3432).

    Biased towards no particular objective; costs no backward solve.

    Args:
        noise: See `Estimator`; none by default.
        samples: S.
        temperature: τ; see `Estimator`.
    """

    def __init__(
        self, noise: Noise | Literal["auto"] | None = None, *, samples: int = 1, temperature: Temperature = 1.0
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return Σ_s ∂L/∂z_s."""
        return gradient.mean(dim=0)
