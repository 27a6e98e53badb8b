"""The point of conv(C) that is nearest to a row, by solves alone, and the derivative of that point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions

    Solve = Callable[[Tensor], Solutions]

_factor = cast("Callable[..., tuple[Tensor, Tensor]]", torch.linalg.cholesky_ex)  # pyright: ignore[reportUnknownMemberType] (untyped in torch)

_ZERO: Final = 1e-12
"""A weight at which a state leaves."""

_ASIDE: Final = 1e-3
_LEAST: Final = 1e-9
"""How far rows are turned to find other states of their face: in units of their largest entry, and of a state's."""

_SURE: Final = 1e-7
"""Share of a gradient that is no longer looked for."""


class Nearest(NamedTuple):
    """What `nearest` found.

    Attributes:
        mean: [B, n] float64, the points.
        slope: [B, n] float64, x − mean: all states of the face around `mean` are best for it.
        states: [B, K, n] float64, the states of which the points are means; in any order, 0 where there are fewer.
        used: bool [B, K], which of them count; these are affinely independent.
        gap: [B] float64, max ⟨x − mean, z − mean⟩ over z in C, relative to the largest ‖z‖² that was seen.
        is_open: bool [B], whether the gap is above the tolerance as there were too few solves.
        status: [B], of the first solve.
        solves: [B] int64, how often each row was solved.
    """

    mean: Tensor
    slope: Tensor
    states: Tensor
    used: Tensor
    gap: Tensor
    is_open: Tensor
    status: Tensor
    solves: Tensor


def nearest(x: Tensor, solve: Solve, problem: Problem | None, *, tolerance: float, max_solves: int) -> Nearest:
    """Return the point of conv(C) that is nearest to each row.

    Wolfe's method (Mathematical Programming 11, 1976), the fully corrective kind of Frank–Wolfe: each solve adds the
    state that is best for x − mean, the weights of all are then set to their best, and states of weight 0 leave. It
    ends after finitely many solves, of which all rows share each; rows that are done are 0 there, and solved as one.

    Args:
        x: [B, n] float64; not written to.
        solve: Returns the best states of rows [B, n].
        problem: What is solved, whose domain clips x as it does for solvers; None for a function that doesn't say.
        tolerance: The gap at which a row is done.
        max_solves: How often a row is solved at most, at least 2.
    """
    found = solve(x)
    status, z = found.status, found.z
    if problem is not None:
        x = problem.domain.clip(x)
    states = x.new_zeros((len(x), room_for(x.shape[1], max_solves), x.shape[1]))
    weights = x.new_zeros(states.shape[:2])
    states[:, 0], weights[:, 0] = z, 1.0
    mean, largest = z.clone(), z.square().sum(dim=1)
    gap, solves = torch.full_like(largest, torch.inf), torch.ones_like(status)
    left = torch.arange(len(x), device=x.device)
    filled = 1
    for _ in range(max_solves - 1):
        slope = (x - mean)[left]
        z = solve(torch.zeros_like(x).index_copy_(0, left, slope)).z[left]
        solves[left] += 1
        largest[left] = torch.maximum(largest[left], z.square().sum(dim=1))
        ahead = (slope * (z - mean[left])).sum(dim=1).clamp_(min=0)
        gap[left] = ahead / torch.where(largest[left] > 0, largest[left], 1)
        rounding = 8 * torch.finfo(x.dtype).eps * slope.abs().amax(dim=1) * z.abs().sum(dim=1)
        is_old = (states[left, :filled] == z[:, None]).all(dim=2) & (weights[left, :filled] > 0)
        goes_on = (gap[left] > tolerance) & (ahead > rounding) & ~is_old.any(dim=1)
        left, z = left[goes_on], z[goes_on]
        if len(left) == 0 or int(solves.max()) == max_solves:
            break
        place = (weights[left] > 0).to(torch.uint8).argmin(dim=1)
        filled = max(filled, int(place.max()) + 1)
        states[left, place] = z
        corrected = _corrected(x[left], states[left, :filled], weights[left, :filled], place)
        weights[left, :filled], mean[left] = corrected
    is_open = torch.zeros_like(status, dtype=torch.bool).index_fill_(0, left, value=True)
    return Nearest(mean, x - mean, states, weights > 0, gap, is_open, status, solves)


def room_for(size: int, max_solves: int) -> int:
    """Return K, how many states of `size` entries there may be."""
    return min(max_solves, size + 1)


