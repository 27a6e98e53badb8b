"""Programs as the kernels take them: rows of integers where a unit allows it, so that sums are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from mapgrad_search import LARGEST
from mapgrad_search._memory import Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    import mapgrad

_ROOM: Final = 1e-9  # relative; a row of integer variables counts as met within it
_DIGITS: Final = 6
_ROUNDING: Final = 2.0**-51  # of a decimal that becomes a float and is multiplied by a power of ten
_EXACT: Final = 2.0**50


class Form(NamedTuple):
    """A program's rows, each divided by a unit, then by a power of two so that the largest coefficient is in [½, 1).

    Attributes:
        rows: The rows.
        units: [h]; 0 for a row that isn't made of integers.
        scales: [h], the powers of two.
        largest: [h], the program's own largest coefficients, in absolute value.
        are_whole: [h], whether these are integers.
    """

    rows: Rows
    units: NDArray[np.float64]
    scales: NDArray[np.float64]
    largest: NDArray[np.float64]
    are_whole: NDArray[np.bool_]

    @classmethod
    def of(cls, program: mapgrad.IntegerProgram) -> Form:
        """Return that of a program whose variables are integers within bounds."""
        matrix = program.matrix
        height, width = matrix.shape
        dense = matrix.toarray()
        units = np.array([_unit(matrix.row(row)[1]) for row in range(height)])
        largest = np.abs(dense).max(axis=1, initial=0)
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
        return cls(rows, units, scales, largest, (dense % 1 == 0).all(axis=1))

    def sides(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the least and the most that rows may come to, [m, h], for sides [m, h] of the program's rows."""
        unit = np.where(self.units > 0, self.units, 1)
        low, high = (lower - self._room(lower)) / unit, (upper + self._room(upper)) / unit
        low, high = np.where(self.units > 0, np.ceil(low), low), np.where(self.units > 0, np.floor(high), high)
        return np.ascontiguousarray(low / self.scales + 0.0), np.ascontiguousarray(high / self.scales + 0.0)

    def _room(self, sides: NDArray[np.float64]) -> NDArray[np.float64]:
        room = _ROOM * np.maximum(self.largest, np.where(np.isfinite(sides), np.abs(sides), 0))
        return np.where(self.are_whole & (sides == np.rint(sides)), np.minimum(room, 0.5), room)


def _unit(coefficients: NDArray[np.float64]) -> float:
    """Return a number of which all coefficients of a row are multiples, decimals among them; 0 where none is found."""
    for factor in 10.0 ** np.arange(_DIGITS + 1):
        multiples = np.rint(coefficients * factor)
        if (np.abs(coefficients * factor - multiples) > _ROUNDING * np.abs(multiples)).any():
            continue
        if np.abs(multiples).sum() * LARGEST > _EXACT:
            return 0.0
        return float(np.gcd.reduce(multiples.astype(np.int64), initial=0)) / factor
    return 0.0
