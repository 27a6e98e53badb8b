"""Stage `policy`: which rows count as answered, and what happens where some don't."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import torch

from mapgrad.batching._theta import IN_BACKWARD, name_problem, name_rows, row_numbers, to_list
from mapgrad.errors import InfeasibleError, RowsError, SolverCrashError, SolveTimeoutError, UnboundedError
from mapgrad.solutions import Status
from mapgrad.workers import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions

ErrorPolicy = Literal["raise", "incumbent"]

_ERRORS: Final[dict[Status, type[RowsError]]] = {
    Status.ERROR: SolverCrashError,
    Status.FEASIBLE: SolveTimeoutError,
    Status.INFEASIBLE: InfeasibleError,
    Status.UNBOUNDED: UnboundedError,
    Status.TIME_LIMIT: SolveTimeoutError,
}


def unusable_rows(z: Tensor, status: Tensor) -> dict[int, ValueError]:
    """Return what is wrong with the rows whose status or state can't be an answer, by their numbers.

    Args:
        z: [N, *shape].
        status: [N], what the solver reports.
    """
    unknown = (status < min(Status)) | (status > max(Status))
    answered = (status == Status.OPTIMAL) | (status == Status.FEASIBLE)
    states = z.flatten(1)
    broken = ~states.isfinite().all(dim=1) & (answered | ~states.isnan().all(dim=1))
    return {
        row: ValueError("the solver answered with NaN or infinite entries, or wrote no answer")
        for row in row_numbers(broken)
    } | {
        row: ValueError(f"the solver reports status {int(status[row])}, which isn't a mapgrad.Status")
        for row in row_numbers(unknown)
    }


def failed_rows(solutions: Solutions, policy: ErrorPolicy, *, exact: bool) -> list[int]:
    """Return the numbers of the rows without an acceptable answer.

    Args:
        solutions: z [N, *shape], status [N].
        policy: "raise", or "incumbent" to accept any state.
        exact: Whether the solver is; from a heuristic, FEASIBLE is success.
    """
    status: Tensor = solutions.status
    accepted = status == Status.OPTIMAL
    if not exact:
        accepted |= status == Status.FEASIBLE
    if policy == "incumbent":
        answered = solutions.z.flatten(1).isfinite().all(dim=1)
        accepted |= answered & ((status == Status.FEASIBLE) | (status == Status.TIME_LIMIT))
    return [] if bool(accepted.all()) else row_numbers(~accepted)


class FailedRow(NamedTuple):
    """A row without an acceptable answer.

    Attributes:
        status: How it ended.
        cause: What the solver raised.
        label: The solver's name, with that of its distribution.
        problem: What was to be solved; None where it isn't known.
    """

    status: Status
    cause: BaseException | None
    label: str
    problem: Problem | None


def describe_failed(
    rows: Sequence[int], solutions: Solutions, label: str, problems: Sequence[Problem | None]
) -> list[FailedRow]:
    """Return what became of some rows, numbered over the flattened batch, which has these problems in turn."""
    statuses, count = to_list(solutions.status.flatten()), len(problems)
    return [FailedRow(Status(statuses[row]), solutions.causes.get(row), label, problems[row % count]) for row in rows]


def error_of(
    failed: Mapping[int, FailedRow],
    batch: tuple[int, ...],
    solutions: Solutions | None,
    *,
    is_backward: bool = False,
) -> RowsError:
    """Return the error that names failing rows and carries the others' answers.

    Args:
        failed: The rows, by their numbers in the flattened batch.
        batch: The batch's dimensions.
        solutions: The batch's answers.
        is_backward: Whether the rows are those of a backward pass.
    """
    numbers = sorted(failed)
    first = failed[numbers[0]]
    said = "" if first.cause is None else f" ({text_of(first.cause)})"
    of_problem = "" if first.problem is None else f" of {name_problem(first.problem)}"
    if any(row.problem != first.problem for row in failed.values()):
        of_problem += " and other problems"
    where = IN_BACKWARD if is_backward else ""
    error = _ERRORS[first.status](
        f"{where}{first.label} has no acceptable answer to {name_rows(numbers, batch)}{of_problem}; "
        f"row {numbers[0]}: {first.status.name}, {first.status.meaning}{said}",
        rows=numbers,
        solutions=solutions,
    )
    error.__cause__ = first.cause
    return error


def with_values(solutions: Solutions, rows: torch.Tensor) -> None:
    """Fill in objectives and bounds that a solver left open.

    Args:
        solutions: z and rows [N, *shape], the rest [N].
        rows: What was solved, [N, *shape].
    """
    solutions.status = solutions.status.clone()  # users may write to it, and batches that end alike share one
    unknown = torch.full(solutions.status.shape, torch.nan, dtype=torch.float64, device=solutions.status.device)
    said, bound = (unknown if values is None else values for values in (solutions.objective, solutions.bound))  # pyright: ignore[reportUnnecessaryComparison] (not filled in before)
    value = (rows.double() * solutions.z.double()).flatten(1).sum(dim=1)
    solutions.objective = torch.where(said.isnan(), value, said)
    unproved = torch.where(solutions.status == Status.OPTIMAL, solutions.objective, torch.inf)
    solutions.bound = torch.where(bound.isnan(), unproved, bound)
