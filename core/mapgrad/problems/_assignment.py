"""Assignments of rows to columns."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.problems._base import Problem
from mapgrad.problems._checks import integer
from mapgrad.problems._program import IntegerProgram
from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray


class Assignment(Problem):
    """All assignments between rows and columns, as 0/1 matrices of shape (rows, cols).

    Every row is used at most once and every column at most once, and each of the smaller side exactly once: a square
    assignment is a permutation matrix.

    Args:
        rows: Number of rows, ≥ 1.
        cols: Number of columns, ≥ 1; None means as many as rows.

    Raises:
        ProblemError: rows or cols isn't an integer ≥ 1.
    """

    rows: int
    cols: int

    def __init__(self, rows: int, cols: int | None = None) -> None:
        self.rows = integer("rows", rows, 1)
        self.cols = self.rows if cols is None else integer("cols", cols, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, cols)."""
        return (self.rows, self.cols)

    @property
    def kappa(self) -> float:
        """min(rows, cols), the number of ones of every state."""
        return float(min(self.rows, self.cols))

    @property
    def constant_sums(self) -> Mapping[tuple[int, ...], float]:
        """The sum of each row, each column, or of a square both: 1 along the axis of the larger side."""
        return {axis: 1.0 for axis, few in (((1,), self.rows), ((0,), self.cols)) if few == min(self.shape)}

    def to_ilp(self) -> IntegerProgram:
        """Return the program with a row for each row and column: the same feasible set, and integral as it is."""
        cell = np.arange(self.rows * self.cols)
        sums = [
            SparseRows.from_entries(line, cell, 1, (count, len(cell)))
            for line, count in ((cell // self.cols, self.rows), (cell % self.cols, self.cols))
        ]
        few, many = sums if self.rows <= self.cols else sums[::-1]
        if self.rows == self.cols:
            return IntegerProgram(A_eq=many.below(few), b_eq=np.ones(2 * self.rows), shape=self.shape)
        once, at_most_once = np.ones(few.shape[0]), np.ones(many.shape[0])
        return IntegerProgram(A_ub=many, b_ub=at_most_once, A_eq=few, b_eq=once, shape=self.shape)

    def iterate_states(self) -> Iterator[NDArray[np.float64]]:
        few, many = sorted(self.shape)
        for partners in permutations(range(many), few):
            z = np.zeros((few, many))
            z[range(few), partners] = 1
            yield z if self.shape == (few, many) else z.T

    def are_states(self, z: NDArray[np.float64]) -> NDArray[np.bool_]:
        row_sums, column_sums = z.sum(axis=2), z.sum(axis=1)
        once, at_most_once = (row_sums, column_sums) if self.rows <= self.cols else (column_sums, row_sums)
        return (once == 1).all(axis=1) & (at_most_once <= 1).all(axis=1)
