# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownLambdaType=false
"""What smooths a loss, noise and the states of its samples or a regulariser: opaque ops where somebody traces."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Protocol

import torch
from torch import Tensor

from mapgrad.batching import Record, define, find, is_traced
from mapgrad.errors import RowsError
from mapgrad.gradients import Sampler, first_id, next_key, scale_for
from mapgrad.losses._regularisers import temperature_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching import Solver, SolverAtWork
    from mapgrad.gradients import Estimator, KeyStream, Noise
    from mapgrad.losses._regularisers import Regulariser
    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions


_UNTRACED: Final = (
    "problems= can't be traced, as the problems aren't tensors: call the loss outside of torch.compile, torch.vmap and "
    "torch.func, or make a loss for each problem"
)


class Smoothed(Protocol):
    """What a step needs of a loss.

    Attributes:
        solver: Solves the perturbed rows.
        estimator: Says how many samples there are, and what multiplies noise and regulariser.
        noise: The law, for the solver's own problem.
        regulariser: What smooths in place of noise; None for none.
        keys: Gives each step the key of its noise.
        handle: The number under which ops find the loss.
    """

    solver: Solver
    estimator: Estimator
    noise: Noise | None
    regulariser: Regulariser | None
    keys: KeyStream
    handle: int

    def begin(self, key: int) -> None:
        """Begin a training step."""
        ...

    def perturbed(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Return rows, [S, *] of θ [*] and noise τε [S, *]."""
        ...

    def require_allowed(self, theta: Tensor, z_true: Tensor, problems: Sequence[Problem] | None = None) -> None:
        """Refuse θ that isn't finite but for forbidden entries, and true states that hold these."""
        ...

    def require_states(self, z_true: Tensor, problems: Sequence[Problem] | None = None) -> None:
        """Refuse true states that aren't."""
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
    key = next_key(loss, [theta])
    if is_traced(theta):
        return torch.ops.mapgrad.smoothed(theta, key, ids, [], loss.handle)
    return _smoothed(theta, key, ids, (), loss.handle)


def drawn_each(
    loss: Smoothed, theta: Tensor, ids: Tensor | None, problems: Sequence[Problem]
) -> tuple[Tensor, Tensor] | None:
    """Return what `drawn` does for rows [B, *shape] with problems of their own; None where none of these has noise.

    The noise is that of a layer: all rows are of one step, and each has its own, whatever others have its problem. All
    are tried before failing rows are named.
    """
    works = loss.solver.works_on(theta, problems)
    laws = [loss.estimator.noise_for(work.problem) for work, _ in works]
    if all(law is None for law in laws):
        if loss.estimator.noise is not None:
            next_key(loss, [])  # a step of other ranks, whose rows may have problems with noise
        return None
    require_untraced(theta)
    if ids is None:
        ids = torch.arange(len(theta), device=theta.device) + first_id()
    key = int(next_key(loss, [theta[rows] for _, rows in works]))
    noise = theta.new_zeros((loss.estimator.samples, *theta.shape))
    z, record = torch.empty_like(noise), Record((len(theta),), theta.dtype)
    clock = works[0][0].new_clock()
    for (work, rows), law in zip(works, laws, strict=True):
        utilities = theta[rows]
        sampler = _sampler(loss, law, key, utilities, (len(rows),), work.problem, ids=ids[rows])
        noise[:, rows] = made = sampler.perturb(torch.zeros_like(utilities), loss.estimator.temperature)
        perturbed = loss.perturbed(utilities, made)
        try:
            found = work.solve(perturbed.flatten(0, 1), may_forbid=_may_forbid(utilities, perturbed), clock=clock)
        except RowsError as error:
            if not record.fail(error, rows, work.factory.label, work.problems):
                raise
        else:
            z[:, rows] = states = found.z.reshape(perturbed.shape)
            record.add(rows, states, found.status.reshape(states.shape[:2]), None, None)
    if record.has_failed:
        raise record.error()
    return noise, z


def require_untraced(theta: Tensor) -> None:
    """Refuse problems of rows where somebody traces.

    Raises:
        RuntimeError: somebody does.
    """
    if is_traced(theta):
        raise RuntimeError(_UNTRACED)


def _smoothed(
    theta: Tensor, key: int | Tensor, ids: Tensor | None, mapped: Sequence[int], handle: int
) -> tuple[Tensor, Tensor]:
    loss: Smoothed = find(handle)
    work = loss.solver.at_work()
    split = work.lead_ndim(theta, len(mapped))
    lead = tuple(theta.shape[:split])
    utilities = theta.reshape(-1, *theta.shape[split:])
    sampler = _sampler(loss, loss.noise, int(key), utilities, lead, work.problem, ids=ids, mapped=mapped)
    noise = sampler.perturb(torch.zeros_like(utilities), loss.estimator.temperature)
    rows = loss.perturbed(utilities, noise)
    calls = len(noise) * math.prod(lead[: len(mapped)])  # one sample of one mapped element at a time
    found = _solved(work, rows.flatten(0, 1), lead, calls, _may_forbid(utilities, rows))
    shape = (len(noise), *theta.shape)
    return noise.reshape(shape), found.z.reshape(shape)


def _sampler(
    loss: Smoothed,
    law: Noise | None,
    key: int,
    theta: Tensor,
    lead: tuple[int, ...],
    problem: Problem | None,
    *,
    ids: Tensor | None,
    mapped: Sequence[int] = (),
) -> Sampler:
    """Return the noise of rows θ [N, *shape] of a batch of these dimensions."""
    event = tuple(theta.shape[1:])
    return Sampler(
        law,
        key,
        loss.estimator.samples,
        lead,
        event,
        mapped=tuple(map(bool, mapped)),
        ids=ids,
        first=first_id() if ids is None else 0,
        by_row=loss.keys.seed is not None,
        scale=scale_for(loss.estimator.temperature, theta, len(event), problem),
    )


