"""Noise at unit scale: what perturbs θ. Estimators multiply it by their temperature."""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import torch

from mapgrad.arguments import whole_number
from mapgrad.errors import MapgradError
from mapgrad.gradients._sum_of_gamma import LARGEST_KAPPA, SMALLEST_KAPPA, Table, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

EULER_GAMMA: Final = 0.5772156649015329
"""Mean of the standard Gumbel law."""

_SMALLEST_UNIFORM: Final = 2.0**-54
"""Stands in for the 0 that `torch.rand` may return; its largest value, 1 − 2⁻⁵³, is below 1 already."""

_CPU: Final = torch.device("cpu")

_PART: Final = 1 << 14
"""How many numbers are drawn at once on the CPU: few enough to stay in a core's cache."""

_PART_ELSEWHERE: Final = 1 << 22
"""The same on a device, whose kernels want many."""


@runtime_checkable
class Noise(Protocol):
    """What an estimator needs of its noise: any object with this method, and for relative steps better with `std`."""

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        """Draw a tensor of i.i.d. noise.

        Args:
            shape: Shape of the result; an estimator asks for (S, *batch, *problem.shape).
            generator: Source of randomness, on `device`; None draws from torch's default generator.
            dtype: Floating dtype of the result.
            device: Where the result lives.

        Returns:
            A fresh tensor of this shape, dtype and device, in units of θ at temperature 1.
        """
        ...


