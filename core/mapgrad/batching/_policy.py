"""Stage `policy`: which rows count as answered, and what happens where some don't."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import torch

from mapgrad.batching._theta import IN_BACKWARD, name_problem, name_rows, row_numbers, to_list
from mapgrad.batching._users_level import users_level
from mapgrad.errors import InfeasibleError, RowsError, SolverCrashError, SolveTimeoutError, UnboundedError
from mapgrad.solutions import Status
from mapgrad.workers import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from mapgrad.batching._counts import Counts
    from mapgrad.batching._fallbacks import Fallbacks
    from mapgrad.problems import Problem
    from mapgrad.solutions import Solutions


class _Settings(Protocol):
    """What a user asked for."""

    @property
    def on_error(self) -> ErrorPolicy: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def blank(self) -> bool: ...


ErrorPolicy = str
"""``"raise"``, ``"incumbent"``, ``"nan"``, ``"zero_grad"``, the last two also with ``":any"`` behind them, or
``"fallback:"`` with names of solvers between commas."""

_ANY: Final = ":any"
_FILLS: Final = {"nan": torch.nan, "zero_grad": 0.0, f"nan{_ANY}": torch.nan, f"zero_grad{_ANY}": 0.0}
"""What stands for the state of a row that failed, under the policies that don't raise."""

_FALLBACK: Final = "fallback:"

_FOR_LATE_ROWS: Final = {
    ("incumbent",): '"incumbent" is for rows that have a state by then',
    ("fallback",): '"fallback:…" asks another solver',
    ("zero_grad", "nan"): '"zero_grad" leaves the row out',
}
"""What policies do for rows that ran out of time."""

_ERRORS: Final[dict[Status, type[RowsError]]] = {
    Status.ERROR: SolverCrashError,
    Status.FEASIBLE: SolveTimeoutError,
    Status.INFEASIBLE: InfeasibleError,
    Status.UNBOUNDED: UnboundedError,
    Status.TIME_LIMIT: SolveTimeoutError,
}


def require_policy(value: object) -> None:
    """Refuse what isn't a policy.

    Raises:
        ValueError: it isn't one.
    """
    if value not in ("raise", "incumbent", *_FILLS) and not (isinstance(value, str) and all(fallbacks_of(value))):
        raise ValueError(
            f"on_error must be 'raise', 'incumbent', {', '.join(map(repr, _FILLS))} or 'fallback:' with names of "
            f"solvers, such as 'fallback:highs,ortools.mip', got {value!r}"
        )
    words = [name for name in fallbacks_of(str(value)) if name in ("raise", "incumbent", *_FILLS)]
    if words:
        raise ValueError(
            f"on_error falls back to solvers alone, and raises where all fail: {words[0]!r} in {value!r} isn't one"
        )


def fallbacks_of(policy: ErrorPolicy) -> list[str]:
    """Return the names of the solvers that a policy falls back to; one that is empty where it names none."""
    if policy in ("raise", "incumbent", *_FILLS):
        return []
    is_fallback = policy.startswith(_FALLBACK)
    return [name.strip() for name in policy[len(_FALLBACK) :].split(",")] if is_fallback else [""]


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
        policy: Under "incumbent", any state is accepted.
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


def _are_unsolved(status: Tensor, *, exact: bool) -> Tensor:
    """Tell which rows of this status have no answer where no incumbent and no other solver's answer is accepted."""
    unsolved = status != Status.OPTIMAL
    return unsolved if exact else unsolved & (status != Status.FEASIBLE)


def _fill_in(solutions: Solutions, failed: Sequence[int], value: float) -> None:
    """Put a number for the states of rows that failed, which have no objective then.

    Args:
        solutions: z [N, *shape], the rest [N].
        failed: The rows' numbers.
        value: The number.
    """
    solutions.failed = torch.zeros_like(solutions.status, dtype=torch.bool)
    solutions.failed[failed] = True
    solutions.z = solutions.z.clone()  # the solver may keep its own
    solutions.z[failed] = value
    for name in ("objective", "variables"):
        values: Tensor | None = getattr(solutions, name)
        if values is not None:
            values = values.clone()
            values[failed] = torch.nan
            setattr(solutions, name, values)


class FailedRow(NamedTuple):
    """A row without an acceptable answer.

    Attributes:
        status: How it ended.
        cause: What the solver raised.
        label: The solver's name, with that of its distribution.
        problem: What was to be solved; None where it isn't known.
        on_error: The policy that it failed under.
    """

    status: Status
    cause: BaseException | None
    label: str
    problem: Problem | None
    on_error: ErrorPolicy

    @property
    def ending(self) -> str:
        """How it ended, with the remedies that aren't tried already."""
        advice = said = ""
        if self.status is Status.TIME_LIMIT:
            kind = self.on_error.partition(":")[0]
            others = [what for kinds, what in _FOR_LATE_ROWS.items() if kind not in kinds]
            advice = f", or take another on_error: {', '.join(others)}"
        if self.cause is not None:
            said = f" ({text_of(self.cause)})"
        return f"{self.status.name}, {self.status.meaning}{advice}{said}"


def describe_failed(
    rows: Sequence[int],
    solutions: Solutions,
    label: str,
    problems: Sequence[Problem | None],
    on_error: ErrorPolicy = "raise",
) -> dict[int, FailedRow]:
    """Return what became of some rows, numbered over the flattened batch, which has these problems in turn."""
    statuses, causes, count = to_list(solutions.status.flatten()), solutions.causes, len(problems)
    return {
        row: FailedRow(Status(statuses[row]), causes.get(row), label, problems[row % count], on_error) for row in rows
    }


