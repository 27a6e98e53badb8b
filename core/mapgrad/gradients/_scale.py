"""How far a relative step goes: a scale of θ and a direction that a problem's blind spots and masked entries don't set.

Everything here is row by row: what one row gets depends on that row alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from mapgrad.gradients._context import Context
    from mapgrad.problems import Problem

_SAMPLE: Final = 64
"""Entries of a row from which its typical distance is read: more cost more than they tell."""

_QUANTILE: Final = 0.3
"""Share of the entries that are nearer than the typical distance: below .4, so that 60 % of them may be masked."""

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
    weight, scale = _weight_and_scale(theta, sums, every, context.noise_std)
    count = weight.sum(dim=every, keepdim=True).clamp_(min=limits.tiny)

    step = gradient * weight
    peak = step.abs().amax(dim=every, keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)
    step = _without_means(step.div_(peak), weight, count, sums, every)
    size = torch.maximum(
        (step.square().sum(dim=every, keepdim=True) / count).sqrt(),
        step.abs().amax(dim=every, keepdim=True) / _PEAK,
    )
    goes = size > 64 * limits.eps  # less is what rounding leaves of equal entries
    # so far below the largest number, a step can't carry an entry beyond it
    length = (factor * scale).clamp(max=limits.max * 2.0**-64) / torch.where(goes, size, 1.0)
    divisor = torch.where(goes & (length > 0), length / peak, 1.0)
    return step.mul_(torch.where(goes, length, 0.0).to(step.dtype)), divisor


def _weight_and_scale(
    theta: Tensor, sums: _Sums, every: tuple[int, ...], noise: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return how much each entry counts, from 0 to 1, and the root mean square of the row's spread and noise."""
    limits = torch.finfo(theta.dtype)
    rest = theta
    for _ in range(1 if len(sums) <= 1 else 2):
        for dims, ones in sums:
            rest = rest - _boundary(rest, dims, ones)
    typical = _typical(rest.flatten(every[0])).reshape(*rest.shape[: every[0]], *[1] * len(every)) + noise
    typical = typical.clamp(limits.tiny, limits.max / 64)
    reach = _REACH * typical
    square = (rest / reach).square_().clamp_(max=1)
    weight = (1 - square).square_()
    spread = square.mul_(weight).sum(dim=every, keepdim=True) / weight.sum(dim=every, keepdim=True).clamp_(
        min=limits.tiny
    )
    scale = reach.double() * (spread.double() + (noise / reach.double()).square()).sqrt()
    return weight, torch.where(scale > 0, scale, typical)


def _typical(rest: Tensor) -> Tensor:
    """Return a quantile of |rest| [..., n] over what is finite, without a 0 where there is another number."""
    some = _some(rest, rest.shape[-1]).abs().sort(dim=-1).values
    finite = (some < math.inf).sum(dim=-1, keepdim=True)
    place = (finite * _QUANTILE).ceil().long().sub_(1).clamp_(min=0)
    typical = some.gather(-1, place)
    smallest = torch.where(some > 0, some, math.inf).amin(dim=-1, keepdim=True)
    typical = torch.where(typical > 0, typical, smallest)
    return torch.where(typical < math.inf, typical, 1.0)


def _boundary(values: Tensor, dims: tuple[int, ...], ones: float) -> Tensor:
    """Return the middle between the last entry along some dimensions that is in by size and the first that isn't."""
    last = values.movedim(dims, tuple(range(-len(dims), 0))).flatten(-len(dims))
    length = last.shape[-1]
    some = _some(last, length)
    size = some.shape[-1]
    if size == 1:
        middle = some
    else:
        place = min(max(round(ones * size / length), 1), size - 1)
        top = some.topk(place + 1, dim=-1).values
        out = top.masked_fill(top == -math.inf, math.inf).amin(dim=-1, keepdim=True)
        middle = torch.maximum(top[..., -2:-1], out) / 2 + out / 2
    limits = torch.finfo(values.dtype)
    middle = middle.clamp(limits.min, limits.max)
    kept = [1 if dim - values.ndim in dims else size for dim, size in enumerate(values.shape)]
    return middle.reshape(kept)


def _some(values: Tensor, length: int) -> Tensor:
    """Return some of the entries in the last dimension, the same ones always, and not at equal distances."""
    if length <= _SAMPLE:
        return values
    golden = torch.arange(_SAMPLE, dtype=torch.float64, device=values.device) * ((math.sqrt(5) - 1) / 2) % 1
    return values.index_select(-1, (golden * length).long())


def _without_means(step: Tensor, weight: Tensor, count: Tensor, sums: _Sums, every: tuple[int, ...]) -> Tensor:
    if len(sums) == 1 and sums[0][0] == every:
        return step.addcmul_(weight, step.sum(dim=every, keepdim=True) / count, value=-1)
    tiny = torch.finfo(weight.dtype).tiny
    counts = [weight.sum(dim=dims, keepdim=True).clamp_(min=tiny) for dims, _ in sums]
    for _ in range(1 if len(sums) <= 1 else _SWEEPS):
        for (dims, _), along in zip(sums, counts, strict=True):
            step = step.addcmul_(weight, step.sum(dim=dims, keepdim=True) / along, value=-1)
    return step


def _constant_sums(problem: Problem | None) -> _Sums:
    if problem is None:
        return ()
    ndim = len(problem.shape)
    return tuple(
        (tuple(axis - ndim for axis in axes), value / (problem.largest or 1.0))
        for axes, value in problem.constant_sums.items()
    )