class StandardNoise(ABC):
    """I.i.d. noise of a known law; the base class for one's own, too.

    Subclasses are immutable values: equal by parameters, picklable, without tensors of their own. All functions work
    element by element, on any device that has float64.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "icdf" in vars(cls) and "icdf_" not in vars(cls):
            # the inherited one belongs to another law
            cls.icdf_ = StandardNoise.icdf_

    @property
    @abstractmethod
    def mean(self) -> float:
        """Expected value."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """Variance."""

    @property
    def std(self) -> float:
        """Standard deviation; relative steps fit it, or where a law has none the noise that a row happens to get."""
        return math.sqrt(self.variance)

    @property
    def invertible(self) -> bool:
        """Whether `icdf`, `cdf` and `log_prob` are there; if not, the noise can only be sampled."""
        return True

    @abstractmethod
    def icdf(self, u: Tensor) -> Tensor:
        """Return the quantiles of u, float64 and strictly between 0 and 1: float64 of u's shape and device."""

    def icdf_(self, u: NDArray[np.float64]) -> None:
        """Replace u by its quantiles, in place and on the CPU.

        All draws on the CPU come through here, some ten thousand numbers at a time. A subclass may override it with
        something faster than `icdf`, which it calls by default; the two may differ by rounding errors only.

        Args:
            u: One-dimensional, contiguous, strictly between 0 and 1; written to. A number's quantile mustn't depend on
                the others, nor on how many there are.
        """
        u[:] = self.icdf(torch.as_tensor(u, device="cpu")).numpy()

    @abstractmethod
    def cdf(self, x: Tensor) -> Tensor:
        """Return P(ε ≤ x), of x's shape, floating dtype and device; differentiable in x."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density at x, of x's shape, floating dtype and device; differentiable in x."""

    def log_mgf(self, t: float) -> float:
        """Return log E e^{tε}, infinite where that is; multiplicative noise of mean 1 needs it."""
        raise NotImplementedError(f"{type(self).__qualname__} doesn't say its log_mgf(t) = log E e^{{tε}}")

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw a tensor of i.i.d. noise, as quantiles of float64 uniforms that are cast last.

        Args:
            shape: Shape of the result.
            generator: Source of randomness, on `device`; None draws from torch's default generator.
            dtype: Floating dtype of the result; None is torch's default dtype.
            device: Where the result lives; None is torch's default device.

        Returns:
            A fresh tensor of this shape, dtype and device.

        Raises:
            ValueError: `dtype` isn't a floating dtype.
        """
        result_dtype = _floating(dtype)

        def draw(count: int) -> Tensor:
            u = torch.rand((count,), generator=generator, dtype=torch.float64, device=device)
            return self._quantiles(u.clamp(min=_SMALLEST_UNIFORM)).to(result_dtype)

        return _in_parts(shape, device, draw)

    def _quantiles(self, u: Tensor) -> Tensor:
        if u.device.type != "cpu" or torch.compiler.is_compiling():
            return self.icdf(u)
        try:
            memory = u.numpy()
        except RuntimeError:  # the tensors of torch.vmap and of a trace have none
            return self.icdf(u)
        self.icdf_(memory)
        return u


@dataclass(frozen=True)
class SumOfGamma(StandardNoise):
    """The κ-th root, under convolution, of the standard Gumbel law: κ independent copies sum to a Gumbel variable.

    If every state has κ ones, ⟨z, ε⟩ is therefore a standard Gumbel variable for each state z (Niepert, Minervini and
    Franceschi, NeurIPS 2021, theorem 1), though dependent from state to state: this isn't Gibbs sampling. The law is
    the limit s → ∞ of

        (1/κ) {Σ_{i=1..s} Gamma(shape 1/κ, scale κ/i) − ln s}.

    Args:
        kappa: κ > 0, the expected number of ones in a state; needn't be an integer. Without `terms` it must lie
            between 1e-4 and 1e4.
        terms: s, the number of Gamma variables in the sum (10 in the paper), or None for the limit. The limit is
            tabulated once for each κ, which takes 20 ms up to κ = 50, 0.3 s at 1,000 and seconds at 10,000. A finite
            sum can only be sampled, at some 60 times the cost for s = 10: its density jumps or is unbounded at its
            lower end −ln(s)/κ where s ≤ κ, so that no score may be taken.

    Raises:
        ValueError: `kappa` or `terms` is out of range.
        TypeError: `terms` isn't an int.
    """

    kappa: float
    terms: int | None = None

    def __post_init__(self) -> None:
        is_number = isinstance(self.kappa, Real) and not isinstance(self.kappa, bool)  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        if not (is_number and 0 < self.kappa <= sys.float_info.max):
            raise ValueError(f"kappa must be a positive finite number, got {self.kappa!r}")
        if self.terms is None:
            if not SMALLEST_KAPPA <= self.kappa <= LARGEST_KAPPA:
                raise ValueError(
                    f"the exact law is tabulated for kappa from {SMALLEST_KAPPA:g} to {LARGEST_KAPPA:g}, got "
                    f"{self.kappa!r}: set terms, such as terms=10, to draw a finite sum instead"
                )
        else:
            object.__setattr__(self, "terms", whole_number("terms", self.terms, 1, also=" or None"))

    @property
    def mean(self) -> float:
        if self.terms is None:
            return EULER_GAMMA / self.kappa
        return (math.fsum(1 / i for i in range(1, self.terms + 1)) - math.log(self.terms)) / self.kappa

    @property
    def variance(self) -> float:
        if self.terms is None:
            return math.pi**2 / (6 * self.kappa)
        return math.fsum(i**-2 for i in range(1, self.terms + 1)) / self.kappa

    @property
    def invertible(self) -> bool:
        return self.terms is None

    def icdf(self, u: Tensor) -> Tensor:
        return self._table("icdf", u.device).icdf(u)

    def icdf_(self, u: NDArray[np.float64]) -> None:
        self._table("icdf_", _CPU).icdf_(u)

    def cdf(self, x: Tensor) -> Tensor:
        return self._table("cdf", x.device).cdf(x.double()).to(x.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        return self._table("log_prob", x.device).log_prob(x.double()).to(x.dtype)

    def log_mgf(self, t: float) -> float:
        if t >= 1:
            return math.inf
        if self.terms is None:
            return math.lgamma(1 - t) / self.kappa
        logs = math.fsum(math.log1p(-t / i) for i in range(1, self.terms + 1))
        return -(logs + t * math.log(self.terms)) / self.kappa

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        if self.terms is None:
            return super().sample(shape, generator=generator, dtype=dtype, device=device)
        result_dtype = _floating(dtype)
        terms, shift = self.terms, math.log(self.terms) / self.kappa
        weights = torch.arange(1, terms + 1, dtype=torch.float64, device=device).reciprocal()

        def draw(count: int) -> Tensor:
            concentration = torch.full((count, terms), 1 / self.kappa, dtype=torch.float64, device=device)
            # no public sampler takes a generator; torch.distributions.Gamma calls this one
            gammas = torch._standard_gamma(concentration, generator)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] (as above)
            return (gammas @ weights - shift).to(result_dtype)

        return _in_parts(shape, device, draw, width=terms)

    def _table(self, wanted: str, device: torch.device) -> Table:
        if self.terms is not None:
            raise MapgradError(
                f"{self!r} has no {wanted}: a finite sum can only be sampled, since its density jumps or is unbounded "
                f"at its lower end where terms <= kappa; SumOfGamma({self.kappa!r}), the exact limit, has one"
            )
        return table(float(self.kappa), device)


def log_mean(law: Any, temperature: float) -> float:
    """Return log E e^{τε}: multiplicative noise e^{τε} less that in the exponent has the mean 1.

    Raises:
        TypeError: the law doesn't say.
        ValueError: it is infinite.
    """
    if not callable(getattr(law, "log_mgf", None)):
        raise TypeError(f"multiplicative noise needs a law with log_mgf, such as mapgrad.Gaussian(), got {law!r}")
    value = float(law.log_mgf(temperature))
    if not math.isfinite(value):
        raise ValueError(
            f"multiplicative noise exp({temperature:g} · ε) of {law!r} has no finite mean: take a smaller temperature, "
            "or mapgrad.Gaussian()"
        )
    return value


def _floating(dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype to sample in, torch's default for None.

    Raises:
        ValueError: it isn't a floating dtype.
    """
    dtype = dtype or torch.get_default_dtype()
    if not dtype.is_floating_point:
        raise ValueError(f"noise is real-valued: expected a floating dtype, got {dtype}")
    return dtype


