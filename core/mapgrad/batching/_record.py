"""What became of the batch that a user passed, gathered over all solves into which it was cut."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mapgrad.batching._policy import FailedRow, describe_failed, error_of
from mapgrad.batching._theta import domain_error, non_finite_error
from mapgrad.errors import DomainError, NonFiniteError, RowsError
from mapgrad.solutions import Solutions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mapgrad.problems import Problem

    _Piece = tuple[Sequence[int], Tensor, Tensor, Tensor | None]
    """Numbers of rows, with z [S, N, *shape], status [S, N] and, if it was told, objectives and bounds [2, S, N]."""


class Record:
    """Answers and failures of a user's batch, by its own row numbers.

    Args:
        batch: The batch dimensions of what the user passed.
        dtypes: Its dtype; a list of one for each row where it is a list of rows.

    Attributes:
        rows: How many rows were solved, each sample counted.
        clipped: How many of them were moved into a domain.
        has_failed: Whether any row has.
    """

    __slots__ = ("_dtypes", "_failed", "_infinite", "_outside", "_pieces", "batch", "clipped", "has_failed", "rows")

    def __init__(self, batch: tuple[int, ...], dtypes: torch.dtype | list[torch.dtype] | None = None) -> None:
        self.batch = batch
        self.rows = self.clipped = 0
        self._dtypes = dtypes
        self._pieces: list[_Piece] = []
        self.has_failed = False
        self._infinite: set[int] = set()
        self._outside: dict[int, Problem] = {}
        self._failed: dict[int, FailedRow] = {}

    def add(self, numbers: Sequence[int], z: Tensor, status: Tensor) -> None:
        """Note the answers z [S, N, *shape] and status [S, N] to rows of these numbers."""
        self._pieces.append((numbers, z, status, None))

    def fail(self, error: RowsError, numbers: Sequence[int], label: str, problem: Problem | None) -> bool:
        """Note an error that a solve raised about rows of these numbers, [..., N, *shape].

        Args:
            error: It.
            numbers: [N].
            label: The solver's name, with that of its distribution.
            problem: What was to be solved; None where it isn't known.

        Returns:
            Whether it is one: what an estimator raises on its own isn't.
        """
        count = len(numbers)
        is_ours = bool(error.rows)
        rows = {numbers[row % count]: row for row in reversed(error.rows)}  # a row's first sample speaks for it
        if isinstance(error, NonFiniteError):
            self._infinite.update(rows)
        elif isinstance(error, DomainError) and problem is not None:
            self._outside.update(dict.fromkeys(rows, problem))
        elif (found := error.solutions) is not None:
            described = describe_failed(list(rows.values()), found, label, problem)
            self._failed.update(zip(rows, described, strict=True))
            z = found.z.reshape(-1, count, *found.z.shape[1:])
            values = torch.stack((found.objective, found.bound)).reshape(2, -1, count)
            self._pieces.append((numbers, z, found.status.reshape(-1, count), values))
        else:
            is_ours = False
        self.has_failed |= is_ours
        return is_ours

    def error(self, *, is_backward: bool = False) -> RowsError:
        """Return the error that names all rows that failed, of the gravest kind."""
        if self._infinite:
            return non_finite_error(sorted(self._infinite), self.batch, is_backward=is_backward)
        if self._outside:
            rows = sorted(self._outside)
            return domain_error(self._outside[rows[0]], rows, self.batch, is_backward=is_backward)
        return error_of(self._failed, self.batch, None if is_backward else self.solutions(), is_backward=is_backward)

    def solutions(self) -> Solutions:
        """Return all answers, [S, *batch] or, where S = 1, [*batch].

        Where no solve told, z is NaN and the status ERROR. Objectives and bounds are there if any solve told them, and
        NaN where it didn't.
        """
        samples = len(self._pieces[0][1]) if self._pieces else 1
        pieces = [piece for piece in self._pieces if len(piece[1]) == samples]
        lead, count = (self.batch if samples == 1 else (samples, *self.batch)), math.prod(self.batch)
        status = torch.zeros(samples, count, dtype=torch.int64)
        values = torch.full((2, samples, count), torch.nan, dtype=torch.float64)
        for numbers, _, found, told in pieces:
            places = list(numbers)
            status, values = status.to(found.device), values.to(found.device)
            status[:, places] = found
            if told is not None:
                values[:, :, places] = told
        solutions = Solutions(self._states(pieces, lead), status.reshape(lead), samples=samples)
        if any(told is not None for *_, told in pieces):
            solutions.objective, solutions.bound = values.reshape(2, *lead)
        solutions.causes = {number: row.cause for number, row in self._failed.items() if row.cause is not None}
        return solutions

    def _states(self, pieces: list[_Piece], lead: tuple[int, ...]) -> Tensor | list[Tensor]:
        count = math.prod(self.batch)
        if isinstance(self._dtypes, list):
            states = [torch.tensor(torch.nan)] * count
            for numbers, z, *_ in pieces:
                for number, row in zip(numbers, z.unbind(1), strict=True):
                    states[number] = (row[0] if lead == self.batch else row).to(self._dtypes[number])
            return states
        if not pieces:
            return torch.empty(*lead, 0, dtype=self._dtypes)
        numbers, z, *_ = pieces[0]
        if len(numbers) < count:
            z = z.new_full((z.shape[0], count, *z.shape[2:]), torch.nan)
            for numbers, found, *_ in pieces:
                z[:, list(numbers)] = found
        z = z.reshape(*lead, *z.shape[2:])
        return z if self._dtypes is None else z.to(self._dtypes)
