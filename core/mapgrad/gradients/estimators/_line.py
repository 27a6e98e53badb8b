"""Line I-MLE: the jumps of the answer along the loss's gradient, weighed by the density of the noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from mapgrad.arguments import whole_number
from mapgrad.gradients._constant_sums import allowed_in, without_sums
from mapgrad.gradients._laws import Gaussian
from mapgrad.gradients._line_law import line_law
from mapgrad.gradients._noise import require_density
from mapgrad.gradients.estimators._estimator import Estimator, Forward

if TYPE_CHECKING:
    from mapgrad.gradients._noise import Noise
    from mapgrad.gradients._temperature import Temperature

_GAUSSIAN: Final = Gaussian()

_OUTSIDE: Final = 0.5 * math.erfc(3 / math.sqrt(2))
_OUTSIDE_AT_FULL_DEPTH: Final = 1e-6
"""Share of the noise beyond each end of a line."""

_ROUNDING: Final = 64
"""Units of the last place of a gradient's largest entry: what is left of it without its means, if no more, is none."""


class Line(Estimator):
    """The gradient of the loss of the mean, L(E MAP(θ + τε)), along lines of noise, without a step length.

    Let h = g̃_s / ‖g̃_s‖ and ε_s = ε⊥ + s₀h. Along s, MAP(θ + τ(ε⊥ + sh)) is piecewise constant, and the gradient is
    (‖g̃_s‖ / τ) E Σ (z₊ − z₋) q(s*) over its jumps, where q is the density of s on that line: ∏ ρ(ε⊥_i + s h_i), divided
    by its integral. So the noise along the line is integrated, not sampled. It needs an exact argmax: with a heuristic,
    or where θ is clipped, the result isn't this gradient.

    g̃ is taken without its means along `Problem.constant_sums`, which move no answer, so that a constant there changes
    nothing. Of other equations between a state's entries, such as those of an `IntegerProgram`, nothing is known: what
    g̃ has along these leaves the gradient as unbiased, but turns lines to where no answer changes, and adds to its
    variance and, with few levels of `depth`, to its error.

    With `depth` 0 a sample's line is solved at both ends, which leave out .1 % of the noise each, beside the forward
    pass's solve at s₀. Between two different answers, one jump is assumed, where their two objectives cross. This is
    biased in direction, and of about the right length. Each further level of depth solves once at each such crossing:
    if that finds nothing better, the jump is exact, else there are two. With all levels it is unbiased, but for what
    lies beyond the ends, 1e-6 of the noise each. In training it has been no better than `IMLE`.

    With all samples as output, it is the gradient of Σ_s ⟨z_s, g̃_s⟩ with g̃ held. In eval mode, ε⊥ = 0.

    Args:
        noise: ρ, a law with `log_prob`.
        depth: How many levels of crossings are solved; None for all.
        samples: S.
        temperature: τ > 0.

    Raises:
        TypeError: `noise` isn't a law with `log_prob`, or `depth` no int.
        ValueError: `depth` is negative, or `temperature` is 0.
    """

    noise: Noise

    def __init__(
        self, noise: Noise = _GAUSSIAN, *, depth: int | None = 0, samples: int = 1, temperature: Temperature = 1.0
    ) -> None:
        super().__init__(noise, samples=samples, temperature=temperature)
        require_density(noise, self.temperature)
        self.depth = None if depth is None else whole_number("depth", depth, 0, also=", or None for all levels")

    @property
    def is_rowwise(self) -> bool:
        """Always."""
        return True

    @property
    def advice(self) -> str:
        """To take more samples or noise."""
        return "take more samples, or a larger temperature"

    def gradient(self, forward: Forward, gradient: Tensor) -> Tensor:
        """Return (1/S) Σ_s (‖g̃_s‖ / τ) Σ (z₊ − z₋) q(s*)."""
        shape = forward.z.shape
        tau = _taus(forward.sampler.row_temperatures(self.temperature), forward)
        noise = _lines(forward.sampler.perturb(torch.zeros_like(forward.theta), 1.0), shape)
        theta = _lines(forward.theta.masked_fill(forward.theta.isneginf(), 0.0), shape)
        rounding = _ROUNDING * torch.finfo(gradient.dtype).eps * _lines(gradient, shape).abs().amax(1, keepdim=True)
        slope = _lines(without_sums(gradient.double(), allowed_in(forward.theta), forward.problem), shape)
        peak = slope.abs().amax(dim=1, keepdim=True)
        slope = slope.masked_fill(peak <= rounding, 0.0)
        slope = slope / torch.where(peak > 0, peak, 1)  # first, as the square of a peak may be no number
        norm = slope.square().sum(dim=1, keepdim=True).sqrt()
        direction = slope / torch.where(norm > 0, norm, 1)
        start = (noise * direction).sum(dim=1)
        rest = noise - start[:, None] * direction
        law = line_law(self.noise, rest, direction, start)
        rows = _Rows(theta + tau * rest, tau * direction, forward)

        found = torch.zeros_like(theta)
        outside = _OUTSIDE_AT_FULL_DEPTH if self.depth is None else _OUTSIDE
        pieces = rows.first_pieces(law.quantile(outside), start, law.quantile(1 - outside))
        level = 0
        while len(pieces.line):
            at = rows.crossing(pieces)
            answers, is_jump = pieces.left, torch.ones_like(pieces.line, dtype=torch.bool)
            if level != self.depth:
                answers, is_jump = rows.between(pieces, at)
            jumps, lines = pieces.of(is_jump), pieces.line[is_jump]
            density = law.density(at[is_jump], lines)
            found.index_add_(0, lines, (jumps.right - jumps.left) * density[:, None])
            pieces, level = rows.cut(pieces.of(~is_jump), at[~is_jump], answers[~is_jump]), level + 1
        most = torch.finfo(forward.theta.dtype).max * 2.0**-16
        found = (found * (norm / tau) * peak).clamp(-most, most).to(forward.theta.dtype).view(shape)
        forward.observe(found, gradient)
        return found.mean(dim=0)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"noise={self.noise}, depth={self.depth}, samples={self.samples}, temperature={self.temperature}"


