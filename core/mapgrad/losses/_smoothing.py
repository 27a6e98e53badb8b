# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false
"""What smooths a loss, noise and the states of its samples or a mean of states: opaque ops where somebody traces."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import torch
from torch import Tensor

from mapgrad.batching import Record, define, find, is_traced
from mapgrad.errors import RowsError
from mapgrad.gradients import Sampler, first_id, next_key, scale_for
from mapgrad.gradients._projection import nearest
from mapgrad.gradients._users_level import users_level
from mapgrad.solutions import Solutions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import Solver, SolverAtWork
    from mapgrad.gradients import Estimator, KeyStream, Noise


_TOLERANCE: Final = 1e-10
_SOLVES: Final = 20
"""The relative gap of a mean of states, and how many solves it may take for each entry."""


class Smoothed(Protocol):
    """What a step needs of a loss.

    Attributes:
        solver: Solves the perturbed rows.
        estimator: Says how many samples there are.
        noise: The law.
        keys: Gives each step the key of its noise.
        quadratic: w, where a quadratic term smooths in place of noise; else None.
        handle: The number under which ops find the loss.
    """

    solver: Solver
    estimator: Estimator
    noise: Noise | None
    keys: KeyStream
    quadratic: float | None
    handle: int

    def perturbed(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Return rows, [S, *] of θ [*] and noise τε [S, *]."""
        ...


def drawn(loss: Smoothed, theta: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the noise of a step, times its temperature, and the states of its perturbed rows.

    Args:
        loss: Whose step it is; it has noise.
        theta: [*batch, *shape], utilities.
        ids: int64 [*batch], what stands for a row in the noise; None for its rank and place.

    Returns:
        τε and z, each [S, *batch, *shape] like θ.

    Raises:
        RowsError: rows can't be solved; they are numbered as in θ.
    """
    key = next_key(cast("Any", loss), [theta])
    if is_traced(theta):
        return torch.ops.mapgrad.smoothed(theta, key, ids, [], loss.handle)
    return _smoothed(theta, key, ids, (), loss.handle)


def _smoothed(
    theta: Tensor, key: int | Tensor, ids: Tensor | None, mapped: Sequence[int], handle: int
) -> tuple[Tensor, Tensor]:
    loss: Smoothed = find(handle)
    work = loss.solver.at_work()
    split = work.lead_ndim(theta, len(mapped))
    lead, event = tuple(theta.shape[:split]), tuple(theta.shape[split:])
    utilities = theta.reshape(-1, *event)
    sampler = Sampler(
        loss.noise,
        int(key),
        loss.estimator.samples,
        lead,
        event,
        mapped=tuple(map(bool, mapped)),
        ids=ids,
        first=first_id() if ids is None else 0,
        by_row=loss.keys.seed is not None,
        scale=scale_for(loss.estimator.temperature, utilities, len(event), work.problem),
    )
    noise = sampler.perturb(torch.zeros_like(utilities), loss.estimator.temperature)
    rows = loss.perturbed(utilities, noise)
    forbidden = utilities.isneginf
    calls = len(noise) * math.prod(lead[: len(mapped)])  # one sample of one mapped element at a time
    found = _solved(work, rows.flatten(0, 1), lead, calls, lambda: forbidden().expand(rows.shape).flatten(0, 1))
    shape = (len(noise), *theta.shape)
    return noise.reshape(shape), found.z.reshape(shape)


def _solved(
    work: SolverAtWork, rows: Tensor, lead: tuple[int, ...], calls: int, may_forbid: Callable[[], Tensor]
) -> Solutions:
    """Return the answers to rows [..., N, *shape] of a batch of these dimensions, whose numbers errors tell."""
    try:
        return work.solve(rows, calls=calls, may_forbid=may_forbid)
    except RowsError as error:
        record = Record(lead)
        if not record.fail(error, range(math.prod(lead)), work.factory.label, work.problems):
            raise
        raise record.error() from error


def _fake(theta: Tensor, key: Tensor, ids: Tensor | None, mapped: Sequence[int], handle: int) -> tuple[Tensor, Tensor]:
    loss: Smoothed = find(handle)
    like = theta.new_empty((loss.estimator.samples, *theta.shape))
    return like, torch.empty_like(like)


def _vmap(info: Any, dims: Any, theta: Tensor, key: Tensor, ids: Tensor | None, mapped: Any, handle: int) -> Any:
    if info.randomness == "error":
        raise RuntimeError(
            "vmap: a FenchelYoung loss draws noise, but vmap was called with randomness='error': pass "
            "randomness='different' for noise of its own for each element, or 'same' for the same noise for all"
        )
    theta = theta.expand(info.batch_size, *theta.shape) if dims[0] is None else theta.movedim(dims[0], 0)
    if ids is not None:
        ids = ids.unsqueeze(0) if dims[2] is None else ids.movedim(dims[2], 0)
    mapped = [int(info.randomness == "different"), *mapped]
    return torch.ops.mapgrad.smoothed(theta, key, ids, mapped, handle), (1, 1)


define(
    "smoothed(Tensor theta, Tensor key, Tensor? ids, int[] mapped, int handle) -> (Tensor, Tensor)",
    _smoothed,
    _fake,
    _vmap,
)


def regularised(loss: Smoothed, theta: Tensor) -> Tensor:
    """Return μ = argmax ⟨θ, μ⟩ − (w/2) ‖μ‖² over conv(C), like θ [*batch, *shape].

    Raises:
        RowsError: rows can't be solved; they are numbered as in θ.
    """
    return (torch.ops.mapgrad.regularised if is_traced(theta) else _regularised)(theta, 0, loss.handle)


def _regularised(theta: Tensor, mapped: int, handle: int) -> Tensor:
    loss: Smoothed = find(handle)
    assert loss.quadratic is not None
    if not theta.numel():
        return torch.zeros_like(theta)
    work = loss.solver.at_work()
    split = work.lead_ndim(theta, mapped)
    lead = tuple(theta.shape[:split])
    utilities = theta.reshape(-1, *theta.shape[split:])
    forbidden = utilities.isneginf()

    def solve(rows: Tensor) -> Solutions:
        asked = rows.view(utilities.shape).masked_fill(forbidden, -torch.inf)
        found = _solved(work, asked, lead, math.prod(lead[:mapped]), lambda: forbidden)
        return Solutions(found.z.reshape(rows.shape), found.status)

    x = utilities.masked_fill(forbidden, 0.0).double().reshape(len(utilities), -1) / loss.quadratic
    most = _SOLVES * (x.shape[1] + 10)
    found = nearest(x, solve, work.problem, tolerance=_TOLERANCE, max_solves=most)
    if bool(found.is_open.any()):
        warnings.warn(
            f"{int(found.is_open.sum())} of {len(x)} rows of a loss with quadratic={loss.quadratic:g} were left with a "
            f"relative gap of up to {float(found.gap.max()):.1g} after {most} solves: is the solver exact?",
            stacklevel=users_level(),
        )
    return found.mean.to(theta.dtype).reshape(theta.shape)


def _vmap_regularised(info: Any, dims: Any, theta: Tensor, mapped: int, handle: int) -> Any:
    return torch.ops.mapgrad.regularised(theta.movedim(dims[0], 0), mapped + 1, handle), 0


define(
    "regularised(Tensor theta, int mapped, int handle) -> Tensor",
    _regularised,
    lambda theta, mapped, handle: torch.empty_like(theta),
    _vmap_regularised,
)
