"""Noise of well-known laws, at unit scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F

from mapgrad.gradients._noise import EULER_GAMMA, StandardNoise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class Gumbel(StandardNoise):
    """Standard Gumbel noise: location 0, scale 1, hence mean γ ≈ 0.577 and not 0.

    With one-hot states, MAP(θ + τ ε) is then an exact sample of softmax(θ / τ).
    """

    @property
    def mean(self) -> float:
        return EULER_GAMMA

    @property
    def variance(self) -> float:
        return math.pi**2 / 6

    def icdf(self, u: Tensor) -> Tensor:
        return -torch.log(-torch.log(u))

    def icdf_(self, u: NDArray[np.float64]) -> None:
        for _ in range(2):
            np.log(u, out=u)
            np.negative(u, out=u)

    def cdf(self, x: Tensor) -> Tensor:
        return torch.exp(-torch.exp(-x))

    def log_prob(self, x: Tensor) -> Tensor:
        return -x - torch.exp(-x)

    def log_mgf(self, t: float) -> float:
        return math.lgamma(1 - t) if t < 1 else math.inf


@dataclass(frozen=True)
class Gaussian(StandardNoise):
    """Standard normal noise: mean 0, variance 1."""

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def variance(self) -> float:
        return 1.0

    def icdf(self, u: Tensor) -> Tensor:
        return cast("Tensor", torch.special.ndtri(u))  # pyright: ignore[reportUnknownMemberType] (torch leaves it untyped)

    def icdf_(self, u: NDArray[np.float64]) -> None:
        tensor = torch.as_tensor(u, device="cpu")
        torch.special.ndtri(tensor, out=tensor)  # pyright: ignore[reportUnknownMemberType] (as above)

    def cdf(self, x: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-math.sqrt(0.5) * x)

    def log_prob(self, x: Tensor) -> Tensor:
        return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)

    def log_mgf(self, t: float) -> float:
        return 0.5 * t * t


@dataclass(frozen=True)
class Logistic(StandardNoise):
    """Standard logistic noise: location 0, scale 1, the law of the difference of two Gumbel variables."""

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def variance(self) -> float:
        return math.pi**2 / 3

    def icdf(self, u: Tensor) -> Tensor:
        return torch.logit(u)

    def icdf_(self, u: NDArray[np.float64]) -> None:
        u /= 1 - u
        np.log(u, out=u)

    def cdf(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return F.logsigmoid(x) + F.logsigmoid(-x)

    def log_mgf(self, t: float) -> float:
        if t == 0 or abs(t) >= 1:
            return math.inf if t else 0.0
        return math.log(math.pi * t / math.sin(math.pi * t))


@dataclass(frozen=True)
class Laplace(StandardNoise):
    """Standard Laplace noise: density e^(−|x|) / 2."""

    @property
    def mean(self) -> float:
        return 0.0

    @property
    def variance(self) -> float:
        return 2.0

    def icdf(self, u: Tensor) -> Tensor:
        return torch.where(u < 0.5, torch.log(2 * u), -torch.log(2 * (1 - u)))

    def icdf_(self, u: NDArray[np.float64]) -> None:
        z = np.rint(u)
        np.subtract(z, u, out=z)
        np.abs(z, out=u)
        u *= 2
        np.log(u, out=u)
        np.copysign(u, z, out=u)

    def cdf(self, x: Tensor) -> Tensor:
        # clamped first: the branch that `where` drops must not overflow, or its gradient would be NaN
        return torch.where(x < 0, 0.5 * torch.exp(x.clamp(max=0)), 1 - 0.5 * torch.exp(-x.clamp(min=0)))

    def log_prob(self, x: Tensor) -> Tensor:
        return -x.abs() - math.log(2)

    def log_mgf(self, t: float) -> float:
        return -math.log1p(-t * t) if abs(t) < 1 else math.inf