def _corrected(x: Tensor, states: Tensor, weights: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best weights [b, K] of states, and their mean [b, n].

    Args:
        x: [b, n], the rows.
        states: [b, K, n].
        weights: [b, K], what they were, 0 where there is no state; of a mean that was the best one.
        place: [b], where a state is new.
    """
    used = (weights > 0).scatter(1, place[:, None], value=True)
    weights, left = weights.clone(), torch.arange(len(x), device=x.device)
    while len(left):
        part, share, uses = states[left], weights[left], used[left]
        centre = _mean(share, part)
        offset = (part - centre[:, None]) * uses[..., None]
        best = _solved(offset, uses, torch.einsum("bkn,bn->bk", offset, x[left] - centre), total=1.0)
        falls = uses & (best <= _ZERO)
        step = torch.where(falls, share / (share - best).clamp(min=_ZERO), 1.0)
        length = step.amin(dim=1, keepdim=True)
        moved = share + length * (best - share)
        goes = falls & ((step <= length) | (moved <= _ZERO))
        moved = torch.where(uses & ~goes, moved, 0.0)
        weights[left] = moved / moved.sum(dim=1, keepdim=True)
        used[left] = uses & ~goes
        left = left[falls.any(dim=1)]
    return weights, _mean(weights, states)


def _solved(offset: Tensor, used: Tensor, values: Tensor, *, total: float) -> Tensor:
    """Return u [b, K] of a given total with (offset offsetᵀ) u = values + a constant, 0 where a state isn't used."""
    gram = offset @ offset.mT
    ones = used.to(gram)
    scale = gram.diagonal(dim1=1, dim2=2).sum(dim=1) / ones.sum(dim=1)
    scale = torch.where(scale > 0, scale, 1)[:, None]
    gram = gram / scale[..., None] + ones[:, :, None] * ones[:, None, :]
    gram.diagonal(dim1=1, dim2=2).add_(1 - ones + 1e-14)
    both = torch.stack([values / scale, ones], dim=2)
    factor = _factor(gram)[0]
    found, constant = torch.cholesky_solve(both, factor).unbind(dim=2)
    return found + constant * ((total - found.sum(dim=1)) / constant.sum(dim=1))[:, None]


def _mean(weights: Tensor, states: Tensor) -> Tensor:
    return torch.einsum("bk,bkn->bn", weights, states)


def along_face(
    gradient: Tensor, slope: Tensor, states: Tensor, used: Tensor, solve: Solve, *, tolerance: float, max_solves: int
) -> Tensor:
    """Return the derivative of the nearest point, which is symmetric, times a gradient [B, n].

    It is the gradient's part along the face around the nearest point. The states may span less: what they leave out
    of the gradient is looked for among the other states of the face, with solves, until none goes that way.

    Args:
        gradient: Float64.
        slope: As from `nearest`, as for the states.
        states: See there.
        used: See there.
        solve: As for it.
        tolerance: As for it.
        max_solves: How often it is solved at most.

    Returns:
        [B, n] float64.
    """
    filled = int(used.sum(dim=1).max()) if len(used) else 0
    order = used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :filled]
    used = used.gather(1, order)
    states = states.gather(1, order[..., None].expand(-1, -1, states.shape[2]))
    share = used.to(states)
    centre = _mean(share / share.sum(dim=1, keepdim=True), states)
    found = _part(gradient, centre, states, used)
    size = gradient.abs().amax(dim=1)
    least = _LEAST * states.abs().amax(dim=(1, 2))
    turn = torch.maximum(_ASIDE * slope.abs().amax(dim=1), least)
    left = torch.arange(len(gradient), device=gradient.device)
    for _ in range(max_solves):
        rest = (gradient - found)[left]
        most = rest.abs().amax(dim=1)
        is_some = most > _SURE * size[left]
        left, rest, most = left[is_some], rest[is_some], most[is_some]
        if len(left) == 0:
            break
        rest = rest / most[:, None]
        towards = slope[left] + turn[left, None] * rest
        z = solve(torch.zeros_like(slope).index_copy_(0, left, towards)).z[left]
        way = z - centre[left]
        length = way.square().sum(dim=1).sqrt()
        bound = (2 * tolerance * z.square().sum(dim=1)).sqrt() * length + 1e-12 * z.abs().sum(dim=1)
        is_off = -(slope[left] * way).sum(dim=1) > bound
        turn[left] = torch.where(is_off, turn[left] / 64, turn[left])
        is_new = ~is_off & ((rest * way).sum(dim=1) > _SURE * length * rest.square().sum(dim=1).sqrt())
        used = torch.cat([used, is_new.new_zeros((len(used), 1)).index_copy_(0, left, is_new[:, None])], dim=1)
        states = torch.cat([states, torch.zeros_like(slope).index_copy_(0, left, z)[:, None]], dim=1)
        goes_on = is_new | (is_off & (turn[left] > least[left]))
        left, changed = left[goes_on], left[is_new]
        found[changed] = _part(gradient[changed], centre[changed], states[changed], used[changed])
    return found


def _part(gradient: Tensor, centre: Tensor, states: Tensor, used: Tensor) -> Tensor:
    """Return the gradient's part along the affine hull of states."""
    offset = (states - centre[:, None]) * used[..., None]
    values = torch.einsum("bkn,bn->bk", offset, gradient)
    return torch.einsum("bk,bkn->bn", _solved(offset, used, values, total=0.0), offset)
