"""Rows of two sides, and what they are for who knows upper sides and equations only."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems._sparse import SparseRows


class TwoSidedRows(Problem):
    """A problem with rows row_lower ≤ matrix x ≤ row_upper, also in the form of `scipy.optimize.linprog`."""

    matrix: SparseRows
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]

    @property
    def num_vars(self) -> int:
        """Number of variables, priced by θ or not."""
        return self.matrix.shape[1]

    @cached_property
    def A_ub(self) -> SparseRows:  # noqa: N802 (linprog's name)
        """The rows that have an upper side, then those that have a lower one, negated; without equations."""
        below, above, _ = self._kinds
        return self.matrix.select(above).negative().below(self.matrix.select(below))

    @cached_property
    def b_ub(self) -> NDArray[np.float64]:
        """The sides of `A_ub`, float64, read-only."""
        below, above, _ = self._kinds
        return frozen_array(np.concatenate((self.row_upper[below], -self.row_lower[above])), np.float64)

    @cached_property
    def A_eq(self) -> SparseRows:  # noqa: N802 (linprog's name)
        """The rows of two equal sides."""
        return self.matrix.select(self._kinds[2])

    @cached_property
    def b_eq(self) -> NDArray[np.float64]:
        """The sides of `A_eq`, float64, read-only."""
        return frozen_array(self.row_upper[self._kinds[2]], np.float64)

    @property
    def _kinds(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        equal = self.row_lower == self.row_upper
        return ~equal & np.isfinite(self.row_upper), ~equal & np.isfinite(self.row_lower), equal

    @cached_property
    def num_inequalities(self) -> int | None:
        """How many rows come first that have no lower side, if all others are equations; None if some aren't."""
        count = int((self.row_lower == -np.inf).sum())
        return count if np.array_equal(self.row_lower[count:], self.row_upper[count:]) else None

    def scaled_rows(self, bits: int = 0) -> tuple[SparseRows, NDArray[np.float64], NDArray[np.float64]]:
        """Return all rows times powers of two: for engines, whose tolerances are absolute.

        Args:
            bits: The largest coefficient of each row gets to [2^bits, 2^(bits + 1)) in absolute value.

        Returns:
            What `matrix`, `row_lower` and `row_upper` become.
        """
        matrix, shifts = self.matrix.scaled(bits)
        return matrix, np.ldexp(self.row_lower, shifts), np.ldexp(self.row_upper, shifts)
