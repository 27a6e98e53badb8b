"""The law of Sum-of-Gamma noise in the limit of infinitely many terms, as a table for each κ."""

from __future__ import annotations

import math
import os
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_KAPPA: Final = 1e-4
LARGEST_KAPPA: Final = 1e4
"""The range of κ in which the table is accurate; its size and time grow in proportion to κ."""

_KNOTS: Final = 16384
_SMALLEST_TAIL: Final = 1e-18
_TABLES_KEPT: Final = 32

_CELLS: Final = 1 << 16
_FIRST_CELL: Final = (127 - 59) << 7
_LAST_CELL: Final = (127 - 1) << 7
"""The cells that start at 2⁻⁵⁹, above the smallest tail, and at ½; the bias of float32's 8-bit exponents is 127."""

_SIXTEEN: Final = np.array(16, np.uint32)
_STIRLING: Final = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)


class Table(NamedTuple):
    """The law at its knots, float64 tensors of equal length, and its quantiles.

    Beyond the knots, at probabilities below 1e-18, the logit of F and the log density go on along their end slopes,
    and quantiles stay where they are at 2⁻⁵⁹.

    Attributes:
        x: The knots, increasing.
        logit: log F − log(1 − F).
        logit_slope: Its derivative in x.
        log_density: log ρ.
        score: Its derivative in x.
        quantiles: [65536, 4], the quantile of u as cubics in z = u for u ≤ ½ and z = u − 1 above. One cell is made of
            the z that share the first 16 bits of their float32: the sign, the exponent and 7 bits, hence 128 cells
            for each factor of 2 down to both ends, found without a logarithm or a search.
    """

    x: Tensor
    logit: Tensor
    logit_slope: Tensor
    log_density: Tensor
    score: Tensor
    quantiles: Tensor

    def icdf(self, u: Tensor) -> Tensor:
        """Return the quantiles of u, float64."""
        u = u.clamp(max=1 - 2.0**-53)
        z = u - u.round()
        cell = (z.float().view(torch.int32) >> 16) & (_CELLS - 1)
        a, b, c, d = self.quantiles[cell.long()].unbind(dim=-1)
        return a + z * (b + z * (c + z * d))

    def icdf_(self, u: NDArray[np.float64]) -> None:
        """Replace u, of one dimension, by its quantiles."""
        z = np.rint(u)
        np.subtract(u, z, z)
        bits = z.astype(np.float32).view(np.uint32)
        np.right_shift(bits, _SIXTEEN, bits)
        cubics = self.quantiles.numpy().take(bits.astype(np.intp), axis=0, mode="clip")
        np.multiply(cubics[:, 3], z, u)
        for power in (2, 1):
            np.add(u, cubics[:, power], u)
            np.multiply(u, z, u)
        np.add(u, cubics[:, 0], u)

    def cdf(self, x: Tensor) -> Tensor:
        """Return F(x) for float64 x."""
        return torch.sigmoid(_hermite(x, self.x, self.logit, self.logit_slope))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log ρ(x) for float64 x."""
        return _hermite(x, self.x, self.log_density, self.score)


_tables: dict[tuple[float, torch.device], Table] = {}
_building = threading.RLock()


def _forget_lock() -> None:
    """Let a forked child build tables, even if a thread of its parent was building one."""
    global _building
    _building = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def table(kappa: float, device: torch.device) -> Table:
    """Return the table for κ on a device; computed once, then kept."""
    found = _tables.get((kappa, device))
    if found is not None:
        return found
    with _building:
        found = _tables.get((kappa, device))
        if found is None:
            if device.type == "cpu":
                found = _build(kappa)
            else:
                found = Table(*(column.to(device) for column in table(kappa, torch.device("cpu"))))
            while len(_tables) >= _TABLES_KEPT:
                del _tables[next(iter(_tables))]
            _tables[kappa, device] = found
        return found


def _build(kappa: float) -> Table:
    # all by NumPy: torch would wake its threads for each search
    x, logit, logit_slope, log_density, score = columns = _knots(kappa)
    bits = np.arange(_FIRST_CELL, _LAST_CELL + 2, dtype=np.uint32) << 16
    edges = bits.view(np.float32).astype(np.float64)
    quantiles = np.zeros((_CELLS, 4))
    for sign, first in ((1, 0), (-1, _CELLS // 2)):
        at = sign * (np.log(edges) - np.log1p(-edges))
        left = np.searchsorted(logit, at).clip(1, len(logit) - 1) - 1
        step = np.diff(logit)[left]
        t = (at - logit[left]) / step
        values = _cubic(t, step, x[left], x[left + 1], 1 / logit_slope[left], 1 / logit_slope[left + 1])
        step = np.diff(x)[left]
        t = (values - x[left]) / step
        log_slopes = -_cubic(t, step, log_density[left], log_density[left + 1], score[left], score[left + 1])
        quantiles[first : first + _FIRST_CELL, 0] = values[0]
        quantiles[first + _FIRST_CELL : first + _LAST_CELL + 1] = _powers(sign * edges, values, np.exp(log_slopes))
    # a table born under inference_mode would be unfit for autograd for as long as it is kept
    with torch.inference_mode(mode=False):
        return Table(*(torch.as_tensor(column, device="cpu") for column in (*columns, quantiles)))


def _powers(z: NDArray[np.float64], values: NDArray[np.float64], slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coefficients [cells, 4], by rising power of z, of the cubic Hermite interpolants between knots z."""
    width, start = np.diff(z), z[:-1]
    rise, left, right = np.diff(values) / width, slopes[:-1], slopes[1:]
    square, cube = (3 * rise - 2 * left - right) / width, (left + right - 2 * rise) / width**2
    return np.stack(
        [
            values[:-1] - start * (left - start * (square - start * cube)),
            left - start * (2 * square - 3 * start * cube),
            square - 3 * start * cube,
            cube,
        ],
        axis=1,
    )


