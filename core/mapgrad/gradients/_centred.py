"""Noise without its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapgrad.gradients._noise import StandardNoise

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Centred(StandardNoise):
    """A law less its mean, so that it moves no state's expected utility.

    Args:
        noise: The law.

    Raises:
        TypeError: `noise` isn't a `StandardNoise`, whose mean is known.
    """

    noise: StandardNoise

    def __post_init__(self) -> None:
        if not isinstance(self.noise, StandardNoise):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
            raise TypeError(f"noise must be a mapgrad.StandardNoise, such as mapgrad.Gumbel(), got {self.noise!r}")

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def variance(self) -> float:
        return self.noise.variance

    @property
    def invertible(self) -> bool:
        return self.noise.invertible

    def icdf(self, u: Tensor) -> Tensor:
        return self.noise.icdf(u) - self.noise.mean

    def icdf_(self, u: NDArray[np.float64]) -> None:
        self.noise.icdf_(u)
        u -= self.noise.mean

    def cdf(self, x: Tensor) -> Tensor:
        return self.noise.cdf(x + self.noise.mean)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.noise.log_prob(x + self.noise.mean)

    def log_mgf(self, t: float) -> float:
        return self.noise.log_mgf(t) - t * self.noise.mean

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        return self.noise.sample(shape, generator=generator, dtype=dtype, device=device).sub_(self.noise.mean)
