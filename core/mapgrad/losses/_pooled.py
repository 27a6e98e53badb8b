# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Losses over a pool of states: where the states come from, and an opaque op where somebody traces."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
from torch import Tensor

from mapgrad.arguments import number
from mapgrad.batching import (
    Record,
    define,
    find,
    full_precision,
    is_traced,
    name_problem,
    name_rows,
    new_handle,
    row_numbers,
)
from mapgrad.errors import NonFiniteError, ProblemError, RowsError
from mapgrad.gradients import KeyStream, next_key
from mapgrad.gradients._ranks import gathered_in_step
from mapgrad.gradients._steps import Recent
from mapgrad.losses._loss import Loss
from mapgrad.losses._values import linear_of, require_finite, require_solver, unfilled
from mapgrad.pool import StatePool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.losses._loss import Reduction
    from mapgrad.losses._values import SolverOrFunction
    from mapgrad.pool import Version
    from mapgrad.problems import Problem

_BLOCK: Final = 1 << 22
"""Scores that are worked out at a time."""

_LARGEST: Final = 1e140
"""Up to which the square of what a state is worth is within float64, whatever the number of entries."""


class Scores(NamedTuple):
    """What the P states of a pool are worth to N rows, in float64: in float32, sums of large utilities would overflow.

    Attributes:
        pred: ⟨θ, z⟩, [N, P]; 0 where a state isn't allowed.
        pred_best: ⟨θ, z*⟩, [N, 1].
        true: ⟨t, z⟩, [N, P]; zeros for a loss that isn't given true values.
        true_best: ⟨t, z*⟩, [N, 1].
        rounding: By how much ⟨t, z⟩ may be wrong, [N, 1].
        allowed: Which states have no entry that θ = −inf forbids, bool [N, P]; some state is, in each row.
    """

    pred: Tensor
    pred_best: Tensor
    true: Tensor
    true_best: Tensor
    rounding: Tensor
    allowed: Tensor


