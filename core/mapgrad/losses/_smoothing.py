# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false
"""The noise of a smoothed loss, and the states of its samples: an opaque op where somebody traces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor

from mapgrad.batching import Record, define, find, is_traced
from mapgrad.errors import RowsError
from mapgrad.gradients import Sampler, first_id, next_key, scale_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching import Solver
    from mapgrad.gradients import Estimator, KeyStream, Noise


class Smoothed(Protocol):
    """What a step needs of a loss.

    Attributes:
        solver: Solves the perturbed rows.
        estimator: Says how many samples there are.
        noise: The law.
        keys: Gives each step the key of its noise.
        handle: The number under which ops find the loss.
    """

    solver: Solver
    estimator: Estimator
    noise: Noise | None
    keys: KeyStream
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
    record = Record(lead)
    calls = len(noise) * math.prod(lead[: len(mapped)])  # one sample of one mapped element at a time
    try:
        found = work.solve(
            rows.flatten(0, 1), calls=calls, may_forbid=lambda: forbidden().expand(rows.shape).flatten(0, 1)
        )
    except RowsError as error:
        if not record.fail(error, range(len(utilities)), work.factory.label, work.problems):
            raise
        raise record.error() from error
    shape = (len(noise), *theta.shape)
    return noise.reshape(shape), found.z.reshape(shape)


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
