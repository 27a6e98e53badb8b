"""What became of the batch that a user passed, gathered over all solves into which it was cut."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mapgrad.batching._batches import with_version
from mapgrad.batching._counts import NO_COUNTS
from mapgrad.batching._policy import ErrorPolicy, FailedRow, describe_failed, error_of
from mapgrad.batching._theta import Culprit, domain_error, made_error, non_finite_error
from mapgrad.errors import DomainError, NonFiniteError, RowsError
from mapgrad.solutions import Solutions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mapgrad.batching._clock import Clock
    from mapgrad.problems import Problem


class _Piece(NamedTuple):
    """Answers to some rows.

    Attributes:
        numbers: The rows' numbers.
        z: [S, N, *shape].
        status: [S, N].
        forbidden: Bool, like z; None where nothing is.
        values: Objectives and bounds, [2, S, N]; None where nobody told them.
        variables: Those of the program that was solved, [S N, num_vars], on any device; None where none was.
        failed: Bool, like the status, rows that were filled in; None where none were.
    """

    numbers: Sequence[int]
    z: Tensor
    status: Tensor
    forbidden: Tensor | None
    values: Tensor | None
    variables: Tensor | None
    failed: Tensor | None = None


@dataclass(slots=True)
class _Failures:
    """Rows that failed, by their numbers.

    Attributes:
        infinite: θ, or a backward pass's θ′, isn't finite: `NonFiniteError.kept`.
        made: What is made of θ to be solved isn't finite: what made it so, and what to do about it.
        outside: The problem whose domain θ lies outside of.
        unsolved: What became of rows that were solved.
    """

    infinite: dict[int, str] = field(default_factory=dict[int, str])
    made: dict[int, Culprit] = field(default_factory=dict[int, Culprit])
    outside: dict[int, Problem] = field(default_factory=dict[int, "Problem"])
    unsolved: dict[int, FailedRow] = field(default_factory=dict[int, FailedRow])


class Record:
    """Answers and failures of a user's batch, by its own row numbers.

    Args:
        batch: The batch dimensions of what the user passed.
        dtypes: Its dtype; a list of one for each row where it is a list of rows.

    Attributes:
        rows: How many rows were solved, each sample counted.
        clipped: How many of them were moved into a domain.
        unsolved: How many of the batch's rows failed and were filled in.
        clock: What is left of the batch's deadline; None where there is none, or before it begins.
        needs_all: `Solutions.needs_all`.
    """

    __slots__ = (
        "_causes", "_counts", "_deferred", "_dtypes", "_failures", "_pieces", "batch", "clipped", "clock", "needs_all",
        "rows", "unsolved",
    )  # fmt: skip

    def __init__(self, batch: tuple[int, ...], dtypes: torch.dtype | list[torch.dtype] | None = None) -> None:
        self.batch = batch
        self.rows = self.clipped = self.unsolved = 0
        self.clock: Clock | None = None
        self.needs_all = True
        self._dtypes = dtypes
        self._pieces: list[_Piece] = []
        self._causes: dict[int, BaseException] = {}
        self._counts: dict[str, float] = {**NO_COUNTS}
        self._failures: _Failures | None = None
        self._deferred: list[tuple[Callable[[Tensor], object], Tensor, int]] = []

    @property
    def has_failed(self) -> bool:
        """Whether any row has."""
        return self._failures is not None

    def add(
        self,
        numbers: Sequence[int],
        z: Tensor,
        status: Tensor,
        forbidden: Tensor | None,
        variables: Tensor | None,
        failed: Tensor | None = None,
    ) -> None:
        """Note the answers to rows of these numbers.

        Args:
            numbers: N of them.
            z: [S, N, *shape].
            status: [S, N].
            forbidden: Bool [N, *shape], the entries that θ = −inf forbids; None where there are none.
            variables: [S N, num_vars]; None where no program was solved.
            failed: Bool [S, N], the answers that are filled in; None where none are.
        """
        if forbidden is not None:
            forbidden = forbidden.expand(z.shape)
        self._pieces.append(_Piece(numbers, z, status, forbidden, None, variables, failed))

    def tallying(self, solve: Callable[..., Solutions | None], numbers: Sequence[int]) -> Callable[..., Any]:
        """Return what solves rows of these numbers, [..., N, *shape], and notes what they raised and its counts."""

        def run(*arguments: Any, **named: Any) -> Solutions | None:
            answers = solve(*arguments, **named)
            if answers is not None:
                self._tally(answers, numbers)
            return answers

        return run

    def _tally(self, answers: Solutions, numbers: Sequence[int]) -> None:
        for name, count in answers.stats.items():
            self._counts[name] += count
        for row in sorted(answers.causes):
            self._causes.setdefault(numbers[row % len(numbers)], answers.causes[row])

    def defer(self, note: Callable[[Tensor], object], theta: Tensor) -> None:
        """Have answers to rows θ noted by ``note(θ)``, which adds them, once somebody asks for answers."""
        theta = with_version(theta)
        self._deferred.append((note, theta, theta._version))  # noqa: SLF001 (torch documents it for this use)

    def fail(
        self,
        error: RowsError,
        numbers: Sequence[int],
        label: str,
        problems: Sequence[Problem | None],
        culprit: Culprit | None = None,
        on_error: ErrorPolicy = "raise",
    ) -> bool:
        """Note an error that a solve raised about rows of these numbers, [..., N, *shape].

        Args:
            error: It.
            numbers: [N].
            label: The solver's name, with that of its distribution.
            problems: What was to be solved, one for all rows or one for each; None where it isn't known.
            culprit: What made the rows of a `NonFiniteError`; None for θ or a step's length.
            on_error: The policy under which they were solved.

        Returns:
            Whether it is one: what an estimator raises on its own isn't.
        """
        count = len(numbers)
        if not error.rows:
            return False
        failures = self._failures or _Failures()
        rows = {numbers[row % count]: row for row in reversed(error.rows)}  # a row's first sample speaks for it
        if isinstance(error, NonFiniteError):
            if culprit is None:
                failures.infinite.update(dict.fromkeys(rows, error.kept))
            else:
                failures.made.update(dict.fromkeys(rows, culprit))
        elif isinstance(error, DomainError) and problems[0] is not None:
            failures.outside.update(dict.fromkeys(rows, problems[0]))
        elif (found := error.solutions) is not None:
            described = describe_failed(list(rows.values()), found, label, problems, on_error)
            failures.unsolved.update({number: described[row] for number, row in rows.items()})
            self._tally(found, numbers)
            z = found.z.reshape(-1, count, *found.z.shape[1:])
            forbidden = None if found.forbidden is None else found.forbidden.reshape(z.shape)
            values = torch.stack((found.objective, found.bound)).reshape(2, -1, count)
            status = found.status.reshape(-1, count)
            self._pieces.append(_Piece(numbers, z, status, forbidden, values, found.variables))
        else:
            return False
        self._failures = failures
        return True

    def error(self, *, is_backward: bool = False) -> RowsError:
        """Return the error that names all rows that failed, of the gravest kind."""
        failures = self._failures or _Failures()
        if failures.infinite:
            kept = next(filter(None, failures.infinite.values()), "")
            return non_finite_error(sorted(failures.infinite), self.batch, kept=kept, is_backward=is_backward)
        if failures.made:
            rows = sorted(failures.made)
            return made_error(failures.made[rows[0]], rows, self.batch, is_backward=is_backward)
        if failures.outside:
            rows = sorted(failures.outside)
            return domain_error(failures.outside[rows[0]], rows, self.batch, is_backward=is_backward)
        found = None if is_backward else self.solutions()
        return error_of(failures.unsolved, self.batch, found, is_backward=is_backward)

    def solutions(self) -> Solutions:
        """Return all answers, [S, *batch] or, where S = 1, [*batch].

        Where no solve told, z is NaN and the status ERROR. Objectives and bounds are there if any solve told them, and
        NaN where it didn't.

        Raises:
            RuntimeError: answers were deferred, and somebody wrote to θ meanwhile.
        """
        if any(theta._version != version for _, theta, version in self._deferred):  # noqa: SLF001 (as above)
            raise RuntimeError(
                "the states of this batch were averaged as they were found, and are found once more when somebody asks "
                "for them; but θ was written to since, in place: ask for them before, or let the layer have a copy of θ"
            )
        while self._deferred:
            note, theta, _ = self._deferred.pop(0)
            with torch.no_grad():
                note(theta)
        samples = len(self._pieces[0].z) if self._pieces else 1
        pieces = [piece for piece in self._pieces if len(piece.z) == samples]
        lead, count = (self.batch if samples == 1 else (samples, *self.batch)), math.prod(self.batch)
        status = torch.zeros(samples, count, dtype=torch.int64)
        values = torch.full((2, samples, count), torch.nan, dtype=torch.float64)
        for piece in pieces:
            places, device = list(piece.numbers), piece.status.device
            status, values = status.to(device), values.to(device)
            status[:, places] = piece.status
            if piece.values is not None:
                values[:, :, places] = piece.values
        z = self._gathered([(piece.numbers, piece.z) for piece in pieces], lead, self._dtypes)
        solutions = Solutions(
            z,
            status.reshape(lead),
            seconds=self._counts["seconds"],
            stats={**self._counts},
            causes={**self._causes},
            samples=samples,
            needs_all=self.needs_all,
        )
        variables = [
            (piece.numbers, piece.variables.reshape(samples, len(piece.numbers), -1).to(status.device))
            for piece in pieces
            if piece.variables is not None
        ]
        solutions.variables = gathered_variables(variables, samples, self.batch)
        if any(piece.forbidden is not None for piece in pieces):
            forbidden = [
                (
                    piece.numbers,
                    torch.zeros_like(piece.z, dtype=torch.bool) if piece.forbidden is None else piece.forbidden,
                )
                for piece in pieces
            ]
            dtypes = [torch.bool] * count if isinstance(self._dtypes, list) else torch.bool
            solutions.forbidden = self._gathered(forbidden, lead, dtypes)
        if any(piece.failed is not None for piece in pieces):
            failed = torch.zeros_like(status, dtype=torch.bool)
            for piece in pieces:
                if piece.failed is not None:
                    failed[:, list(piece.numbers)] = piece.failed
            solutions.failed = failed.reshape(lead)
        if any(piece.values is not None for piece in pieces):
            solutions.objective, solutions.bound = values.reshape(2, *lead)
        return solutions

    def _gathered(
        self,
        found: list[tuple[Sequence[int], Tensor]],
        lead: tuple[int, ...],
        dtypes: torch.dtype | list[torch.dtype] | None,
    ) -> Tensor | list[Tensor]:
        """Return [*lead, *shape] from [S, N, *shape] of rows of these numbers; NaN, or False, elsewhere."""
        count = math.prod(self.batch)
        rest = False if found and found[0][1].dtype == torch.bool else torch.nan
        if isinstance(dtypes, list):
            states = [torch.tensor(rest)] * count
            for numbers, values in found:
                for number, row in zip(numbers, values.unbind(1), strict=True):
                    states[number] = (row[0] if lead == self.batch else row).to(dtypes[number])
            return states
        if not found:
            return torch.empty(*lead, 0, dtype=dtypes)
        numbers, whole = found[0]
        if len(numbers) < count:
            whole = whole.new_full((whole.shape[0], count, *whole.shape[2:]), rest)
            for numbers, values in found:
                whole[:, list(numbers)] = values
        whole = whole.reshape(*lead, *whole.shape[2:])
        return whole if dtypes is None else whole.to(dtypes)


def gathered_variables(
    found: list[tuple[Sequence[int], Tensor]], samples: int, batch: tuple[int, ...]
) -> Tensor | list[Tensor | None] | None:
    """Return `Solutions.variables` of a batch.

    Args:
        found: [S, N, num_vars] of rows of these numbers; only of rows for which a program was solved.
        samples: S.
        batch: The batch dimensions.
    """
    count = math.prod(batch)
    widths = {values.shape[-1] for _, values in found}
    if not widths:
        return None
    if len(widths) == 1 and sum(len(numbers) for numbers, _ in found) == count:
        whole = found[0][1]
        if len(found) > 1:
            whole = whole.new_empty((samples, count, *widths))
            for numbers, values in found:
                whole[:, list(numbers)] = values
        return whole.reshape(*(batch if samples == 1 else (samples, *batch)), *widths)
    rows: list[Tensor | None] = [None] * count
    for numbers, values in found:
        for number, row in zip(numbers, values.unbind(1), strict=True):
            rows[number] = row[0] if samples == 1 else row
    return rows
