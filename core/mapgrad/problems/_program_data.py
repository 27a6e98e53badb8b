"""What a program is made of, and what follows from that alone."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mapgrad.problems._arrays import frozen_array
from mapgrad.problems._base import Problem
from mapgrad.problems._features import FEATURES, stacked
from mapgrad.problems._row_facts import RowFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.problems._features import Indicator, Sos
    from mapgrad.problems._sparse import SparseRows


class ProgramData(Problem):
    """The arrays of an `IntegerProgram`: rows, also in the form of `scipy.optimize.linprog`, bounds and prices."""

    matrix: SparseRows
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integrality: NDArray[np.bool_]
    decision: NDArray[np.int64]
    fixed: NDArray[np.float64]
    semicontinuous: NDArray[np.bool_]
    sos: tuple[Sos, ...]
    indicators: tuple[Indicator, ...]
    objective: NDArray[np.float64] | None
    offset: float
    _shape: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of θ and z."""
        return self._shape

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

    @cached_property
    def row_facts(self) -> RowFacts:
        """When rows of `matrix` hold."""
        return RowFacts(self.matrix, self.integrality, self.others)

    @cached_property
    def indicator_facts(self) -> RowFacts:
        """When rows of `indicators` hold."""
        return RowFacts(stacked(self.indicators, self.num_vars), self.integrality, self.others)

    @cached_property
    def hull(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`lower` and `upper` with 0 between them for semi-continuous variables: two read-only arrays [num_vars]."""
        if not self.semicontinuous.any():
            return self.lower, self.upper
        lower = np.where(self.semicontinuous, np.minimum(self.lower, 0), self.lower)
        upper = np.where(self.semicontinuous, np.maximum(self.upper, 0), self.upper)
        return frozen_array(lower, np.float64), frozen_array(upper, np.float64)

    @cached_property
    def box(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper bound of each priced variable: two read-only arrays of shape `shape`, maybe infinite."""
        lower, upper = (bound[self.decision].reshape(self.shape) for bound in self.hull)
        return frozen_array(lower, np.float64), frozen_array(upper, np.float64)

    @cached_property
    def largest(self) -> float:
        """The largest finite bound of a priced integer variable, in absolute value: 0 without any."""
        priced = self.decision[self.integrality[self.decision]]
        bounds = np.abs(np.concatenate((self.lower[priced], self.upper[priced])))
        return float(bounds[np.isfinite(bounds)].max(initial=0))

    @cached_property
    def unbounded_integers(self) -> NDArray[np.bool_]:
        """Which coordinates of z are integer and lack a bound: bool array of shape `shape`, read-only."""
        lacking = ~np.isfinite(self.lower) | ~np.isfinite(self.upper)
        return frozen_array((self.integrality & lacking)[self.decision].reshape(self.shape), np.bool_)

    @property
    def kappa(self) -> float:
        """Half the number of priced 0/1 variables, and at least 1: what a set has that is neither sparse nor dense."""
        lower, upper = self.hull
        binary = self.integrality & (lower == 0) & (upper == 1)
        return max(1.0, int(binary[self.decision].sum()) / 2)

    @cached_property
    def others(self) -> NDArray[np.int64]:
        """The columns that θ doesn't price, ascending, read-only."""
        priced = np.zeros(self.num_vars, dtype=np.bool_)
        priced[self.decision] = True
        return frozen_array(np.flatnonzero(~priced), np.int64)

    @cached_property
    def features(self) -> frozenset[str]:
        """Which of `semicontinuous`, `sos` and `indicators` this program uses."""
        used = self.semicontinuous.any(), self.sos, self.indicators
        return frozenset(name for name, value in zip(FEATURES, used, strict=True) if value)
