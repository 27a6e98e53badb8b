"""Whole batches on θ's device: a `BatchSolver` is called, and its answer checked."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from mapgrad.batching._policy import unusable_rows
from mapgrad.batching._theta import are_finite
from mapgrad.solutions import Solutions, Status
from mapgrad.workers import detach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.batching._clock import Clock
    from mapgrad.solvers import BatchSolver

_OPTIMAL: Final = int(Status.OPTIMAL)
_FEASIBLE: Final = int(Status.FEASIBLE)


def solve_batch(plugin: BatchSolver[Any], rows: Tensor, clock: Clock | None = None) -> tuple[Solutions, bool]:
    """Have rows [N, *shape] solved; whatever the solver raises fails all of them.

    Under a deadline it gets rows of its own, and is left behind where it doesn't keep it.

    Args:
        plugin: The solver.
        rows: The rows.
        clock: The deadline; None for any time.

    Returns:
        z [N, *shape] of the rows' dtype and device, status [N], the rest as the solver gave it; and whether all rows
        succeeded: each has a state, and is OPTIMAL or, from a heuristic, FEASIBLE.
    """
    if clock is None:
        return _solved(plugin, rows)
    own = with_version(rows.clone())
    found = clock.call(lambda: _solved(plugin, own), rows.device)
    return _all_failed(rows, clock.error(), Status.TIME_LIMIT) if found is None else found


def _solved(plugin: BatchSolver[Any], rows: Tensor) -> tuple[Solutions, bool]:
    rows = with_version(rows)
    version = rows._version  # noqa: SLF001 (torch documents it for this use)
    try:
        if torch.is_grad_enabled():
            with torch.no_grad():
                answer: Any = plugin.solve(rows)
        else:
            answer = plugin.solve(rows)
        return _checked(answer, rows, version, _OPTIMAL if plugin.traits.exact else _FEASIBLE)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (whatever a solver raises fails its rows)
        detach(error)
        return _all_failed(rows, error, Status.ERROR)


def _all_failed(rows: Tensor, error: BaseException, status: Status) -> tuple[Solutions, bool]:
    failed = torch.full((len(rows),), int(status), device=rows.device)
    causes = dict.fromkeys(range(len(rows)), error)
    return Solutions(torch.full_like(rows, torch.nan), failed, causes=causes), False


def with_version(theta: Tensor) -> Tensor:
    """Return a tensor that has a version: a copy of one born in inference mode, which has none."""
    if not theta.is_inference():
        return theta
    with torch.inference_mode(mode=False):
        return theta.clone()


def _checked(answer: Any, rows: Tensor, version: int, plain: int) -> tuple[Solutions, bool]:
    """Return an answer to rows that had this version when they were given, as `solve_batch` does."""
    if rows._version != version:  # noqa: SLF001 (as above)
        raise ValueError("the solver wrote to θ, which must come out as it went in: let it work on a copy")
    given = answer.z if isinstance(answer, Solutions) else answer
    if not isinstance(given, Tensor):
        raise TypeError(f"the solver answered with {type(given).__name__} where a tensor of θ's shape was expected")
    if given.shape != rows.shape:
        raise ValueError(f"the solver answered with shape {tuple(given.shape)} where {tuple(rows.shape)} was expected")
    if given.is_complex():
        raise ValueError("the solver answered with complex numbers where real ones were expected")
    z = given.detach() if given.requires_grad else given
    if z.dtype != rows.dtype or z.device != rows.device:
        z = z.to(rows)
    z = z.contiguous()  # an expanded one, say, couldn't be written to
    if z.data_ptr() == rows.data_ptr():
        z = z.clone()  # an answer that shares θ's memory would change with it
    if not isinstance(answer, Solutions):
        is_finite = are_finite(z)
        solutions = Solutions(z, plain_status(plain, rows.shape[0], rows.device))
        if not is_finite:
            solutions.status = solutions.status.clone()
            _fail_unusable(solutions)
        return solutions, is_finite
    for name in ("status", "objective", "bound"):
        values = getattr(answer, name)
        if values is None and name != "status":
            continue
        if not isinstance(values, Tensor) or values.shape != (len(rows),):
            came = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"the solver's {name} must be a tensor of shape ({len(rows)},), got {came}")
        if values.is_complex():
            raise ValueError(f"the solver's {name} has complex numbers where real ones were expected")
    if answer.status.is_floating_point() or answer.status.dtype == torch.bool:
        raise ValueError(f"the solver's status must hold the integers of mapgrad.Status, got {answer.status.dtype}")
    solutions = Solutions(z, answer.status.to(rows.device, torch.int64, copy=True), answer.objective, answer.bound)
    is_clean = bool((solutions.status == plain).all()) and are_finite(z)
    if not is_clean:
        _fail_unusable(solutions)
    return solutions, is_clean


@lru_cache(maxsize=16)
def plain_status(status: int, count: int, device: torch.device) -> Tensor:
    """Return the status of rows that all ended alike, [count] int64, which all who ask share: not to be written to."""
    with torch.inference_mode(mode=False):  # what is born under it couldn't be saved for a backward pass later
        return torch.full((count,), status, device=device)


def _fail_unusable(solutions: Solutions) -> None:
    """Fail the rows whose status or state can't be an answer."""
    solutions.causes.update(unusable_rows(solutions.z, solutions.status))
    if solutions.causes:
        failed = [*solutions.causes]
        solutions.status[failed] = int(Status.ERROR)
        solutions.z = solutions.z.clone()  # the solver may keep its own
        solutions.z[failed] = torch.nan


def ask_function(
    solver: BatchSolver[Any], batches: Sequence[Tensor], clock: Clock | None = None
) -> tuple[Solutions, bool]:
    """Have a function solve batches; it may return one buffer again and again, and write to θ through NumPy."""
    parts: list[Solutions] = []
    is_clean = True
    for rows in batches:
        part, succeeded = solve_batch(solver, rows.clone(), clock)
        part.z = part.z.clone()
        parts.append(part)
        is_clean &= succeeded
    return joined(parts), is_clean


def joined(parts: Sequence[Solutions]) -> Solutions:
    """Return one batch's answers from those to its parts; objectives and bounds where all parts have them."""
    if len(parts) == 1:
        return parts[0]
    solutions = Solutions(torch.cat([part.z for part in parts]), torch.cat([part.status for part in parts]))
    for name in ("objective", "bound", "variables"):
        values = [getattr(part, name) for part in parts]
        if all(value is not None for value in values):
            setattr(solutions, name, torch.cat(values))
    start = 0
    for part in parts:
        solutions.causes.update({start + row: error for row, error in part.causes.items()})
        start += part.status.shape[0]
    return solutions


def give_shape(solutions: Solutions, batch: tuple[int, ...]) -> None:
    """Give a flat batch's answers, z [N, *shape] and the rest [N], its dimensions."""
    solutions.z = solutions.z.reshape(*batch, *solutions.z.shape[1:])
    solutions.status = solutions.status.reshape(batch)
    if solutions.forbidden is not None:
        solutions.forbidden = solutions.forbidden.reshape(solutions.z.shape)
    if solutions.failed is not None:
        solutions.failed = solutions.failed.reshape(batch)
    for name in ("objective", "bound"):
        values: Tensor | None = getattr(solutions, name)
        if values is not None:  # left out where nobody asked
            setattr(solutions, name, values.reshape(batch))
    if solutions.variables is not None:
        solutions.variables = solutions.variables.reshape(*batch, -1)