class _Pieces(NamedTuple):
    """Pieces of lines at whose two ends answers differ.

    Attributes:
        line: [N] int64, the number of the line.
        left: [N, n], the answer at the left end.
        right: [N, n], that at the right end.
        low: [N], s at the left end.
        high: [N], s at the right end.
    """

    line: Tensor
    left: Tensor
    right: Tensor
    low: Tensor
    high: Tensor

    def of(self, chosen: Tensor) -> _Pieces:
        """Return some of the pieces."""
        return _Pieces(*(tensor[chosen] for tensor in self))


class _Rows:
    """Rows base + s · way, one line for each sample of each row of a batch: L = S · B lines.

    Args:
        base: [L, n] float64.
        way: [L, n] float64.
        forward: Solves them.
    """

    def __init__(self, base: Tensor, way: Tensor, forward: Forward) -> None:
        self._base, self._way, self._forward = base, way, forward
        self._shape, self._dtype = forward.z.shape, forward.theta.dtype

    def first_pieces(self, low: Tensor, start: Tensor, high: Tensor) -> _Pieces:
        """Return the pieces of all lines between two ends [L], cut where the forward pass solved them."""
        ends = torch.stack([torch.minimum(low, start), torch.maximum(high, start)])
        first, last = self._solved(self._base + ends[..., None] * self._way)
        lines = torch.arange(len(start), device=start.device)
        whole = _Pieces(lines, first, last, ends[0], ends[1])
        return self.cut(whole, start, _lines(self._forward.z, self._shape))

    def cut(self, pieces: _Pieces, at: Tensor, answers: Tensor) -> _Pieces:
        """Return both sides of pieces, cut at an s [N] where the answers are [N, n], as far as they have jumps."""
        left = pieces._replace(right=answers, high=at)
        right = pieces._replace(left=answers, low=at)
        both = _Pieces(*(torch.cat(pair) for pair in zip(left, right, strict=True)))
        change, way = both.right - both.left, self._way[both.line]
        rounding = 1e-12 * (way.abs() * change.abs()).sum(dim=1)
        return both.of((way * change).sum(dim=1) > rounding)

    def crossing(self, pieces: _Pieces) -> Tensor:
        """Return the s [N] where the objectives of both ends' answers are equal."""
        change = pieces.right - pieces.left
        base, way = ((rows[pieces.line] * change).sum(dim=1) for rows in (self._base, self._way))
        return (-base / way).clamp(pieces.low, pieces.high)

    def between(self, pieces: _Pieces, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answers [N, n] at an s [N] of each piece, and whether they are no better than both ends'."""
        base, step = self._base[pieces.line], at[:, None] * self._way[pieces.line]
        rows = base + step
        place = _place_of(pieces.line)
        asked = rows.new_zeros((int(place.max()) + 1, *self._base.shape))  # rows of 0 are solved as one
        asked[place, pieces.line] = rows
        answers = self._solved(asked)[place, pieces.line]
        change = answers - pieces.left
        gain = (rows * change).sum(dim=1)
        size = base.abs() + step.abs()  # their sum may be next to 0
        rounding = 2 * torch.finfo(self._dtype).eps * (size * change.abs()).sum(dim=1)
        is_an_end = (answers == pieces.left).all(dim=1) | (answers == pieces.right).all(dim=1)
        return answers, (gain <= rounding) | is_an_end | (at <= pieces.low) | (at >= pieces.high)

    def _solved(self, rows: Tensor) -> Tensor:
        """Return the answers to rows [M, L, n]."""
        asked = rows.to(self._dtype).view(len(rows), *self._shape)
        return self._forward.solve(asked).z.double().view(rows.shape)


def _taus(temperature: float | Tensor, forward: Forward) -> float | Tensor:
    """Return τ as a factor of lines, a number or [S · B, 1]."""
    if not isinstance(temperature, Tensor):
        return temperature
    return _lines(temperature.expand_as(forward.theta), forward.z.shape)[:, :1]


def _lines(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return rows that expand to [S, B, *shape] as [S · B, n] float64."""
    return rows.double().expand(shape).reshape(shape[0] * shape[1], -1)


def _place_of(lines: Tensor) -> Tensor:
    """Return for each line of a list [N] how often it stands before in the list."""
    order = lines.argsort(stable=True)
    sorted_lines = lines[order]
    place = torch.arange(len(lines), device=lines.device)
    place = place - torch.searchsorted(sorted_lines, sorted_lines)
    return torch.empty_like(place).scatter_(0, order, place)
