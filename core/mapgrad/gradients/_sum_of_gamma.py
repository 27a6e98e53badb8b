"""The law of Sum-of-Gamma noise in the limit of infinitely many terms, as a table for each κ."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_KAPPA: Final = 1e-4
LARGEST_KAPPA: Final = 1e4
"""The range of κ in which the table is accurate; its size and time grow in proportion to κ."""

_KNOTS: Final = 16384
_CELLS: Final = 8192
_SMALLEST_TAIL: Final = 1e-18
_STIRLING: Final = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


class Table(NamedTuple):
    """The law at its knots, float64 tensors of equal length, and its quantiles.

    Beyond the knots, at probabilities below 1e-18, the logit of F and the log density go on along their end slopes,
    and quantiles stay at the last knot.

    Attributes:
        x: The knots, increasing.
        logit: log F − log(1 − F).
        logit_slope: Its derivative in x.
        log_density: log ρ.
        score: Its derivative in x.
        quantiles: [cells, 4], the quantile as cubics in the logit of u, over cells of equal width between the first
            and the last of `logit`: no search is needed to sample.
    """

    x: Tensor
    logit: Tensor
    logit_slope: Tensor
    log_density: Tensor
    score: Tensor
    quantiles: Tensor

    def icdf(self, u: Tensor) -> Tensor:
        """Return the quantiles of u, float64."""
        low, high, cells = self.logit[0], self.logit[-1], len(self.quantiles)
        at = (torch.logit(u).clamp(low, high) - low) * (cells / (high - low))
        cell = at.long().clamp(max=cells - 1)
        t = at - cell
        a, b, c, d = self.quantiles[cell].unbind(dim=-1)
        return a + t * (b + t * (c + t * d))

    def cdf(self, x: Tensor) -> Tensor:
        """Return F(x) for float64 x."""
        return torch.sigmoid(_hermite(x, self.x, self.logit, self.logit_slope))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log ρ(x) for float64 x."""
        return _hermite(x, self.x, self.log_density, self.score)


@functools.lru_cache(maxsize=32)
def table(kappa: float, device: torch.device) -> Table:
    """Return the table for κ on a device; computed once, then kept."""
    if device.type != "cpu":
        return Table(*(column.to(device) for column in table(kappa, torch.device("cpu"))))
    # a table born under inference_mode would be unfit for autograd for as long as it is kept
    with torch.inference_mode(mode=False):
        x, logit, logit_slope, log_density, score = (torch.as_tensor(column, device=device) for column in _knots(kappa))
        edges = torch.linspace(float(logit[0]), float(logit[-1]), _CELLS + 1, dtype=torch.float64, device=device)
        quantile = _hermite(edges, logit, x, logit_slope.reciprocal())
        density = _hermite(quantile, x, log_density, score).exp()
        slope = torch.sigmoid(edges) * torch.sigmoid(-edges) / density * (edges[1] - edges[0])
        rise, left, right = quantile.diff(), slope[:-1], slope[1:]
        cubics = torch.stack([quantile[:-1], left, 3 * rise - 2 * left - right, left + right - 2 * rise], dim=1)
        return Table(x, logit, logit_slope, log_density, score, cubics)


def _knots(kappa: float) -> tuple[NDArray[np.float64], ...]:
    """Invert the moment-generating function M(s) = Γ(1 − s)^(1/κ) along two lines Re s = a.

    e^(ax) times the density, its slope and the tail are Fourier integrals of M(a + it) times 1, −(a + it) and
    1/|a + it|. With a < 0 rounding errors are small against the left tail, with a > 0 against the right one: so both
    keep many digits down to probabilities of 1e-18, where a single inversion would have lost them at 1e-13.

    Returns:
        The first five columns of `Table`.
    """
    mean = np.euler_gamma / kappa
    low = mean - 20 * kappa**-0.5
    width = mean + 45 * max(1.0, kappa**-0.5) - low
    # |M(it)| falls like exp(−π|t| / 2κ): the largest frequency, π · size / width, must reach some 30 κ
    size = 1 << max(16, math.ceil(math.log2(10 * kappa * width)))
    x = low + width / size * np.arange(size)
    # for large κ the mean lies far to the right of the bulk, where the left line has no digits left
    middle = int(np.searchsorted(x, mean - math.log(max(1.0, kappa)) / kappa))

    def invert(tilt: float, side: slice) -> tuple[NDArray[np.float64], ...]:
        frequency = 2 * math.pi / width * np.arange(size // 2 + 1)
        s = tilt + 1j * frequency
        moments = np.exp(_log_gamma(1 - s) / kappa - 1j * frequency * low)
        untilt = np.exp(-tilt * x[side]) / width
        density, slope, tail = (
            np.fft.hfft(values, size)[side] * untilt for values in (moments, -s * moments, moments / s)
        )
        # the periodic images of the far side, where the distribution function is 1, add up to a constant
        images = abs(tilt) * width
        return density, slope, math.copysign(1, tilt) * tail + math.exp(-images) / math.expm1(-images)

    left = invert(-4 * max(kappa, kappa**0.5), slice(None, middle))
    right = invert(min(0.5, 4 * kappa**0.5), slice(middle, None))
    density, slope, tail = (np.concatenate(halves) for halves in zip(left, right, strict=True))

    lost = np.flatnonzero((tail < _SMALLEST_TAIL) | (density <= 0))
    first = lost[lost < middle].max(initial=-1) + 1
    kept = slice(first, lost[lost >= middle].min(initial=size))
    x, density, slope, tail = x[kept], density[kept], slope[kept], tail[kept]
    logit = np.log1p(-tail) - np.log(tail)
    logit[: middle - first] *= -1

    evenly = np.linspace(float(logit[0]), float(logit[-1]), _KNOTS)
    chosen = np.unique(np.minimum(np.searchsorted(logit, evenly), len(x) - 1))
    x, density, slope, tail, logit = x[chosen], density[chosen], slope[chosen], tail[chosen], logit[chosen]
    return x, logit, density / (tail * (1 - tail)), np.log(density), slope / density


def _log_gamma(z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return log Γ(z) for Re z > 0, continuous in z: Stirling's series, after 15 steps up where |z| is small."""
    near = np.abs(z) < 15
    far: NDArray[np.complex128] = np.where(near, z + 15, z)
    result: NDArray[np.complex128] = (far - 0.5) * np.log(far) - far + 0.5 * math.log(2 * math.pi)
    power = 1 / far
    for coefficient in _STIRLING:
        result += coefficient * power
        power /= far * far
    result[near] -= np.log(z[near, None] + np.arange(15)).sum(axis=1)
    return result


def _hermite(at: Tensor, knots: Tensor, values: Tensor, slopes: Tensor) -> Tensor:
    """Return the cubic Hermite interpolant, continued along its end slopes; differentiable in `at`."""
    inside = at.clamp(knots[0], knots[-1])
    right = torch.searchsorted(knots, inside.detach(), right=True).clamp(1, len(knots) - 1)
    left = right - 1
    step = knots[right] - knots[left]
    t = (inside - knots[left]) / step
    chord = (1 - t).square() * (1 + 2 * t) * values[left] + t.square() * (3 - 2 * t) * values[right]
    bend = t * (1 - t) * step * ((1 - t) * slopes[left] - t * slopes[right])
    return chord + bend + torch.where(at < knots[0], slopes[0], slopes[-1]) * (at - inside)