def _may_forbid(theta: Tensor, rows: Tensor) -> Callable[[], Tensor]:
    """Return what tells where rows made of θ, [..., N, *shape], may have −inf: where θ does."""
    return lambda: theta.isneginf().expand(rows.shape).reshape(-1, *theta.shape[1:])


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


def regularised(
    loss: Smoothed, theta: Tensor, z_true: Tensor, problems: Sequence[Problem] | None = None
) -> tuple[Tensor, Tensor]:
    """Return values of a loss with a regulariser, and μ, which is z* plus their gradient.

    Args:
        loss: It.
        theta: [*batch, *shape], utilities.
        z_true: Of the same shape, true states.
        problems: One a row, in place of the solver's own.

    Returns:
        [*batch] float64 and [*batch, *shape] like θ.

    Raises:
        NonFiniteError, ProblemError: As for `Smoothed.require_allowed`, or a row of z* isn't a state.
        RowsError: rows can't be solved; they are numbered as in θ.
    """
    if problems is not None:
        return _regularised_each(loss, theta, z_true, problems)
    op = torch.ops.mapgrad.regularised if is_traced(theta) or is_traced(z_true) else _regularised
    return op(theta, z_true, 0, loss.handle)


def _regularised(theta: Tensor, z_true: Tensor, mapped: int, handle: int) -> tuple[Tensor, Tensor]:
    loss: Smoothed = find(handle)
    work = loss.solver.at_work()
    split = work.lead_ndim(theta, mapped)
    lead = tuple(theta.shape[:split])
    if not theta.numel():
        return theta.new_zeros(lead, dtype=torch.float64), torch.zeros_like(theta)
    loss.require_allowed(theta, z_true)
    utilities, states = (each.reshape(-1, *theta.shape[split:]) for each in (theta, z_true))
    calls = math.prod(lead[:mapped])

    def solve(rows: Tensor) -> Solutions:
        return _solved(work, rows, lead, calls, _may_forbid(utilities, rows))

    loss.require_states(z_true)
    values, means = _values_and_means(loss, utilities, states, work.problem, solve)
    return values.reshape(lead), means.to(theta.dtype).reshape(theta.shape)


def _regularised_each(
    loss: Smoothed, theta: Tensor, z_true: Tensor, problems: Sequence[Problem]
) -> tuple[Tensor, Tensor]:
    """Return what `regularised` does for rows [B, *shape] with problems of their own."""
    works = loss.solver.works_on(theta, problems)
    require_untraced(theta)
    loss.require_allowed(theta, z_true, problems)
    by_problem = _by_problem(works, problems)
    loss.require_states(z_true, problems)
    groups = works if loss.regulariser is not None and loss.regulariser.solves else by_problem
    values, means = theta.new_empty(len(theta), dtype=torch.float64), torch.empty_like(theta)
    record = Record((len(theta),), theta.dtype)
    for work, rows in groups:
        utilities = theta[rows]

        def solve(asked: Tensor, work: SolverAtWork = work, utilities: Tensor = utilities) -> Solutions:
            return work.solve(asked, may_forbid=_may_forbid(utilities, asked))

        try:
            values[rows], found = _values_and_means(loss, utilities, z_true[rows], problems[rows[0]], solve)
        except RowsError as error:
            if not record.fail(error, rows, work.factory.label, work.problems):
                raise
        else:
            means[rows] = found.to(theta.dtype)
    if record.has_failed:
        raise record.error()
    return values, means


def _by_problem(
    works: list[tuple[SolverAtWork, list[int]]], problems: Sequence[Problem]
) -> list[tuple[SolverAtWork, list[int]]]:
    """Return the rows of each solver at work by problem, of which it may serve several."""
    groups: dict[Problem, tuple[SolverAtWork, list[int]]] = {}
    for work, rows in works:
        for row in rows:
            groups.setdefault(problems[row], (work, []))[1].append(row)
    return list(groups.values())


def _values_and_means(
    loss: Smoothed, theta: Tensor, z_true: Tensor, problem: Problem | None, solve: Callable[[Tensor], Solutions]
) -> tuple[Tensor, Tensor]:
    assert loss.regulariser is not None
    tau = temperature_of(loss.estimator.temperature, theta, problem)
    return loss.regulariser.values_and_means(theta, z_true, tau, problem, solve)


def _fake_regularised(theta: Tensor, z_true: Tensor, mapped: int, handle: int) -> tuple[Tensor, Tensor]:
    loss: Smoothed = find(handle)
    lead = theta.shape[: loss.solver.at_work().lead_ndim(theta, mapped)]
    return theta.new_empty(lead, dtype=torch.float64), torch.empty_like(theta, memory_format=torch.contiguous_format)


def _vmap_regularised(info: Any, dims: Any, theta: Tensor, z_true: Tensor, mapped: int, handle: int) -> Any:
    tensors = [
        each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
        for each, dim in zip((theta, z_true), dims, strict=False)
    ]
    return torch.ops.mapgrad.regularised(*tensors, mapped + 1, handle), (0, 0)


define(
    "regularised(Tensor theta, Tensor z_true, int mapped, int handle) -> (Tensor, Tensor)",
    _regularised,
    _fake_regularised,
    _vmap_regularised,
)
