"""Rows of many digits as rows of fewer, for engines that count in floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mapgrad.problems import IntegerProgram, SparseRows
from mapgrad.solvers._boxes import is_distant, tightened
from mapgrad.solvers._limits import Limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapgrad.solvers._points import Rows

_ROOM: Final = 0.25
"""Of a unit, by which sides are moved outwards: no point lies on them, which engines may take to be outside."""

_ROUNDING: Final = 2.0**-50
"""Of a bound that is added up in float64."""


class SplitRows:
    """Rows of integer variables, each as two rows that a further variable connects.

    With a base q, a power of two, and a = q c + d for integers c, a row l ≤ ⟨a, x⟩ ≤ u says the same as

        ⟨c, x⟩ - y = s    and    l - q s ≤ ⟨d, x⟩ + q y ≤ u - q s

    of an integer variable y and any integer s, here about u / q, so that numbers are small near the sides. Points that
    all but meet the row with all but integer x, which engines take for solutions, have a y that isn't near an integer.

    A row's grain is what engines are to tell apart: its unit, or the distance of its sides where it has none. The base
    is a power of two near √(max |a| · grain), so that neither row has a coefficient of many grains. A row with a unit
    is divided by that first. Where sides are many grains apart, numbers are large near one of them, and engines meet
    rows to a part of these: such a row is split for each of its sides.

    Where the coefficients are nearly multiples of the smallest long one, that is q. The range r of ⟨d, x⟩ is less than
    q then, so that of the multiples of q that ⟨d, x⟩ completes to the row, from q f to q g, only the two ends need the
    low row, and r takes the place of q:

        l - q f + r (f - s) ≤ ⟨d, x⟩ + r y ≤ u - q g + r (g - s)    and    f - s ≤ y ≤ g - s

    Where that is one multiple at most, any number may be in the place of r: here one that isn't large beside d.

    Args:
        program: The program of these rows.
        are_split: [m] bool, the rows to split.
        grains: [m], those of rows.
        most: Grains in the largest coefficient that isn't long.
    """

    def __init__(
        self, program: IntegerProgram, are_split: NDArray[np.bool_], grains: NDArray[np.float64], most: float
    ) -> None:
        width = program.row_upper - program.row_lower
        are_apart = np.isfinite(width) & (width > most * grains)
        rows, again = (np.flatnonzero(are) for are in (are_split, are_split & are_apart))
        self._facts, self._rows, self._height = program.row_facts, np.append(rows, again), len(width) + len(again)
        self._places = np.append(rows, np.arange(len(width), self._height))
        is_second = np.arange(len(self._rows)) >= len(rows)
        self._has_lower, self._has_upper = is_second | ~np.isin(self._rows, again), ~is_second
        units = self._facts.units[self._rows]
        self._divisors, self._room = np.where(units > 0, units, 1.0), np.where(units > 0, _ROOM, 0.0)
        part = _picked(program.matrix, self._rows)
        data = part.data / self._divisors[part.row_of_entry]
        data = np.where(units[part.row_of_entry] > 0, np.rint(data), data)
        entries = SparseRows(data, part.indices, part.indptr, part.shape)
        grains = grains[self._rows] / self._divisors
        bases = np.exp2(np.rint(np.log2(entries.largest * grains) / 2))
        is_long = np.abs(data) > most * grains[part.row_of_entry]
        shortest = entries.largest.copy()
        np.minimum.at(shortest, part.row_of_entry[is_long], np.abs(data[is_long]))
        high, low = _digits(entries, shortest)
        least, greatest = _range(low, Limits.of(program))
        are_short = np.maximum(high.largest, low.largest) <= bases
        self._are_near = (units > 0) & are_short & (greatest - least <= shortest)
        self._bases = np.where(self._are_near, shortest, bases)
        self._links = np.where(self._are_near, greatest - least, bases)
        self._high, self._low = _digits(entries, self._bases)
        is_one = self._are_near & self._have_one_multiple(Limits.of(program))
        self._links = np.where(is_one, np.maximum(self._low.largest, 1.0), self._links)

    @classmethod
    def of(cls, program: IntegerProgram, most: float) -> SplitRows | None:
        """Return those of a program in which a coefficient is larger than `most` grains; None without one."""
        facts, matrix = program.row_facts, program.matrix
        widths = np.where(facts.are_integer, program.row_upper - program.row_lower, np.inf)
        grains = np.where(facts.units > 0, facts.units, widths)
        are_split = (matrix.largest > most * grains) & (grains > 0)
        return cls(program, are_split, grains, most) if are_split.any() else None

    def program(self, program: IntegerProgram) -> IntegerProgram:
        """Return a program whose first columns are those of this one, all priced, with a column more for each row."""
        width, height, count = program.num_vars, self._height, len(self._rows)
        matrix, high, low, numbers = program.matrix, self._high, self._low, np.arange(count)
        stays = ~np.isin(matrix.row_of_entry, self._rows)
        parts = (
            (matrix.row_of_entry[stays], matrix.indices[stays], matrix.data[stays]),
            (self._places[low.row_of_entry], low.indices, low.data),
            (self._places, width + numbers, self._links),
            (height + high.row_of_entry, high.indices, high.data),
            (height + numbers, width + numbers, np.full(count, -1.0)),
        )
        rows, columns, values = (np.concatenate(each) for each in zip(*parts, strict=True))
        lower, upper, row_lower, row_upper = self.limits(Limits.of(program))
        return IntegerProgram.from_rows(
            SparseRows.from_entries(rows, columns, values, (height + count, width + count)),
            row_lower,
            row_upper,
            lower=lower,
            upper=upper,
            integrality=np.append(program.integrality, np.ones(count, dtype=np.bool_)),
        )

    def fits(self, limits: Limits) -> bool:
        """Whether `program` says the same as the program itself within these limits."""
        if not self._are_near.any():
            return True
        least, greatest = _range(self._low, limits)
        are_right = (greatest - least <= self._links) | self._have_one_multiple(limits)
        return bool((~self._are_near | are_right).all())

    def _have_one_multiple(self, limits: Limits) -> NDArray[np.bool_]:
        """Tell of which rows at most one multiple of the base completes the low row."""
        (low_least, low_most), (least, most) = _range(self._low, limits), self._sides(limits)
        return low_most - low_least + most - least < self._bases

    def _sides(self, limits: Limits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        inner = self._facts.inner(limits.row_lower, limits.row_upper)
        least, most = (side[self._rows] / self._divisors for side in inner)
        least, most = (np.where(self._room > 0, np.rint(side), side) for side in (least, most))
        most = np.maximum(least, most)  # nobody asks an engine about a row without a multiple between its sides
        return np.where(self._has_lower, least, -np.inf), np.where(self._has_upper, most, np.inf)

    def limits(self, limits: Limits) -> Limits:
        """Return the bounds and sides of `program`, given those of the program itself, which must fit."""
        bases, links = self._bases, self._links
        least, most = self._sides(limits)
        (lowest, highest), (low_least, low_most) = (_range(digits, limits) for digits in (self._high, self._low))
        side = np.where(np.isfinite(most), most, np.where(np.isfinite(least), least, 0.0))
        shift = np.clip(np.rint(side / bases), lowest, highest)
        first, last = (least - low_most) / bases, (most - low_least) / bases
        # a multiple too many doesn't matter where the base is the link
        before, after = (np.where(self._are_near, 0.0, _ROUNDING * np.abs(end)) for end in (first, last))
        first, last = np.maximum(np.ceil(first - before), lowest), np.minimum(np.floor(last + after), highest)
        is_empty = first > last  # engines refuse such bounds, and find by the rows that there is no solution
        first = np.where(is_empty, np.where(self._are_near, shift, lowest), first)
        last = np.where(is_empty, np.where(self._are_near, shift, highest), last)
        added = np.zeros(self._height - len(limits.row_lower))
        row_lower, row_upper = np.append(limits.row_lower, added), np.append(limits.row_upper, added)
        begin, end = (np.where(self._are_near, (bases - links) * each, 0.0) for each in (first, last))
        row_lower[self._places] = least - begin - links * shift - self._room
        row_upper[self._places] = most - end - links * shift + self._room
        return Limits(
            np.append(limits.lower, first - shift),
            np.append(limits.upper, last - shift),
            np.append(row_lower, shift),
            np.append(row_upper, shift),
        )

    def lengthened(self, values: NDArray[np.float64], value: float) -> NDArray[np.float64]:
        """Return values of the program's variables with one for those that were added."""
        return np.append(values, np.full(len(self._rows), value))


