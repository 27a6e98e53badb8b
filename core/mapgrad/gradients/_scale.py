"""The scale of a row of θ, and how far a relative step goes: blind spots and masked entries of a problem set neither.

Everything here is row by row: what one row gets depends on that row alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from mapgrad.batching import name_problem
from mapgrad.errors import UnsupportedProblemError
from mapgrad.problems import IntegerProgram, Problem

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._context import Context

_SAMPLE: Final = 64
"""Entries of a row from which its typical distance is read: more cost more than they tell."""

_TOP: Final = 8
"""Ones up to which the boundary is looked for in the whole row."""

_NEARER: Final = 3
"""How many of ten entries are nearer than the typical distance: fewer than 4, so that 60 % of them may be masked."""

_NEARER_ALONE: Final = 5
"""The same where no noise adds to the distance, and the third nearest at least: two entries beside the boundary may be
as good as tied, and say nothing of the others."""

_REACH: Final = 12.0
"""Typical distances from the boundary at which an entry no longer counts."""

_PEAK: Final = 3.0
"""How many times its root mean square a direction's largest entry may be before it sets the direction's size."""

_SWEEPS: Final = 3


_Sums = tuple[tuple[tuple[int, ...], float], ...]
"""Which dimensions of θ have a constant sum, and of how many ones."""


def relative_step(theta: Tensor, gradient: Tensor, factor: float | Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Return the step that `RelativeStep` describes, of `factor` times the scale, and the factor of g̃ that this is.

    Args:
        theta: [1, B, *shape]; −inf entries count nowhere and have no step.
        gradient: [S or 1, B, *shape].
        factor: λ or β.
        context: What else is known of the pass.

    Returns:
        [S or 1, B, *shape], a fresh tensor, and [S or 1, B, 1, …] float64; 0 and 1 in rows that have nowhere to go.
    """
    limits = torch.finfo(theta.dtype)
    every = tuple(range(-context.event_ndim, 0))
    sums = _constant_sums(context.problem)
    weight, count, scale = _weight_and_scale(theta, sums, every, context.noise_std)

    step = gradient * weight
    # a peak may be the smallest number of all
    peak = step.abs().amax(dim=every, keepdim=True).clamp_(min=limits.smallest_normal * limits.eps)
    step = _without_means(step.div_(peak), weight, count, sums, every)
    size = torch.maximum(
        step.square().sum(dim=every, keepdim=True).div_(count).sqrt_(),
        step.abs().amax(dim=every, keepdim=True).div_(_PEAK),
    )
    torch.threshold_(size, 64 * limits.eps, math.inf)  # which is what rounding leaves of equal entries: no step
    # so far below the largest number, a step can't carry an entry beyond it
    length = (factor * scale).clamp_(max=limits.max * 2.0**-64) / size
    return step.mul_(length), torch.threshold_(length.double() / peak, 0.0, 1.0)


def row_scale(theta: Tensor, event_ndim: int, problem: Problem | None) -> Tensor:
    """Return the scale of rows by themselves, as `Relative` describes it: 1 where all entries lie on the boundary.

    Args:
        theta: [*batch, *shape], utilities; −inf entries count nowhere.
        event_ndim: Number of dimensions of a row.
        problem: What is solved; None for a function that doesn't say.

    Returns:
        [*batch, 1, …], positive.
    """
    return _weight_and_scale(theta, _constant_sums(problem), tuple(range(-event_ndim, 0)), 0.0, is_alone=True)[2]


def counted(theta: Tensor, event_ndim: int, problem: Problem | None) -> Tensor:
    """Return which entries aren't too far from the boundary to count, 1 or 0, of θ's dtype; arguments as above."""
    every = tuple(range(-event_ndim, 0))
    weight = _weight_and_scale(theta, _constant_sums(problem), every, 0.0, is_alone=True)[0]
    return (weight > 0).to(theta.dtype)


def spread(theta: Tensor, event_ndim: int, problem: Problem | None, counts: Tensor) -> Tensor:
    """Return σ, the root mean square of a row's entries that count, less their means along `Problem.constant_sums`.

    Args:
        theta: [*batch, *shape], utilities or costs; differentiable.
        event_ndim: As above, likewise `problem`.
        problem: See there.
        counts: What `counted` returns.

    Returns:
        [*batch, 1, …]; 0, with derivative 0, where it is no more than rounding.
    """
    limits, every = torch.finfo(theta.dtype), tuple(range(-event_ndim, 0))
    values = theta.masked_fill(counts == 0, 0.0)
    peak = values.detach().abs().amax(dim=every, keepdim=True)
    is_flat = peak < limits.tiny * 2.0**24  # else 1 / σ may be beyond the largest number
    peak = peak.masked_fill(is_flat, 1.0)
    values = values / peak
    sums = _constant_sums(problem)
    for _ in range(1 if len(sums) <= 1 else _SWEEPS):
        for dims, _ in sums:
            count = counts.sum(dim=dims, keepdim=True).clamp(min=1)
            values = values - counts * (values.sum(dim=dims, keepdim=True) / count)
    count = counts.sum(dim=every, keepdim=True).clamp(min=1)
    square = values.square().sum(dim=every, keepdim=True) / count
    is_flat = is_flat | (square.detach() <= (64 * limits.eps) ** 2)
    return square.masked_fill(is_flat, 1.0).sqrt() * peak.masked_fill(is_flat, 0.0)