def _knots(kappa: float) -> tuple[NDArray[np.float64], ...]:
    """Tabulate the law left and right of its bulk and join the halves.

    Returns:
        The first five columns of `Table`.
    """
    mean, steep = float(np.euler_gamma) / kappa, max(kappa, kappa**0.5)
    start = -(6 + math.log(kappa)) / kappa if kappa > 1 else mean - 20 * kappa**-0.5
    middle = mean + (1 - math.log(max(1.0, kappa))) / steep

    # the left tail is steep and short
    near, far = (_invert(kappa, tilt * steep, start, 40 / steep, 1 << 15, 60 * steep) for tilt in (-3, -12))
    left = np.where(far[-1] > near[-1], far, near)[:, near[0] < middle]

    # the right one is long, and at most as steep as e^(−x)
    width = mean + 80 * max(1.0, kappa**-0.5) - start
    size = 1 << max(16, math.ceil(math.log2(10 * kappa * width)))
    right = _invert(kappa, min(0.7, 3 * kappa**0.5), start, width, size, 30 * steep)
    right = right[:, right[0] >= middle]

    side = np.repeat([-1, 1], [left.shape[1], right.shape[1]])
    x, density, slope, tail, _ = np.concatenate([left, right], axis=1)
    lost = np.flatnonzero((tail < _SMALLEST_TAIL) | (density <= 0))
    kept = slice(lost[side[lost] < 0].max(initial=-1) + 1, lost[side[lost] > 0].min(initial=len(x)))
    x, density, slope, tail = x[kept], density[kept], slope[kept], tail[kept]
    logit = side[kept] * (np.log1p(-tail) - np.log(tail))

    evenly = np.linspace(float(logit[0]), float(logit[-1]), _KNOTS)
    chosen = np.unique(np.minimum(np.searchsorted(logit, evenly), len(x) - 1))
    x, density, slope, tail, logit = x[chosen], density[chosen], slope[chosen], tail[chosen], logit[chosen]
    return x, logit, density / (tail * (1 - tail)), np.log(density), slope / density


def _invert(kappa: float, tilt: float, start: float, width: float, size: int, largest: float) -> NDArray[np.float64]:
    """Invert the moment-generating function M(s) = Γ(1 − s)^(1/κ) along the line Re s = tilt.

    e^(tilt x) times the density, its slope and the tail are Fourier integrals of M(s) times 1, −s and 1/|s|. With a
    negative tilt rounding errors are small against the left tail, with a positive one against the right tail: so
    several lines keep many digits down to probabilities of 1e-18, where a single one would have lost them at 1e-13.

    Args:
        kappa: κ.
        tilt: Real part of s.
        start: Smallest x.
        width: Length of the window of x. The tilted functions repeat at this distance, so that they must have
            vanished within it.
        size: Number of x.
        largest: Largest imaginary part of s, where M must have vanished: it falls like exp(−π |Im s| / 2κ).

    Returns:
        [5, size]: x, density, slope of the density, tail, which is P(ε ≤ x) for a negative tilt and P(ε > x) for a
        positive one, and the tilted density relative to its maximum: the smaller it is, the more digits are lost.
    """
    count = min(size // 2, math.ceil(largest * width / (2 * math.pi)))
    s = np.full(count + 1, tilt, np.complex128)
    s.imag = 2 * math.pi / width * np.arange(count + 1)
    # x starts at a whole number of steps, so that the shift of the transform is exact
    first = round(start * size / width)
    x = width / size * (first + np.arange(size))
    centre = x[size // 2]  # keeps the powers of e in range
    moments = np.exp(_log_gamma(1 - s) / kappa - tilt * centre)
    untilt = np.exp(-tilt * (x - centre)) / width
    tilted = [np.roll(np.fft.hfft(values, size), -first) for values in (moments, -s * moments, moments / s)]
    density, slope, tail = (values * untilt for values in tilted)
    # the periodic images of the far side, where the distribution function is 1, add up to a constant
    images = abs(tilt) * width
    tail = math.copysign(1, tilt) * tail + math.exp(-images) / math.expm1(-images)
    return np.array([x, density, slope, tail, tilted[0] / tilted[0].max()], np.float64)


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
    cubic = _cubic(t, step, values[left], values[right], slopes[left], slopes[right])
    return cubic + torch.where(at < knots[0], slopes[0], slopes[-1]) * (at - inside)


def _cubic(t: Any, step: Any, left: Any, right: Any, left_slope: Any, right_slope: Any) -> Any:
    """Return the cubic Hermite interpolant at t, from 0 to 1 in a step, of tensors or arrays."""
    chord = (1 - t) ** 2 * (1 + 2 * t) * left + t**2 * (3 - 2 * t) * right
    return chord + t * (1 - t) * step * ((1 - t) * left_slope - t * right_slope)