class PooledLoss(Loss):
    """A loss over the states of a `StatePool`, of which only some rows are solved.

    In training, true states z* are added to the pool, and the states MAP(θ) of rows that are drawn with the probability
    `solve_ratio`; the loss is over all that is in the pool then. In eval mode the pool stays as it is, so that rows for
    validation don't leak into it. States of a data set are added by ``loss.pool.add(states)``. The pool moves to the
    device of the predictions. What a checkpoint repeats adds nothing, and sees the pool as the repeated pass did.

    Where the loss is part of the module that DistributedDataParallel wraps, the pool gets the states of all ranks, so
    that they learn what one rank with the whole batch does: all must then call the loss equally often. Not under
    `no_sync` and `join`; there, and outside of that module, ranks have pools of their own.

    A pool is of one problem: `problems=`, one a row, is refused with TypeError. Make a loss for each problem, or take
    one without a pool, such as `SPOPlus` or `FenchelYoung`.

    A predicted row only brings a candidate for the pool: it is solved by the solver's own domain policy, and brings
    none where it fails under ``"nan"`` or ``"zero_grad"``.

    Args:
        solver: See `Loss`, as for the others; one with a problem.
        pool: The states of the solver's problem, to be shared with other losses and estimators; None for a new one.
        solve_ratio: The probability with which a predicted row is solved, from 0 to 1. Rows are drawn by torch's
            default generator.
        minimize: Whether predictions and true values are costs.
        reduction: "mean", "sum" or "none".
        return_solution: Whether the pool's best state for each row of θ comes back too.

    Attributes:
        pool: As given, or the new one.

    Raises:
        TypeError: `pool` isn't a `StatePool`.
        ValueError: `pool` is another problem's, the solver's isn't known, or `solve_ratio` isn't within [0, 1].
    """

    def __init__(
        self,
        solver: SolverOrFunction,
        pool: StatePool | None = None,
        *,
        solve_ratio: float = 1.0,
        minimize: bool = False,
        reduction: Reduction = "mean",
        return_solution: bool = False,
    ) -> None:
        feeder = require_solver(solver)
        super().__init__(feeder, minimize=minimize, reduction=reduction, return_solution=return_solution)
        if not 0 <= number("solve_ratio", solve_ratio) <= 1:
            raise ValueError(f"solve_ratio must be a probability, from 0 to 1, got {solve_ratio}")
        self.solve_ratio = number("solve_ratio", solve_ratio)
        self.pool = pool_of(self.require_problem(), pool)
        self._feeder = unfilled(feeder, takes_nan=True)  # which has a domain policy of its own; pools take in no NaN
        self.keys = KeyStream(0)  # without noise: a key stands for a pass, also where a checkpoint repeats it
        self.versions: Recent[Version] = Recent()
        self.handle = new_handle(self)

    def utilities(self, pred: object, problems: Sequence[Problem] | None = None) -> Tensor:
        """Return θ of a prediction, as every loss does.

        Raises:
            TypeError: there are `problems`; or it isn't a tensor.
            ShapeError: its shape or dtype doesn't fit the problem.
        """
        if problems is not None:
            raise TypeError(
                f"{type(self).__qualname__} compares with a pool of states of one problem, "
                f"{name_problem(self.pool.problem)}, and can't take problems=: make a loss for each problem, each with "
                f"a pool of its own, or take one without a pool, such as SPOPlus or FenchelYoung"
            )
        return super().utilities(pred)

    @abstractmethod
    def weigh(self, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of each row, and its derivatives by the scores.

        Returns:
            Values [N]; derivatives by ``scores.pred``, [N, P], 0 where a state isn't allowed; and those by
            ``scores.pred_best``, [N, 1].
        """

    def over_pool(
        self, theta: Tensor, z_true: Tensor, t: Tensor | None = None, rounding: float | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Feed the pool, and return the loss over it.

        Args:
            theta: [*batch, *shape], utilities.
            z_true: Of the same shape, true states.
            t: Of the same shape, true utilities.
            rounding: As `rounding_of` returns, where a warning shall tell of true states that aren't optimal for t.

        Raises:
            NonFiniteError, ProblemError, RowsError: As `forward` says.
        """
        split = self.split(theta)
        if t is not None:
            t = require_finite("true", t.masked_fill(theta.detach().isneginf(), 0.0), split)
        drawn = None
        if self.training and 0 < self.solve_ratio < 1:
            drawn = torch.rand(theta.shape[:split], device=theta.device) < self.solve_ratio
        key = next_key(self, [theta, z_true]) if self.training else None
        op = torch.ops.mapgrad.pooled if is_traced(theta) or is_traced(z_true) else _pooled
        values, slope, z = op(theta.detach(), z_true, t, drawn, key, rounding, self.handle)
        return self.result(linear_of(theta, values, slope, split), z)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, solve_ratio={self.solve_ratio}"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.handle = new_handle(self)


def pool_of(problem: Problem, pool: StatePool | None) -> StatePool:
    """Return a pool for a problem, a new one for None.

    Raises:
        TypeError: `pool` isn't a `StatePool`.
        ValueError: it is another problem's.
    """
    if pool is None:
        return StatePool(problem)
    if not isinstance(pool, StatePool):  # pyright: ignore[reportUnnecessaryIsInstance] (a user's value)
        raise TypeError(f"pool must be a mapgrad.pool.StatePool or None, got {type(pool).__name__}")
    if pool.problem != problem:
        raise ValueError(f"the pool is for {name_problem(pool.problem)}, and the solver for {name_problem(problem)}")
    return pool


def _pooled(
    theta: Tensor,
    z_true: Tensor,
    t: Tensor | None,
    drawn: Tensor | None,
    key: int | Tensor | None,
    rounding: float | None,
    handle: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values [*batch], their derivatives [*batch, *shape], and the pool's best states for each row."""
    loss: PooledLoss = find(handle)
    shape = loss.pool.problem.shape
    lead = tuple(theta.shape[: theta.ndim - len(shape)])
    if loss.pool.states.device != theta.device:
        loss.pool.to(theta.device)
    loss.require_allowed(theta, z_true)
    for name, each in (("pred", theta), ("true", t)):
        _require_small(name, each, shape)
    loss.require_states(z_true)
    held = loss.pool.states if key is None else _fed(loss, theta, z_true, drawn, int(key), lead)
    rows, best = (each.double().reshape(-1, *shape) for each in (theta, z_true))
    true = None if t is None else t.double().reshape(-1, *shape)
    values, slope = rows.new_empty(len(rows)), torch.empty_like(rows)
    places = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    states, tolerance = held.to(rows.dtype).flatten(1), 1e-9 if theta.dtype == torch.float64 else 1e-6
    size = max(_BLOCK // max(len(states), 1), 1)
    beaten: list[int] = []
    for start in range(0, len(rows), size):
        block = slice(start, start + size)
        t_block = None if true is None else true[block]
        scores, places[block] = _scores(loss.pool, held, rows[block], best[block], t_block, tolerance)
        if not bool((reached := scores.allowed.any(dim=1)).all()):
            bad = [start + row for row in row_numbers(~reached)]
            raise ProblemError(
                f"the pool of {name_problem(loss.pool.problem)}, of {len(states)} states, has none for "
                f"{name_rows(bad, lead)}: train with the loss first, or add states by pool.add"
            )
        if rounding is not None and not loss.has_warned:
            beaten += [start + row for row in _beaten(scores, rounding / tolerance)]
        values[block], weights, of_best = loss.weigh(scores)
        with full_precision(rows):
            slope[block] = (weights @ states + of_best * best[block].flatten(1)).reshape(-1, *shape)
    loss.warn_of_beaten(beaten, lead)
    most = torch.finfo(theta.dtype).max
    slope = slope.clamp(-most, most).to(theta.dtype).reshape(theta.shape)
    return values.reshape(lead), slope, held[places].to(theta).reshape(theta.shape)


def _require_small(name: str, values: Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse utilities of which float64 doesn't hold the squares of sums.

    Raises:
        NonFiniteError: rows of values [*batch, *shape] have such ones.
    """
    if values is None or torch.finfo(values.dtype).max < _LARGEST or not values.numel():
        return
    too_large = values.masked_fill(values.isneginf(), 0.0).abs() > _LARGEST
    if bool(too_large.any()):
        bad = row_numbers(too_large.reshape(-1, math.prod(shape)).any(dim=1))
        rows = name_rows(bad, tuple(values.shape[: values.ndim - len(shape)]))
        raise NonFiniteError(f"{name} exceeds {_LARGEST:g} in {rows}: scale the problem's values down", rows=bad)


def _fed(
    loss: PooledLoss, theta: Tensor, z_true: Tensor, drawn: Tensor | None, key: int, lead: tuple[int, ...]
) -> Tensor:
    """Return the states that a training pass sees, once it has fed the pool; one that is repeated had them before."""
    version = loss.versions.get(key, None)
    if version is None:
        _feed(loss, theta, z_true, drawn, lead)
        loss.versions.note(key, version := loss.pool.version)
    return loss.pool.at(version)


def _feed(loss: PooledLoss, theta: Tensor, z_true: Tensor, drawn: Tensor | None, lead: tuple[int, ...]) -> None:
    """Add the states of rows that are drawn, and then true ones: of all ranks, if they are all in this pass."""
    work = loss._feeder.at_work()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] (of this module)
    rows = theta.reshape(-1, *loss.pool.problem.shape)
    solved = rows[:0]
    chosen = range(len(rows)) if drawn is None else row_numbers(drawn.flatten())
    if loss.solve_ratio > 0 and len(chosen) > 0:
        try:
            found = work.solve(rows if drawn is None else rows[drawn.flatten()])
        except RowsError as error:
            record = Record(lead)
            if not record.fail(error, chosen, work.factory.label, work.problems):
                raise
            raise record.error() from error
        solved = found.z
    for states in (solved, z_true):
        loss.pool.add(gathered_in_step(states.to(loss.pool.states).reshape(-1, *rows.shape[1:])))


def _scores(
    pool: StatePool, states: Tensor, rows: Tensor, best: Tensor, t: Tensor | None, tolerance: float
) -> tuple[Scores, Tensor]:
    """Return the scores of some rows over states of a pool, and the places of the best ones."""
    pred = pool.scores(rows, states)
    allowed = pred != -torch.inf
    places = pred.argmax(dim=1) if pred.shape[1] else pred.new_zeros(len(pred), dtype=torch.int64)
    nothing = torch.zeros_like(pred[:, :1])
    if t is None:
        true, true_best, rounding = torch.zeros_like(pred), nothing, nothing
    else:
        true, terms = pool.scores(t, states), (t * best).flatten(1)
        true_best, rounding = terms.sum(dim=1, keepdim=True), tolerance * terms.abs().sum(dim=1, keepdim=True)
    pred_best = torch.where(best == 0, 0.0, rows * best).flatten(1).sum(dim=1, keepdim=True)
    return Scores(pred.masked_fill(~allowed, 0.0), pred_best, true, true_best, rounding, allowed), places


def _beaten(scores: Scores, room: float) -> list[int]:
    """Return the rows in which a state of the pool is worth more by true utilities than z*, by so many roundings."""
    most = (scores.true_best + scores.rounding * room).squeeze(1)
    if bool((scores.true.amax(dim=1) <= most).all()):  # the usual case, at once
        return []
    return row_numbers(scores.true.masked_fill(~scores.allowed, -torch.inf).amax(dim=1) > most)


def _fake(
    theta: Tensor,
    z_true: Tensor,
    t: Tensor | None,
    drawn: Tensor | None,
    key: Tensor | None,
    rounding: float | None,
    handle: int,
) -> tuple[Tensor, Tensor, Tensor]:
    loss: PooledLoss = find(handle)
    lead = theta.shape[: theta.ndim - len(loss.pool.problem.shape)]
    like = torch.empty_like(theta, memory_format=torch.contiguous_format)
    return theta.new_empty(lead, dtype=torch.float64), like, torch.empty_like(like)


def _vmap(
    info: Any, dims: Any, theta: Tensor, z_true: Tensor, t: Any, drawn: Any, key: Any, rounding: Any, handle: int
) -> Any:
    tensors = [
        each if each is None else each.expand(info.batch_size, *each.shape) if dim is None else each.movedim(dim, 0)
        for each, dim in zip((theta, z_true, t, drawn), dims, strict=False)
    ]
    return torch.ops.mapgrad.pooled(*tensors, key, rounding, handle), (0, 0, 0)


define(
    "pooled(Tensor theta, Tensor z_true, Tensor? t, Tensor? drawn, Tensor? key, float? rounding, int handle) -> "
    "(Tensor, Tensor, Tensor)",
    _pooled,
    _fake,
    _vmap,
)