def require_scalable(problem: Problem | None, what: str) -> None:
    """Refuse a problem whose MAP(θ / scale) isn't MAP(θ).

    Args:
        problem: It; None for a function that doesn't say.
        what: What divides θ, for the message.

    Raises:
        UnsupportedProblemError: a program's variables that θ doesn't price have utilities.
    """
    if isinstance(problem, IntegerProgram) and problem.fixed.any():
        raise UnsupportedProblemError(
            f"{what} divides θ by a scale, but variables of {name_problem(problem)} have utilities of their own, "
            f"`fixed`, which would then count for more: let θ price these variables too"
        )


def _weight_and_scale(
    theta: Tensor, sums: _Sums, every: tuple[int, ...], noise: float | Tensor, *, is_alone: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how much each entry counts, from 0 to 1, their sum, and the rms of the row's spread and noise."""
    limits = torch.finfo(theta.dtype)
    rest = theta
    for _ in range(1 if len(sums) <= 1 else 2):
        for dims, ones in sums:
            rest = rest - _boundary(rest, dims, ones)
    is_certain = isinstance(noise, float) and not noise
    typical = _typical(rest.flatten(every[0]), is_certain=is_certain, is_alone=is_alone)
    if len(every) > 1:
        typical = typical.reshape(*rest.shape[: every[0]], *[1] * len(every))
    typical = typical.add(noise).clamp_(limits.tiny, limits.max / 64)
    reach = _REACH * typical
    square = (rest / reach).square_().clamp_(max=1)
    weight = (square - 1).square_()
    count = weight.sum(dim=every, keepdim=True).clamp_(min=limits.tiny)
    spread = square.mul_(weight).sum(dim=every, keepdim=True) / count
    scale = reach.reciprocal().mul_(noise).square_().add_(spread).sqrt_().mul_(reach)
    return weight, count, torch.where(scale > 0, scale, typical) if is_certain else scale


def _typical(rest: Tensor, *, is_certain: bool, is_alone: bool) -> Tensor:
    """Return a quantile of |rest| [..., n] over what is finite; no 0 without noise, which would take its place."""
    some = _some(rest, -1).abs()
    finite = (some < math.inf).sum(dim=-1, keepdim=True)
    count, tenths = some.shape[-1], _NEARER_ALONE if is_alone else _NEARER
    place = finite * tenths // 10
    if is_alone:
        place = torch.minimum(place.clamp(min=2), finite - 1).clamp(min=0)
    nearest = some.topk(min(max(count * tenths // 10, 2) + 1, count), dim=-1, largest=False).values
    typical = nearest.gather(-1, place)
    if not is_certain:
        return typical
    smallest = some.masked_fill_(some == 0, math.inf).amin(dim=-1, keepdim=True)
    typical = torch.where(typical > 0, typical, smallest)
    return typical.masked_fill_(typical == math.inf, 1.0)


def _boundary(values: Tensor, dims: tuple[int, ...], ones: float) -> Tensor:
    """Return the middle between the last entry along some dimensions that is in by size and the first that isn't."""
    dim, row = dims[0], values
    if len(dims) > 1:
        dim, ends = -1, tuple(range(-len(dims), 0))
        row = values.movedim(dims, ends).flatten(ends[0])
    count = row.shape[dim]
    place = min(max(round(ones), 1), count - 1)
    limits = torch.finfo(values.dtype)
    if place == 0:
        return values.clamp(min=limits.min)
    if place > _TOP and count > _SAMPLE:
        row = _some(row, dim)
        place = min(max(round(ones * _SAMPLE / count), 1), _SAMPLE - 1)
    last_in, out = _around(row, place, dim)
    middle = torch.maximum(last_in, out).div_(2).add_(out, alpha=0.5).clamp_(limits.min, limits.max)
    if len(dims) == 1:
        return middle
    return middle.reshape([1 if axis - values.ndim in dims else size for axis, size in enumerate(values.shape)])


def _around(values: Tensor, place: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return the entry at a place, by size, and the next one that is finite; where none is, the last one that is."""
    if place == 1:  # much quicker than topk
        first, index = values.max(dim=dim, keepdim=True)
        second = values.scatter(dim, index, -math.inf).amax(dim=dim, keepdim=True)
        return first, torch.minimum(second.nan_to_num_(neginf=math.inf), first)
    top = values.topk(place + 1, dim=dim).values
    return top.narrow(dim, place - 1, 1), top.nan_to_num(neginf=math.inf).amin(dim=dim, keepdim=True)


def _some(values: Tensor, dim: int) -> Tensor:
    """Return some of the entries in a dimension, the same ones always, and not at equal distances."""
    length = values.shape[dim]
    if length <= _SAMPLE:
        return values
    golden = torch.arange(_SAMPLE, dtype=torch.float64, device=values.device) * ((math.sqrt(5) - 1) / 2) % 1
    return values.index_select(dim, (golden * length).long())


def _without_means(step: Tensor, weight: Tensor, count: Tensor, sums: _Sums, every: tuple[int, ...]) -> Tensor:
    if len(sums) == 1 and sums[0][0] == every:
        return step.addcmul_(weight, step.sum(dim=every, keepdim=True) / count, value=-1)
    tiny = torch.finfo(weight.dtype).tiny
    counts = [weight.sum(dim=dims, keepdim=True).clamp_(min=tiny) for dims, _ in sums]
    for _ in range(1 if len(sums) <= 1 else _SWEEPS):
        for (dims, _), along in zip(sums, counts, strict=True):
            step.addcmul_(weight, step.sum(dim=dims, keepdim=True) / along, value=-1)
    return step


def _constant_sums(problem: Problem | None) -> _Sums:
    if problem is None:
        return ()
    ndim = len(problem.shape)
    return tuple(
        (tuple(axis - ndim for axis in axes), value / (problem.largest or 1.0))
        for axes, value in problem.constant_sums.items()
    )