class Policy:
    """What becomes of the rows of a solver at work that fail.

    Args:
        settings: What the user asked for.
        label: The solver's name, with that of its distribution.
        counts: Those of the solver, which warns once.
        fallbacks: Who gets rows that fail; None for nobody.
        exact: Whether the solver is.

    Attributes:
        label: As given, with the names of the solvers that come after it.
        on_error: The policy's name.
        fallbacks: As given.
        filling: What stands for the states of rows that fail; None where they raise.
        takes_any: Whether a layer's row has an answer where any of its samples has one.
    """

    def __init__(
        self, settings: _Settings, label: str, counts: Counts, fallbacks: Fallbacks | None = None, *, exact: bool
    ) -> None:
        self._settings, self._own_label, self._counts, self._exact = settings, label, counts, exact
        self.fallbacks = fallbacks
        self.label = label + "".join(f", then {name}," for name in (fallbacks.names if fallbacks else ()))
        self.on_error = settings.on_error
        self.filling = _FILLS.get(self.on_error)
        if self.filling is not None and settings.blank:
            self.filling = math.nan
        self.takes_any = self.filling is not None and self.on_error.endswith(_ANY)

    def are_unsolved(self, status: Tensor) -> Tensor:
        """Tell which rows of this status failed, where such rows are filled in."""
        return _are_unsolved(status, exact=self._exact)

    def failed(
        self, solutions: Solutions, rows: Tensor, problems: Sequence[Problem | None], counts: dict[str, float]
    ) -> list[int]:
        """Return the numbers of the rows that have no acceptable answer, once other solvers were asked.

        Args:
            solutions: The batch's answers, z [N, *shape]; gets those of other solvers.
            rows: [N, *shape], as they were solved.
            problems: What was solved: one for all rows, or one for each.
            counts: Gets what was accepted beside optima.
        """
        failed = failed_rows(solutions, self.on_error, exact=self._exact)
        if self.on_error == "incumbent":
            incumbents = int(self.are_unsolved(solutions.status).sum()) - len(failed)
            counts |= {"incumbent": incumbents} if incumbents else {}
        if not failed or self.fallbacks is None:
            return failed
        described = describe_failed(failed, solutions, self._own_label, problems, self.on_error)
        left = self.fallbacks.answer(solutions, failed, rows, problems, self._settings.deadline)
        counts["fallback"] = found = len(failed) - len(left)
        if found and self._counts.may_warn():
            _warn_of(described, len(rows), f"{' or '.join(self.fallbacks.names)} answered {found} of them")
        return left

    def filled(self, solutions: Solutions, failed: list[int], problems: Sequence[Problem | None]) -> list[int]:
        """Fill in rows that failed where the policy says so; return those for which an error is to be raised."""
        value = self.filling
        if value is None:
            return failed
        described = describe_failed(failed, solutions, self._own_label, problems, self.on_error)
        _fill_in(solutions, failed, value)
        if self._counts.may_warn():
            filling = "NaN" if math.isnan(value) else f"{value:g}"
            what = f"their z is {filling}, their mask False, or in a backward pass their gradient 0"
            what = "they go without a state" if self._settings.blank else what
            _warn_of(described, len(solutions.status), f'under on_error="{self.on_error}" {what}')
        return []

    def described(
        self, failed: Sequence[int], solutions: Solutions, problems: Sequence[Problem | None]
    ) -> dict[int, FailedRow]:
        """Return what became of rows that failed, by their numbers over the flattened batch."""
        return describe_failed(failed, solutions, self.label, problems, self.on_error)


def error_of(
    failed: Mapping[int, FailedRow],
    batch: tuple[int, ...],
    solutions: Solutions | None,
    *,
    is_backward: bool = False,
) -> RowsError:
    """Return the error that names failing rows and carries the others' answers; of the base class if kinds are mixed.

    Args:
        failed: The rows, by their numbers in the flattened batch.
        batch: The batch's dimensions.
        solutions: The batch's answers.
        is_backward: Whether the rows are those of a backward pass.
    """
    numbers = sorted(failed)
    first = failed[numbers[0]]
    of_problem = "" if first.problem is None else f" of {name_problem(first.problem)}"
    if any(row.problem != first.problem for row in failed.values()):
        of_problem += " and other problems"
    where = IN_BACKWARD if is_backward else ""
    first_of_kind: dict[type[RowsError], int] = {}
    for number in numbers:
        first_of_kind.setdefault(_ERRORS[failed[number].status], number)
    endings = "; ".join(f"row {number}: {failed[number].ending}" for number in first_of_kind.values())
    error = (RowsError if len(first_of_kind) > 1 else _ERRORS[first.status])(
        f"{where}{first.label} has no acceptable answer to {name_rows(numbers, batch)}{of_problem}; {endings}",
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


def _warn_of(failed: Mapping[int, FailedRow], count: int, what: str) -> None:
    """Warn that rows failed of so many, and what became of them."""
    number, row = next(iter(failed.items()))
    warnings.warn(
        f"{row.label} has no acceptable answer to {len(failed)} of {count} rows: {what}. The first of them "
        f"(a layer's samples and steps count as rows) is row {number}: {row.ending}. From now on such rows are only "
        "counted, in stats",
        stacklevel=users_level(),
    )