def for_engines(
    program: IntegerProgram, rows: Rows, limits: Limits, most: float
) -> tuple[IntegerProgram, SplitRows | None, bool]:
    """Return what says the same to an engine as a program of these limits.

    Args:
        program: The program.
        rows: Its rows.
        limits: Its bounds and sides.
        most: Rows with a coefficient of more grains are split.

    Returns:
        A program, the rows that are split in it, and whether coefficients are tightened.
    """
    stated = rows.stated(limits)
    asked = tightened(program, stated) if is_distant(program) else program.replace(**stated._asdict())
    is_tightened = asked.matrix != program.matrix
    split = SplitRows.of(asked, most)
    return asked if split is None else split.program(asked), split, is_tightened


def _picked(matrix: SparseRows, rows: NDArray[np.int64]) -> SparseRows:
    """Return the matrix of these rows of one, in their order, some maybe twice."""
    lengths = np.diff(matrix.indptr)[rows]
    ends = np.append(0, lengths.cumsum())
    entries: NDArray[np.int64] = np.arange(int(ends[-1])) + np.repeat(matrix.indptr[rows] - ends[:-1], lengths)
    return SparseRows(matrix.data[entries], matrix.indices[entries], ends, (len(rows), matrix.shape[1]))


def _digits(rows: SparseRows, bases: NDArray[np.float64]) -> tuple[SparseRows, SparseRows]:
    """Return the high and the low digits of rows, to a base each."""
    base = bases[rows.row_of_entry]
    high = np.rint(rows.data / base)
    low = rows.data - base * high
    return SparseRows(high, rows.indices, rows.indptr, rows.shape), SparseRows(
        low, rows.indices, rows.indptr, rows.shape
    )


def _range(rows: SparseRows, limits: Limits) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what rows come to at least and at most within the bounds."""
    ends = rows.data * np.stack((limits.lower, limits.upper))[:, rows.indices]
    least, most = (
        np.bincount(rows.row_of_entry, weights=end, minlength=rows.shape[0]).astype(np.float64)
        for end in (ends.min(axis=0), ends.max(axis=0))
    )
    return least, most
