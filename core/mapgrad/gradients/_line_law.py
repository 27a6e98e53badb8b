"""The law of noise along a line, where the rest of it is given: of s, where ε⊥ + s h is noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import Tensor

from mapgrad.gradients._laws import Gaussian

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise

_FEW: Final = 32
_MANY: Final = 160
"""Points of the quadrature: to find where the density matters, and there."""

_DOUBLINGS: Final = 8
_NARROWINGS: Final = 12
_SEEN: Final = 8
"""So many of the few points lie where the density matters, or it is looked at more closely."""

_TINY: Final = 1e-300

_FALL: Final = 16.0
"""How far the log density falls to where it no longer matters."""


class LineLaw(Protocol):
    """The law of s on L lines."""

    def density(self, s: Tensor, lines: Tensor) -> Tensor:
        """Return the density at s [N] on the lines of these numbers [N]."""
        ...

    def quantile(self, share: float) -> Tensor:
        """Return an s [L] below which about this share lies."""
        ...


def line_law(law: Noise, rest: Tensor, direction: Tensor, start: Tensor) -> LineLaw:
    """Return the law of s on L lines: its density is in proportion to ∏ ρ(ε⊥_i + s h_i).

    That of `Gaussian` is normal. Others are integrated by a quadrature, which asks some 200 times for their log density
    at each entry; it is right to .3 % or better, as for `Laplace` along a single entry, but to tens of percent only for
    tails that are heavier than exponential ones, such as Cauchy's.

    Args:
        law: The noise's, with `log_prob`.
        rest: ε⊥ [L, n] float64, orthogonal to h.
        direction: h [L, n] float64, of length 1, or 0 where it doesn't matter.
        start: [L] float64, an s that the noise has.
    """
    if isinstance(law, Gaussian):
        return _Normal(start)
    return _Integrated(law, rest, direction, start)


class _Normal:
    """The law of s for `Gaussian` noise, on as many lines as `like` has entries."""

    def __init__(self, like: Tensor) -> None:
        self._like = like

    def density(self, s: Tensor, lines: Tensor) -> Tensor:
        return Gaussian().log_prob(s).exp()

    def quantile(self, share: float) -> Tensor:
        return Gaussian().icdf(torch.full_like(self._like, share))


class _Integrated:
    """The law of s for other noise; arguments as for `line_law`."""

    def __init__(self, law: Any, rest: Tensor, direction: Tensor, start: Tensor) -> None:
        self._law, self._rest, self._direction = law, rest, direction
        size = torch.cat([rest, start[:, None]], dim=1).square().mean(dim=1).sqrt().clamp(min=_TINY)
        low, high = self._end(start, -size), self._end(start, size)
        for _ in range(_NARROWINGS):
            low, high, is_seen = self._narrowed(low, high, start)
            if bool(is_seen.all()):
                break
        self._points, logs = self._at_points(low, high, _MANY)
        top = logs.amax(dim=0)
        weights = (logs - top).exp()
        weights[[0, -1]] /= 2
        shares = weights.cumsum(dim=0)
        self._log_total = top + (shares[-1] * (self._points[1] - self._points[0])).log()
        self._shares = shares / shares[-1]

    def density(self, s: Tensor, lines: Tensor) -> Tensor:
        return (self._log(s, self._rest[lines], self._direction[lines]) - self._log_total[lines]).exp()

    def quantile(self, share: float) -> Tensor:
        place = (self._shares < share).sum(dim=0, keepdim=True).clamp(max=_MANY - 1)
        return self._points.gather(0, place)[0]

    def _log(self, s: Tensor, rest: Tensor, direction: Tensor) -> Tensor:
        logs: Tensor = self._law.log_prob(rest + s[:, None] * direction)
        return logs.double().nan_to_num(nan=-math.inf, neginf=-math.inf).sum(dim=1)

    def _end(self, start: Tensor, step: Tensor) -> Tensor:
        """Return an s on one side of a start where the density has vanished, to be looked for in such steps."""
        top = self._log(start, self._rest, self._direction)
        for _ in range(_DOUBLINGS):
            logs = self._log(start + step, self._rest, self._direction)
            top = torch.maximum(top, logs)
            step = torch.where(logs > top - _FALL, 2 * step, step)
        return start + step

    def _narrowed(self, low: Tensor, high: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return ends between which the density matters, of an interval that holds them, and whether many points do."""
        points, logs = self._at_points(low, high, _FEW)
        at_start = self._log(start, self._rest, self._direction)
        matters = logs > torch.maximum(logs.amax(dim=0), at_start) - _FALL
        apart = points[1] - points[0]
        first = torch.where(matters, points, start).amin(dim=0)
        last = torch.where(matters, points, start).amax(dim=0)
        return first - apart, last + apart, matters.sum(dim=0) >= _SEEN

    def _at_points(self, low: Tensor, high: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return points [P, L] between two ends, at equal distances, and the log density there but for a constant."""
        parts = torch.linspace(0, 1, count, dtype=low.dtype, device=low.device)
        points = low + (high - low) * parts[:, None]
        return points, torch.stack([self._log(s, self._rest, self._direction) for s in points])
