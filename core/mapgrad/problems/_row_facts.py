"""When a row of a program holds: the one definition, for membership, engines, kernels and diagrams."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mapgrad.problems._sparse import SparseRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE: Final = 1e-6
"""By how much a coordinate may miss a bound or a whole number, and a row with real terms a side, beside their size."""

_INTEGER_ROW_TOLERANCE: Final = 1e-9  # such a row is evaluated at integers: only its own coefficients are rounded
_DIGITS: Final = 6  # with more, units would be less than what engines tell from nothing
_FINE_BITS: Final = 10  # so much larger than 1 is the smallest number that an engine is to tell from nothing
_LARGE_BITS: Final = 40  # and so much no number may be, which it would refuse or round
_SUM: Final = 2.0**-50  # of its largest term, to which a row's sum is known
_ROUNDING: Final = 2.0**-51  # of a decimal that becomes a float and is multiplied by a power of ten
_SUMMED: Final = 2.0**-48  # of a row's coefficients together, to which a side is known that was summed in floats
_LAST_DIGIT: Final = 2.0**-53  # of a row's smallest coefficient: a sum in floats isn't less, unless it is 0
_BELOW_HALF: Final = 0.499
_COARSE_BITS: Final = 20  # so much smaller than the largest coefficient is a unit ten times an engine's tolerance
_WHOLE: Final = 2.0**53  # integers up to here are float64 numbers
_DECIMALS: Final = 2.0**41  # numbers of more digits look like decimals by chance


class RowFacts:
    """What can be said of rows whatever their sides are: programs that differ in sides and bounds share it.

    A row of integer variables whose coefficients are integers or decimals of up to 6 places has a unit, the largest
    number of which all of them are multiples. Such a row comes to multiples of it, so that it holds or doesn't: its
    sides are moved inwards to the next multiples, which they may miss themselves by 1e-9 of their size, for decimals
    also by the rounding of a sum of the coefficients, and by less than half a unit. Another row of integers holds if a
    side is missed by at most 1e-9 of that side, or of the smallest coefficient, or by the rounding of its sum; one with
    continuous variables, by 1e-6 of its largest term or side.

    Args:
        matrix: [m, n].
        integrality: [n] bool.
        others: The columns that θ doesn't price.
    """

    def __init__(self, matrix: SparseRows, integrality: NDArray[np.bool_], others: NDArray[np.int64]) -> None:
        self._matrix, self._integrality, self._others = matrix, integrality, others

    @cached_property
    def units(self) -> NDArray[np.float64]:
        """Each row's unit: float64 [m], 0 where it has none. A row without coefficients has the unit 1."""
        return _units(self._matrix) * self.are_integer

    @cached_property
    def smallest(self) -> NDArray[np.float64]:
        """Each row's smallest coefficient, in absolute value: float64 [m], infinite where it has none."""
        smallest = np.full(self._matrix.shape[0], np.inf)
        np.minimum.at(smallest, self._matrix.row_of_entry, np.abs(self._matrix.data))
        return smallest

    @cached_property
    def are_integer(self) -> NDArray[np.bool_]:
        """Which rows have integer variables only: bool [m]."""
        return ~self._matrix.touches(~self._integrality)

    @cached_property
    def is_coarse(self) -> bool:
        """Whether each row has a unit, of at least 2^-20 of its largest coefficient."""
        return bool((self.units > 0).all()) and self.largest_multiple <= 2.0**_COARSE_BITS

    @cached_property
    def largest_multiple(self) -> float:
        """The largest coefficient in its row's unit, of those rows that have one; 0 where none has."""
        of_entry = self._matrix.row_of_entry
        return float((np.abs(self._matrix.data) / self._divisors[of_entry])[self.units[of_entry] > 0].max(initial=0))

    @cached_property
    def are_settled(self) -> NDArray[np.bool_]:
        """Which rows speak of priced variables only: bool [m]."""
        other = np.zeros(self._matrix.shape[1], dtype=np.bool_)
        other[self._others] = True
        return ~self._matrix.touches(other)

    @cached_property
    def other_columns(self) -> tuple[Any, NDArray[np.int64]]:
        """The columns that θ doesn't price, each row times a power of two, for an engine of absolute tolerances.

        The smallest coefficient, or the unit, of a row of integers is large beside these; of others it is the largest
        one. No coefficient of a row of integers is so large that engines refuse it.

        Returns:
            A scipy.sparse array [m, others], and the exponents of the powers, int64 [m].
        """
        columns = self._matrix.to_scipy()[:, self._others]
        _, largest = np.frexp(abs(columns).max(axis=1).toarray().ravel())
        _, smallest = np.frexp(np.where(self.units > 0, self.units, self.smallest))
        exponents = np.where(self.are_integer, np.minimum(_FINE_BITS - smallest, _LARGE_BITS - largest), -largest)
        return columns.multiply(np.ldexp(1.0, exponents)[:, None]).tocsr(), exponents

    def scaled(self, bits: int) -> SparseRows:
        """Return the rows for engines, whose tolerances are absolute; what was asked before isn't computed again.

        A row with a unit is one of integers, which floats hold exactly, times a power of two; another one is itself
        times a power of two.

        Args:
            bits: The largest coefficient of each row gets to [2^bits, 2^(bits + 1)) in absolute value.
        """
        return self._scaled(bits)[0]

    def scaled_sides(self, bits: int, sides: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sides [m] of the rows as `scaled` has them; multiples of a unit stay so exactly."""
        multiples = sides / self._divisors
        whole = np.rint(multiples)
        with np.errstate(invalid="ignore"):  # inf - inf
            is_whole = np.abs(multiples - whole) <= _SUM * np.abs(whole)
        return np.ldexp(np.where(is_whole & (self.units > 0), whole, multiples), self._scaled(bits)[1])

    def in_units(self, sides: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return sides [m] that are multiples of the rows' units but for rounding, without that rounding."""
        return np.where(self.units > 0, np.rint(sides / self._divisors) * self._divisors, sides)

    def _scaled(self, bits: int) -> tuple[SparseRows, NDArray[np.int64]]:
        if bits not in self._kept:
            matrix, of_entry = self._matrix, self._matrix.row_of_entry
            data = matrix.data / self._divisors[of_entry]
            data = np.where(self.units[of_entry] > 0, np.rint(data), data)
            self._kept[bits] = SparseRows(data, matrix.indices, matrix.indptr, matrix.shape).scaled(bits)
        return self._kept[bits]

    @cached_property
    def _kept(self) -> dict[int, tuple[SparseRows, NDArray[np.int64]]]:
        return {}

    def _may_be_sums(self, sides: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which sides [..., m] are so large that they may be float sums of coefficients, and not exactly 0."""
        return np.abs(sides) >= _LAST_DIGIT * self.smallest

    @cached_property
    def _rounding(self) -> NDArray[np.float64]:
        """In units, by how much a float sum of terms may miss a multiple of the unit; 0 where floats add up exactly."""
        rows = self._matrix.shape[0]
        total = np.bincount(self._matrix.row_of_entry, np.abs(self._matrix.data), minlength=rows)
        return np.where(self.units % 1 != 0, _SUMMED * total / self._divisors, 0.0)

    @cached_property
    def _divisors(self) -> NDArray[np.float64]:
        return np.where(self.units > 0, self.units, 1.0)

    def inner(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return sides [..., m] moved inwards to multiples of the units; those of rows without a unit stay.

        Where a lower side exceeds the upper one then, nothing lies between them.
        """
        return -self._inner(-lower), self._inner(upper)

    def _inner(self, upper: NDArray[np.float64]) -> NDArray[np.float64]:
        multiples = upper / self._divisors
        rounding = np.where(self._may_be_sums(upper), self._rounding, 0.0)
        room = np.minimum(np.maximum(_INTEGER_ROW_TOLERANCE * np.abs(multiples), rounding), _BELOW_HALF)
        return np.where(self.units > 0, np.floor(multiples + room) * self._divisors, upper)

    def reach(
        self, x: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what rows may come to at least and at most at points x [N, n], given sides [m]: two arrays [N, m]."""
        terms = self._matrix.magnitudes(x, np.where(self._integrality, 0.0, 1.0))
        return self._about(lower, upper, np.where(self.are_integer, self._exactly(terms), TOLERANCE * terms))

    def anywhere(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64], terms: NDArray[np.float64] | float = 0.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what rows of integer variables may come to, given sides [..., m]: two arrays [..., m].

        Args:
            lower: The lower sides.
            upper: The upper sides.
            terms: The size of a row's largest term, for its sum is rounded; 0 for sums that aren't.
        """
        return self._about(lower, upper, self._exactly(terms))

    def _exactly(self, terms: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return by how much a row of integers may be missed, whatever its side is."""
        return np.maximum(_INTEGER_ROW_TOLERANCE * self.smallest, _SUM * terms)

    def _about(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64], room: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return sides with what may be missed of them: half a unit, or room [..., m], or a part of the side.

        Where a row of integers without a unit excludes 0, so does what is returned, unless its side may be a float sum
        of coefficients that cancel.
        """
        tolerances = np.where(self.are_integer, _INTEGER_ROW_TOLERANCE, TOLERANCE)
        ends: list[NDArray[np.float64]] = []
        for side, end, sign in zip((lower, upper), self.inner(lower, upper), (-1, 1), strict=True):
            size = np.where(np.isfinite(side), np.abs(side), 0)
            is_rounding = self._may_be_sums(side) & (size <= _SUMMED * self.smallest)
            most = np.where(self.are_integer & (sign * side < 0) & ~is_rounding, size / 2, np.inf)
            missed = np.minimum(np.maximum(room, tolerances * size), most)
            ends.append(end + sign * np.where(self.units > 0, self.units / 2, missed))
        return ends[0], ends[1]


def _units(matrix: SparseRows) -> NDArray[np.float64]:
    """Return the largest number of which all coefficients of a row are multiples, [m]; 0 where none is found."""
    lengths = np.diff(matrix.indptr)
    units = np.where(lengths > 0, 0.0, 1.0)
    for digits in range(_DIGITS + 1):
        is_open = units == 0
        if not is_open.any():
            break
        factor, most = 10.0**digits, _DECIMALS if digits else _WHOLE
        values = np.clip(matrix.data[is_open[matrix.row_of_entry]], -_WHOLE, _WHOLE) * factor
        multiples = np.rint(values)
        sizes = np.abs(multiples)
        fits = (np.abs(values - multiples) <= _ROUNDING * sizes) & (sizes < most)
        starts = np.append(0, lengths[is_open].cumsum()[:-1])
        divisors = np.gcd.reduceat(np.where(fits, sizes, 1).astype(np.int64), starts)
        units[is_open] = np.where(np.logical_and.reduceat(fits, starts), divisors / factor, 0)
    return units
