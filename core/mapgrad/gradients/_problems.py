# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""A batch whose rows have problems of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mapgrad.batching import Record, Solver, is_in_backward, is_traced
from mapgrad.gradients._eager import Each
from mapgrad.gradients._end import end_forward
from mapgrad.gradients._function import prepared, sample, step_key
from mapgrad.gradients._pass import Pass
from mapgrad.gradients._row_ids import first_id, require_row_ids
from mapgrad.gradients._scale import require_scalable
from mapgrad.gradients._widened import widened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching import SolverAtWork
    from mapgrad.gradients._owner import Owner
    from mapgrad.problems import Problem


def sample_problems(
    owner: Owner,
    solver: Solver,
    theta: Tensor | Sequence[Tensor],
    problems: Sequence[Problem],
    row_ids: Tensor | Sequence[int] | None,
    *,
    samples: int,
    is_mean: bool,
) -> Tensor | list[Tensor]:
    """Return MAP states of rows with problems of their own, with the estimator's gradient.

    Args:
        owner: The layer.
        solver: Solves each of the problems.
        theta: [B, *shape], or a list of B tensors of their shapes.
        problems: One a row.
        row_ids: [B] integers that stand for the rows in the noise; None for their rank and place.
        samples: S.
        is_mean: Whether to return the mean over the samples, or all of them.

    Returns:
        [B, *shape] or [S, B, *shape], a list where θ is one.
    """
    works = solver.works_on(theta, problems)
    states: list[Tensor] = [torch.empty(0)] * len(theta)
    device = theta[0].device if works and row_ids is not None else torch.device("cpu")
    ids = (
        torch.arange(len(theta), device=device) + first_id()
        if row_ids is None
        else require_row_ids(row_ids, (len(theta),), device)
    )
    if owner.normalize:
        for work, _ in works:
            require_scalable(work.problem, "normalize=True")
    stacked = [work.require_theta(torch.stack([theta[row] for row in rows])) for work, rows in works]
    wide = [*map(widened, stacked)]
    # all rows are of one step, whatever other rows have their problem
    key = step_key(owner, [work for work, _ in works], wide, may_differ=True) if owner.training else None
    if works:
        outputs = _sample_each(
            owner,
            [(work, rows_of_work, rows) for (work, rows), rows_of_work in zip(works, wide, strict=True)],
            dtypes=theta.dtype if isinstance(theta, Tensor) else [row.dtype for row in theta],
            samples=samples,
            is_mean=is_mean,
            key=key,
            ids=[ids[rows] for _, rows in works],
        )
        for (_, rows), z in zip(works, outputs, strict=True):
            for row, answers in zip(rows, z.unbind(0 if is_mean else 1), strict=True):
                states[row] = answers.to(theta[row].dtype)
    if not isinstance(theta, Tensor):
        return states
    return torch.stack(states, dim=-theta.ndim) if states else theta


def _sample_each(
    owner: Owner,
    groups: Sequence[tuple[SolverAtWork, Tensor, Sequence[int]]],
    *,
    dtypes: torch.dtype | list[torch.dtype],
    samples: int,
    is_mean: bool,
    key: int | Tensor | None,
    ids: Sequence[Tensor],
) -> list[Tensor]:
    """Return what `sample` does for the rows of each problem of a batch; all are tried before failing rows are named.

    Where somebody traces, the first group that fails is named alone.

    Args:
        owner: The layer.
        groups: For each problem the solver at work on it, its rows θ [N, *shape], and their numbers in the batch.
        dtypes: That of the user's batch, or of each row of a list.
        samples: S.
        is_mean: As for `sample`.
        key: That of the noise of all groups.
        ids: For each group, what stands for its rows in the noise.

    Returns:
        For each group, as from `sample`.
    """
    if any(is_traced(theta) for _, theta, _ in groups):
        return [
            sample(owner, work, theta, samples=samples, perturb=owner.training, is_mean=is_mean, key=key, ids=each)
            for (work, theta, _), each in zip(groups, ids, strict=True)
        ]
    passes = [
        Pass(owner, work, key, samples=samples, is_mean=is_mean, ids=each, numbers=numbers)
        for (work, _, numbers), each in zip(groups, ids, strict=True)
    ]
    thetas = [prepared(owner, work, theta) for work, theta, _ in groups]
    monitor, record = owner.monitor, Record((sum(map(len, thetas)),), dtypes)
    if is_in_backward():
        return list(Each.apply(passes, record, *thetas))
    monitor.last = None
    outputs = Each.apply(passes, record, *thetas)
    monitor.last = record
    end_forward(owner, record, [*zip(passes, thetas, strict=True)])
    return list(outputs)