def _in_parts(
    shape: Sequence[int], device: torch.device | str | None, draw: Callable[[int], Tensor], width: int = 1
) -> Tensor:
    """Return draws of a few numbers at a time as one tensor, so that their float64, `width` for each, stay small."""
    shape, count = torch.Size(shape), math.prod(shape)
    if count * width <= _PART or torch.compiler.is_compiling():
        return draw(count).reshape(shape)
    on_cpu = (torch.get_default_device() if device is None else torch.device(device)).type == "cpu"
    part = max(1, (_PART if on_cpu else _PART_ELSEWHERE) // width)
    drawn = draw(min(part, count))
    result = drawn.new_empty(count)  # of torch.vmap's kind, too
    result[: len(drawn)] = drawn
    for start in range(part, count, part):
        stop = min(start + part, count)
        result[start:stop] = draw(stop - start)
    return result.reshape(shape)


def has_functions(noise: object, *names: str) -> bool:
    """Tell whether a law has functions such as `log_prob`: one that isn't invertible can only be sampled."""
    return bool(getattr(noise, "invertible", True)) and all(callable(getattr(noise, name, None)) for name in names)


def require_density(noise: object, temperature: object) -> None:
    """Refuse noise that has no gradient by its density.

    Raises:
        TypeError: `noise` isn't a law with `log_prob`.
        ValueError: the temperature is 0.
    """
    if not has_functions(noise, "log_prob"):
        raise TypeError(f"noise must be a law with log_prob, such as mapgrad.Gaussian(), got {noise!r}")
    if temperature == 0:
        raise ValueError("temperature must be positive, as the gradient is divided by it, got 0")


def scores(law: Any, noise: Tensor) -> Tensor:
    """Return −∇ log ρ of noise, of its shape and dtype."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        at = noise.detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(law.log_prob(at).sum(), at)
    return slope.neg_().to(noise.dtype)
