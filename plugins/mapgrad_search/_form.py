"""Programs as the kernels take them: rows of integers where a unit allows it, so that sums are exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad_search import LARGEST
from mapgrad_search._memory import Rows
from mapgrad_search._sums import EXACT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import mapgrad

_TINY: Final = np.nextafter(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Form:
    """A program's rows, each divided by a unit, then by a power of two so that the largest coefficient is in [½, 1).

    Attributes:
        rows: The rows.
        units: [h]; 0 for a row that isn't made of integers.
        scales: [h], the powers of two.
        largest: [h], the program's own largest coefficients, in absolute value.
        program: What it is the form of.
    """

    rows: Rows
    units: NDArray[np.float64]
    scales: NDArray[np.float64]
    largest: NDArray[np.float64]
    program: mapgrad.IntegerProgram

    @classmethod
    def of(cls, program: mapgrad.IntegerProgram) -> Form:
        """Return that of a program whose variables are integers within bounds."""
        matrix = program.matrix
        height, width = matrix.shape
        dense = matrix.toarray()
        units = program.row_facts.units
        units = np.where(np.abs(dense).sum(axis=1) * LARGEST <= EXACT * units, units, 0)
        scaled = np.where(units[:, None] > 0, np.rint(dense / np.where(units > 0, units, 1)[:, None]), dense)
        scales = np.exp2(np.frexp(np.abs(scaled).max(axis=1, initial=0))[1])
        scaled /= scales[:, None]
        row, column = np.nonzero(scaled)
        order = np.lexsort((row, column))
        above, below = np.isfinite(program.row_upper)[:, None], np.isfinite(program.row_lower)[:, None]
        rows = Rows(
            scaled,
            np.searchsorted(row, np.arange(height + 1)),
            np.ascontiguousarray(column),
            scaled[row, column],
            np.searchsorted(column[order], np.arange(width + 1)),
            row[order],
            scaled[row[order], column[order]],
            ((scaled > 0) & above | (scaled < 0) & below).sum(axis=0),
            ((scaled < 0) & above | (scaled > 0) & below).sum(axis=0),
        )
        return cls(rows, units, scales, np.abs(dense).max(axis=1, initial=0), program)

    @cached_property
    def is_rough(self) -> NDArray[np.bool_]:
        """Which rows aren't made of integers: [h]."""
        return self.units == 0

    @cached_property
    def own_sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wide sides of the program's own rows, [1, h]."""
        return self.sides(self.program.row_lower[None], self.program.row_upper[None], is_wide=True)

    def sides(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64], *, is_wide: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the least and the most that rows may come to, [m, h], for sides [m, h] of the program's rows.

        Args:
            lower: The lower sides.
            upper: The upper sides.
            is_wide: Whether rows without a unit get room for the rounding of any sum: what is found is checked then.
        """
        facts, unit = self.program.row_facts, np.where(self.is_rough, 1, self.units)
        terms = self.largest * LARGEST if is_wide else 0.0
        exact, about = facts.inner(lower, upper), facts.anywhere(lower, upper, terms)
        low, high = (
            np.where(self.is_rough, *ends) for ends in zip(about, (np.rint(end / unit) for end in exact), strict=True)
        )
        return self._scaled(low), self._scaled(high)

    def _scaled(self, sides: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sides of rows as divided by their powers of two; those on one side of 0 stay there."""
        with np.errstate(over="ignore"):
            scaled = sides / self.scales + 0.0
        lost = (scaled == 0) & (sides != 0)
        return np.ascontiguousarray(np.where(lost, np.copysign(_TINY, sides), scaled) if lost.any() else scaled)

    def breaks(
        self, x: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Tell which points x [m, n] break a row that isn't made of integers, given sides [1 or m, h]: bool [m]."""
        activity = self.program.matrix.activities(x)
        missed = ((activity < lower) | (activity > upper)) & self.is_rough
        few = np.flatnonzero(missed.any(axis=1))
        lower, upper = (np.broadcast_to(side, missed.shape)[few] for side in (lower, upper))
        least, most = self.program.row_facts.reach(x[few], lower, upper)
        broken = np.zeros(len(x), dtype=np.bool_)
        broken[few] = (((activity[few] < least) | (activity[few] > most)) & self.is_rough).any(axis=1)
        return broken
